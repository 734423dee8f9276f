"""One digit is normal, others are not: a detector learns from normal pictures alone and is judged on both.

A module's backbone first learns to tell the digits of 0 to 4; of those that it never saw, 5 is normal and 6 to 9 are
anomalies. Labels of the latter are used to score and for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.quality import Run, SamplesDigest, check_finite
from bench.scores import Score, mean
from suites.common import digits_data as data
from suites.common.task import TaskError, TrainedTask
from suites.common.training import Pace, fit

#: Digits that the backbone learns; the normal one; all others are anomalies.
KNOWN, NORMAL = 5, 5


@dataclass(frozen=True)
class Training:
    """How long the backbone and then the judge of its features learn."""

    backbone_steps: int = 300
    judge_steps: int = 200
    batch: int = 32
    rate: float = 3e-3
    judge_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


class DigitAnomalies(TrainedTask):
    """AUROC of a detector's score of a picture.

    A module has `backbone` (pictures to two maps, the coarse one last), `features(pictures)`, [batch, places, width],
    and a `judge` that either has a `loss(features)` or takes what it keeps by `keep(features)`.
    """

    name = "digit_anomalies"
    metric = "auroc"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the order of pictures, and of what a bank keeps.
            training: the recipe; None for the default.
        """
        super().__init__(cache, seed)
        self.training = training or Training()
        self.resolution = 32

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module is a detector with a backbone and a judge; settles the resolution."""
        judge = getattr(module, "judge", None)
        if not (hasattr(module, "backbone") and hasattr(module, "features") and judge is not None):
            raise TaskError(
                f'model "{model_name}" has no backbone, features and judge: digit_anomalies is for detectors'
            )
        if not (hasattr(judge, "loss") or hasattr(judge, "keep")):
            raise TaskError(f'model "{model_name}": its judge neither learns (loss) nor keeps features (keep)')
        self.resolution = int(getattr(module, "resolution", 32))

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the backbone on known digits, freeze it, then let the judge learn from normal ones."""
        how, parts = self.training, _Parts(module)
        accuracy = self._backbone(parts)
        parts.backbone.requires_grad_(False)
        if hasattr(parts.judge, "loss"):
            torch.manual_seed(self.seed)  # negatives are drawn from the general generator
            pace = Pace(how.judge_steps, how.judge_rate, weight_decay=how.weight_decay, clip=how.clip)

            def loss(features: Tensor, _: Tensor) -> Tensor:
                return parts.judge.loss(features)

            fit(parts.judge, self._normal_features(parts, how.judge_steps), loss, pace)
        else:
            with torch.no_grad():
                every = parts.features(self._images(self._index(data.split()[0], NORMAL))).flatten(0, 1)
                order = torch.randperm(len(every), generator=torch.Generator().manual_seed(self.seed))
                parts.judge.keep(every[order])
        module.eval()
        with torch.inference_mode():
            return {"backbone_accuracy": accuracy, "test_auroc": self.score(Run(module)).value}

    def _backbone(self, parts: _Parts) -> float:
        """Train the backbone with a linear head that is thrown away; its accuracy on held-out known digits."""
        how, (train, held_out) = self.training, data.split()
        with torch.no_grad():
            width = parts.backbone(self._images(train[:1]))[1].shape[1]
        torch.manual_seed(self.seed)
        head = nn.Linear(width, KNOWN)
        whole = nn.ModuleList([parts.backbone, head])

        def said(images: Tensor) -> Tensor:
            return head(parts.backbone(images)[1].mean((2, 3)))

        pace = Pace(how.backbone_steps, how.rate, weight_decay=how.weight_decay, clip=how.clip)
        known = train[data.labels(train) < KNOWN]
        batches = self._drawn(known, how.backbone_steps, self.seed)
        fit(whole, batches, lambda images, labels: F.cross_entropy(said(images), labels), pace)
        judged = held_out[data.labels(held_out) < KNOWN]
        with torch.inference_mode():
            right = said(self._images(judged)).argmax(1) == data.labels(judged)
        return 100 * float(right.float().mean())

    def _normal_features(self, parts: _Parts, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        normal = self._index(data.split()[0], NORMAL)
        for images, labels in self._drawn(normal, steps, self.seed + 1):
            with torch.no_grad():
                features = parts.features(images)
            yield features, labels

    def _drawn(self, index: Tensor, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            pick = index[torch.randint(len(index), (self.training.batch,), generator=generator)]
            yield self._images(pick), data.labels(pick)

    def _images(self, index: Tensor) -> Tensor:
        return data.images(index, self.resolution)

    @staticmethod
    def _index(index: Tensor, digit: int) -> Tensor:
        return index[data.labels(index) == digit]

    def data_digest(self) -> str:
        """Hash of pixels and labels."""
        return data.digits()[2]

    def recipe(self) -> dict[str, Any]:
        """The training, and which digits are what."""
        return {**asdict(self.training), "known": KNOWN, "normal": NORMAL}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Held-out digits that the backbone never saw, and 1 where one is an anomaly."""
        held_out = data.split()[1]
        for part in held_out[data.labels(held_out) >= KNOWN].split(batch_size):
            yield self._images(part), (data.labels(part) != NORMAL).long()

    def score(self, run: Run) -> Score:
        """AUROC in percent: of each anomaly the share of normal pictures whose score is lower, a tie counting half."""
        seen, scores, strange = SamplesDigest(), list[Tensor](), list[Tensor]()
        for images, anomaly in self.batches(run.batch):
            seen.feed(images, anomaly)
            answer = run(images)
            found = (answer[0] if isinstance(answer, tuple | list) else answer).float().cpu()
            check_finite(found, "the AUROC", done=sum(map(len, scores)))
            scores.append(found)
            strange.append(anomaly)
        return mean("auroc", placements(torch.cat(scores), torch.cat(strange)), seen.hex())

    def describe(self) -> dict[str, Any]:
        """Name, split, number of digits, hash, which are normal."""
        held_out = data.split()[1]
        return {
            "name": self.name, "n": int((data.labels(held_out) >= KNOWN).sum()),
            "split": "held-out digits of 5 to 9, the same for every seed", "digest": self.data_digest(),
            "preprocessing": {"resolution": self.resolution, "normal": NORMAL, "mean": data.MEAN, "std": data.STD},
        }  # fmt: skip


class _Parts:
    """What of a detector is learned, under one type."""

    def __init__(self, module: nn.Module):
        found: Any = module
        self.backbone, self.judge, self.features = found.backbone, found.judge, found.features


def placements(scores: Tensor, strange: Tensor) -> list[float]:
    """Of each anomaly the share, in percent, of normal samples that score lower; their mean is the AUROC.

    Args:
        scores: [n], the higher the stranger.
        strange: [n], 1 where a sample is an anomaly.
    """
    normal, other = scores[strange == 0].double(), scores[strange == 1].double()
    lower = (normal[None] < other[:, None]).double() + 0.5 * (normal[None] == other[:, None]).double()
    return (100 * lower.mean(1)).tolist()
