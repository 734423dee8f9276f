"""Pictures of digits that a sampler makes: does a frozen classifier see the class, and are they spread like real ones?

The judge is a small classifier, trained once on the training digits and frozen. The score is the Frechet distance
between its features of made and of held-out digits (after Heusel et al. 2017, formula 6, with this judge in place of
Inception); the share of made digits in which it sees the class that was asked for comes along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.signatures import source_digest
from bench.flags import flag
from bench.meters.quality import QualityError, Run, SamplesDigest, check_finite
from bench.scores import Score, distribution, proportion
from suites.common import digits_data as data
from suites.common.rectified_flow import flow_loss, noise
from suites.common.task import TaskError, TrainedTask, WeightsCache, content_key
from suites.common.training import Pace, classification, fit, one_thread

#: Side of the pictures that the judge looks at.
SIDE = 16
JUDGE_STEPS = 400
#: Per cent of held-out digits that the judge has to see right, or nothing that it says of made ones means anything.
LEAST_OF_JUDGE = 90.0
#: Per cent of the plain sampler's digits that have to show the class asked for, or a method's loss is one of little.
LEAST_OF_PLAIN = 90.0


@dataclass(frozen=True)
class Training:
    """How a sampler's network is trained; every second batch is at half the resolution if the network knows it."""

    steps: int = 1000
    batch: int = 64
    rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0


