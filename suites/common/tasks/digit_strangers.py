"""Digits of 0 to 4 are benign, 5 to 9 are not: a detector learns from benign ones alone and is judged on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.quality import Run, SamplesDigest, check_finite, logits
from bench.scores import Score, mean
from suites.common import digits_data as data
from suites.common.task import TaskError, TrainedTask
from suites.common.tasks.digit_anomalies import placements

#: Digits below this are benign.
BENIGN = 5


class DigitStrangers(TrainedTask):
    """AUROC of a detector's score of a digit's pixels, standardised by benign ones; it learns by `learn_benign`."""

    name = "digit_strangers"
    metric = "auroc"

    def __init__(self, cache: Path, seed: int):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of weights and of what is drawn while learning.
        """
        super().__init__(cache, seed)

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module learns from benign samples of 64 features."""
        if not hasattr(module, "learn_benign"):
            raise TaskError(f'model "{model_name}" is no detector: digit_strangers is for clan and contrastive')
        if getattr(module, "features", None) != 64:
            raise TaskError(f'model "{model_name}" takes {module.features} features, digits have 64: set features=64')

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """What the module says of its own learning, and its AUROC."""
        learner: Any = module
        found: dict[str, Any] = learner.learn_benign(self._standardised(self._benign()), self.seed)
        module.eval()
        with torch.inference_mode():
            return {**found, "test_auroc": self.score(Run(module)).value}

    def _benign(self) -> Tensor:
        train = data.split()[0]
        return train[data.labels(train) < BENIGN]

    def _standardised(self, index: Tensor) -> Tensor:
        pixels, benign = data.digits()[0].flatten(1), self._benign()
        mean_of, spread = pixels[benign].mean(0), pixels[benign].std(0)
        return (pixels[index] - mean_of) / torch.where(spread > 0, spread, torch.ones_like(spread))

    def data_digest(self) -> str:
        """Hash of pixels and labels."""
        return data.digits()[2]

    def recipe(self) -> dict[str, Any]:
        """Which digits are benign; the rest is the module's."""
        return {"benign": BENIGN}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Held-out digits, and 1 where one is none of those that were learned from."""
        for part in data.split()[1].split(batch_size):
            yield self._standardised(part), (data.labels(part) >= BENIGN).long()

    def score(self, run: Run) -> Score:
        """AUROC in percent: of each stranger the share of benign digits that score lower, a tie counting half."""
        seen, scores, strange = SamplesDigest(), list[Tensor](), list[Tensor]()
        for pixels, stranger in self.batches(256):
            seen.feed(pixels, stranger)
            found = logits(run(pixels)).float().cpu()
            check_finite(found, "the AUROC", done=sum(map(len, scores)))
            scores.append(found)
            strange.append(stranger)
        return mean("auroc", placements(torch.cat(scores), torch.cat(strange)), seen.hex())

    def describe(self) -> dict[str, Any]:
        """Name, split, number of digits, hash, which are benign."""
        return {
            "name": self.name, "n": data.HELD_OUT, "split": "held-out digits, the same for every seed",
            "digest": self.data_digest(), "preprocessing": {"benign": f"digits below {BENIGN}", "standardised": True},
        }  # fmt: skip
