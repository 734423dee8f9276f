"""Embeddings of pictures from words: how near does a prior's embedding come to that of a real digit of the class?

Text is a sentence of fixed random word vectors with the label's word in it; the wanted embedding are the 64 features of
the frozen judge of `digit_images`, centred and scaled by the training digits. No edges are given. The score is the
cosine of made and wanted embeddings of held-out digits. The mean of a class has the best cosine that words alone can
have, so a network that is trained to regress is nearer here than any sample of a distribution: it is a score of how
well the text was understood, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.quality import Run, SamplesDigest, check_finite
from bench.scores import Score, mean
from suites.common import digits_data as data
from suites.common.rectified_flow import noise
from suites.common.task import TaskError, TrainedTask
from suites.common.tasks.digit_images import DigitImages, pictures
from suites.common.training import Pace, fit

WIDTH = 64
#: Where the label's word stands in a sentence.
PLACE = 3


@dataclass(frozen=True)
class Training:
    """How a prior is trained."""

    steps: int = 600
    batch: int = 64
    rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


class DigitEmbeddings(TrainedTask):
    """Mean cosine of made and wanted embeddings of the held-out digits."""

    name = "digit_embeddings"
    metric = "cosine"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None, judge_steps: int = 400):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the batches to learn from.
            training: the recipe; None for the default.
            judge_steps: of the encoder's training.
        """
        super().__init__(cache, seed)
        self.training = training or Training()
        self._images = DigitImages(cache, seed, judge_steps=judge_steps)
        self._known: tuple[Tensor, Tensor] | None = None

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module maps text to embeddings of 64 numbers and says how it learns."""
        words = getattr(module, "words", 0)
        if getattr(module, "embedding", None) != WIDTH or not isinstance(words, int) or words <= PLACE:
            raise TaskError(
                f'model "{model_name}" makes no embeddings of {WIDTH} numbers from text: take small_eclipse'
            )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Those of the training and of the held-out digits, [n, 64]; centred and scaled by the training ones."""
        if self._known is None:
            with torch.no_grad():
                train, held_out = (self._images.judge().features(pictures(index)) for index in data.split())
            centre, spread = train.mean(dim=0), train.std(dim=0)
            spread = torch.where(spread > 0, spread, torch.ones_like(spread))
            self._known = ((train - centre) / spread, (held_out - centre) / spread)
        return self._known

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train by the module's own loss of texts and embeddings; the cosine in one plan of its own."""
        how = self.training
        own: Any = module
        loss = own.learning_loss(torch.Generator().manual_seed(self.seed))
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        losses = fit(module, self.training_batches(how.batch, how.steps, self.seed), loss, pace)
        with torch.inference_mode():
            found = self.score(Run(module)).value
        return {"train_loss": sum(losses[-50:]) / len(losses[-50:]), "test_cosine": found}

    def data_digest(self) -> str:
        """Hash of pixels and labels."""
        return data.digits()[2]

    def recipe(self) -> dict[str, Any]:
        """The training and the encoder's."""
        return {**asdict(self.training), "judge_steps": self._images.judge_steps}

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of labels and embeddings of random training digits."""
        labels, wanted = data.labels(data.split()[0]), self.embeddings()[0]
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            pick = torch.randint(len(labels), (batch_size,), generator=generator)
            yield labels[pick], wanted[pick]

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Labels and embeddings of the held-out digits."""
        yield from zip(
            data.labels(data.split()[1]).split(batch_size), self.embeddings()[1].split(batch_size), strict=True
        )

    def score(self, run: Run) -> Score:
        """The mean cosine over held-out digits with its interval."""
        module: Any = run.module
        seen, found, done = SamplesDigest(), list[Tensor](), 0
        steps = len(module.plan({**run.shape, "batch": run.batch}))
        for labels, wanted in self.batches(run.batch):
            seen.feed(labels, wanted)
            text = run.send(sentences(labels, module.words))
            cond = (text, text.mean(dim=1), torch.zeros_like(text[:, 0]))
            state = module.start(run.send(noise(range(done, done + len(labels)), 0, (WIDTH,))), cond)
            for step in range(steps):
                state = module.step(step, state)
            made = module.finish(state).double().cpu()
            check_finite(made, "the cosine", done=done)
            found.append(F.cosine_similarity(made, wanted.double()))
            done += len(labels)
        return mean("cosine", torch.cat(found).tolist(), seen.hex(), mean_of_class=self._best())

    def _best(self) -> float:
        """The mean cosine of the mean training embedding of each class: what words alone can say."""
        train, held_out = self.embeddings()
        labels, asked = (data.labels(index) for index in data.split())
        means = torch.stack([train[labels == digit].mean(dim=0) for digit in range(data.CLASSES)])
        return float(F.cosine_similarity(means[asked], held_out).mean())

    def describe(self) -> dict[str, Any]:
        """Name, split, number of samples, hash, the encoder."""
        return {
            "name": self.name, "n": len(data.split()[1]), "split": "597 held-out of scikit-learn's 1797 digits",
            "digest": self.data_digest(), "preprocessing": {"judge_steps": self._images.judge_steps, "width": WIDTH},
        }  # fmt: skip


@cache
def _vocabulary(words: int) -> Tensor:
    """Fixed random vectors of the sentence's words and of the labels, [words + 10, 64]."""
    return torch.randn(words + data.CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))


def sentences(labels: Tensor, words: int) -> Tensor:
    """States of a sentence of `words` words that names the label, [n, words, 64]."""
    table = _vocabulary(words)
    made = table[:words].expand(len(labels), -1, -1).clone()
    made[:, PLACE] = table[words + labels]
    return made