class Judge(nn.Module):
    """Two convolutions, a layer of 64 features, ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * (SIDE // 4) ** 2, 64)
        self.head = nn.Linear(64, data.CLASSES)

    def features(self, pictures: Tensor) -> Tensor:
        """The 64 features before the logits, [batch, 64], of pictures [batch, 1, 16, 16] in -1..1."""
        x = F.max_pool2d(F.relu(self.conv1(pictures)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.hidden(x.flatten(1)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        return self.head(self.features(pictures))


class DigitImages(TrainedTask):
    """Class-conditional digits by a sampler as the workload asks (`plan`, `start`, `step`, `finish`)."""

    name = "digit_images"
    metric = "frechet_distance"

    def __init__(
        self,
        cache: Path,
        seed: int,
        *,
        training: Training | None = None,
        samples: int = 1000,
        seeds: int = 3,
        judge_steps: int = JUDGE_STEPS,
    ):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the batches to learn from; noise of the score is the same for every seed.
            training: the recipe; None for the default.
            samples: pictures that are made for a score; the distance depends on it, so it is part of what is compared.
            seeds: sets that the plain model makes once, to tell the spread.
            judge_steps: of the judge's training.

        Raises:
            TaskError: too few samples for a covariance, or too few seeds for a spread.
        """
        super().__init__(cache, seed)
        if samples < 65 or seeds < 2:
            raise TaskError(
                f"samples={samples}, seeds={seeds}: 64 features need more than 64 samples, a spread two seeds"
            )
        self.training = training or Training()
        self.samples, self.seeds, self.judge_steps = samples, seeds, judge_steps
        self._judges = WeightsCache(Path(cache) / "digit_judge")
        self._spread: list[float] = []
        self._judge: Judge | None = None
        self._judge_accuracy = 0.0
        self._plain_accuracy = 100.0

    # ------------------------------------------------------------------------------------------ the judge

    def judge(self) -> Judge:
        """The frozen classifier; trained now unless its weights are in the cache."""
        if self._judge is None:
            with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                judge = Judge()
                source = source_digest(f"{__name__}:Judge")
                key = content_key({"steps": self.judge_steps, "data": self.data_digest(), "source": source})
                weights, notes = self._judges.get(f"judge-{key}", partial(self._train_judge, judge))
                judge.load_state_dict(weights)
            self._judge_accuracy = float(notes["test_accuracy"])
            self._judge = judge.eval().requires_grad_(False)
        return self._judge

    def _train_judge(self, judge: Judge) -> tuple[dict[str, Tensor], dict[str, Any]]:
        batches = _picture_batches(32, self.judge_steps, 0, at_half=False)
        with one_thread():
            fit(judge, batches, classification(judge), Pace(self.judge_steps, 3e-3))
        index = data.split()[1]
        right = judge(pictures(index)).argmax(dim=1) == data.labels(index)
        return judge.state_dict(), {"test_accuracy": 100.0 * float(right.float().mean())}

    # ------------------------------------------------------------------------------------------ the weights

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module samples grey 16 x 16 pictures of ten classes."""
        missing = [name for name in ("plan", "start", "step", "finish") if not hasattr(module, name)]
        if missing:
            raise TaskError(f'model "{model_name}" does not sample: it lacks {", ".join(missing)}; take digit_dit')
        shape = tuple(getattr(module, name, None) for name in ("channels", "resolution", "classes"))
        if shape != (1, SIDE, data.CLASSES):
            raise TaskError(
                f'model "{model_name}" makes pictures of (channels, resolution, classes) {shape}, and digit_images has '
                f"{(1, SIDE, data.CLASSES)}"
            )

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train by rectified flow or a loss of the module's own; the scores of one set per seed, the judge's accuracy.

        A module with `learning_loss(pictures, generator)` gets all training pictures once and gives its loss of a
        batch; it learns at full size alone.
        """
        how, own = self.training, getattr(module, "learning_loss", None)
        batches = self.training_batches(how.batch, how.steps, self.seed, at_half=own is None)
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        generator = torch.Generator().manual_seed(self.seed)
        flow: Any = module
        loss = flow_loss(flow, generator) if own is None else own(pictures(data.split()[0]), generator)
        losses = fit(module, batches, loss, pace)
        with torch.inference_mode():
            made = [self._made(Run(module), seed) for seed in range(self.seeds)]
        distances = [self._distance(each) for each in made]
        right = self._marks(made[0]).count("1")
        last = losses[-50:]
        return {
            "train_loss": sum(last) / len(last),
            "test_frechet": distances,
            "test_accuracy": 100 * right / self.samples,
        }

    def load(self, module: nn.Module, model_name: str) -> dict[str, Any]:
        """Load the trained weights, and with them the spread of the plain model's seeds and its accuracy."""
        notes = super().load(module, model_name)
        self._spread = [float(value) for value in notes["test_frechet"]]
        self._plain_accuracy = float(notes["test_accuracy"])
        return notes

    def data_digest(self) -> str:
        """Hash of pixels and labels."""
        return data.digits()[2]

    def recipe(self) -> dict[str, Any]:
        """The training, and what the spread was told by."""
        return {**asdict(self.training), "samples": self.samples, "seeds": self.seeds, "judge_steps": self.judge_steps}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out digits as pictures in -1..1, and their labels."""
        for index in data.split()[1].split(batch_size):
            yield pictures(index), data.labels(index)

    def training_batches(
        self, batch_size: int, steps: int, seed: int, *, at_half: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of random training digits and labels; with `at_half` every second one at half the side."""
        return _picture_batches(batch_size, steps, seed, at_half=at_half)

    # ------------------------------------------------------------------------------------------ the score

    def score(self, run: Run) -> Score:
        """The Frechet distance of made from held-out digits, and the share of them that shows the class asked for."""
        made = self._made(run, 0)
        seen = SamplesDigest()
        seen.feed(self.real(data.split()[1]), self.samples, self.judge_steps)
        marks = self._marks(made)
        found = distribution(
            "frechet_distance", self._distance(made), self.samples, seen.hex(), seeds=self._spread, floor=self.floor(),
            judge_accuracy=self._judge_accuracy,
        )  # fmt: skip
        return replace(found, also=(proportion("accuracy", marks, seen.hex()),), flags=self._flags())

    def _flags(self) -> tuple[dict[str, str], ...]:
        """A flag that makes the row invalid where the judge does not know real digits, and one of a weak network."""
        if self._judge_accuracy < LEAST_OF_JUDGE:
            text = (
                f"the frozen classifier sees only {self._judge_accuracy:.1f} % of held-out digits right, and "
                f"{LEAST_OF_JUDGE:g} % are needed: what it says of made digits means nothing"
            )
            return (flag("judge_fails", "invalid", text),)
        if self._plain_accuracy < LEAST_OF_PLAIN:
            text = (
                f"the plain sampler itself shows the class that it is asked for in {self._plain_accuracy:.1f} % of "
                f"what it makes, less than {LEAST_OF_PLAIN:g} %: take the quality of this network's rows for little"
            )
            return (flag("weak_plain_sampler", "warn", text),)
        return ()

    def floor(self) -> float:
        """The distance of the training digits from the held-out ones, which no trained model gets below by merit."""
        train, held_out = (self.features(self.real(index)) for index in data.split())
        return frechet(train, held_out)

    # what a set of made or of real samples is to the judge; other samples than pictures say it anew

    def shape_of(self, module: Any) -> tuple[int, ...]:
        """The shape of one sample that the module makes."""
        return (1, SIDE, SIDE)

    def real(self, index: Tensor) -> Tensor:
        """Real samples of these digits."""
        return pictures(index)

    def features(self, samples: Tensor) -> Tensor:
        """The judge's features of samples, [n, 64]."""
        return self.judge().features(samples)

    def answers(self, samples: Tensor) -> Tensor:
        """The judge's logits of samples, [n, 10]."""
        return self.judge()(samples)

    def _made(self, run: Run, seed: int) -> Tensor:
        """Samples of the classes in turn, [samples, ...], sampled as the case's shape says."""
        module: Any = run.module
        made, shape = [], self.shape_of(module)
        steps = len(module.plan({**run.shape, "batch": run.batch}))
        for start in range(0, self.samples, run.batch):
            indices = range(start, min(start + run.batch, self.samples))
            state = module.start(run.send(noise(indices, seed, shape)), run.send(torch.tensor(indices) % 10))
            for step in range(steps):
                state = module.step(step, state)
            made.append(module.finish(state).float().cpu())
        together = torch.cat(made)
        if together.shape != (self.samples, *shape):
            raise QualityError(f"the sampler made samples of shape {tuple(together.shape[1:])}; expected {shape}")
        check_finite(together, "the Frechet distance")
        return together.clamp(-1, 1)

    def _marks(self, made: Tensor) -> str:
        wanted = torch.arange(len(made)) % data.CLASSES
        return "".join("1" if hit else "0" for hit in (self.answers(made).argmax(dim=1) == wanted).tolist())

    def _distance(self, made: Tensor) -> float:
        return frechet(self.features(made), self.features(self.real(data.split()[1])))

    def describe(self) -> dict[str, Any]:
        """Name, what is compared, number of samples, hash of the data, the judge."""
        return {
            "name": self.name,
            "split": "made digits against 597 held-out of scikit-learn's 1797",
            "n": self.samples,
            "classes": data.CLASSES,
            "digest": self.data_digest(),
            "preprocessing": {
                "resolution": SIDE,
                "interpolation": "bilinear",
                "range": [-1, 1],
                "judge_steps": self.judge_steps,
            },
        }


def pictures(index: Tensor, side: int = SIDE) -> Tensor:
    """Digits as grey pictures in -1..1, [n, 1, side, side]."""
    pixels = data.digits()[0][index][:, None]
    return 2 * F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False) - 1


def _picture_batches(batch_size: int, steps: int, seed: int, *, at_half: bool) -> Iterator[tuple[Tensor, Tensor]]:
    train_index, _ = data.split()
    whole, half, labels = pictures(train_index), pictures(train_index, SIDE // 2), data.labels(train_index)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        pick = torch.randint(len(labels), (batch_size,), generator=generator)
        yield (half if at_half and step % 2 else whole)[pick], labels[pick]


def frechet(one: Tensor, two: Tensor) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^1/2) of the means and covariances of two sets of features [n, width].

    The trace of the root is that of (S^1/2 S' S^1/2)^1/2, which is symmetric: no complex rest is cut off.
    """
    left, right = (features.double().cpu().numpy() for features in (one, two))
    root = _root(np.cov(left, rowvar=False))
    both = np.linalg.eigvalsh(root @ np.cov(right, rowvar=False) @ root)
    traces = np.trace(np.cov(left, rowvar=False)) + np.trace(np.cov(right, rowvar=False))
    distance = np.square(left.mean(axis=0) - right.mean(axis=0)).sum()
    return float(distance + traces - 2 * np.sqrt(both.clip(min=0)).sum())


def _root(covariance: Any) -> Any:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
