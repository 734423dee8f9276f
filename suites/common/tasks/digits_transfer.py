"""From five digits to the other five: classifiers learn 0 to 4, and methods fine-tune them on 5 to 9.

What `prepare` trains has never seen the digits that are scored: without a method it tells next to none of them. All ten
logits stay, so that a network is the same before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.quality import Run, accuracy
from suites.common import digits_data as data
from suites.common.tasks.digits import Digits, train

#: The first digit of those that are fine-tuned on.
FIRST_NEW = 5


class DigitsTransfer(Digits):
    """Accuracy on the held-out digits 5 to 9."""

    name = "digits_transfer"

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the classifier on 0 to 4; its accuracy on those of the training set, and on the held-out 5 to 9."""
        train(module, self.training, partial(self._drawn, False, self.training.batch), self.seed)
        with torch.inference_mode():
            known = accuracy(Run(module), self._drawn(False, 200, 3, self.seed))
            held_out = accuracy(Run(module), self.batches(200))
        return {"train_accuracy": known.value, "test_accuracy": held_out.value}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out digits 5 to 9 and their labels in a fixed order."""
        for index in _of(data.split()[1], True).split(batch_size):
            yield self._inputs(index), data.labels(index)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches drawn at random from the training digits 5 to 9."""
        return self._drawn(True, batch_size, steps, seed)

    def _drawn(self, new: bool, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        index = _of(data.split()[0], new)
        everything, labels = self._inputs(index), data.labels(index)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            pick = torch.randint(len(labels), (batch_size,), generator=generator)
            yield everything[pick], labels[pick]

    def describe(self) -> dict[str, Any]:
        """As of digits; of the held-out ones, 5 to 9 alone."""
        count = len(_of(data.split()[1], True))
        return {**super().describe(), "split": f"the {count} of 597 held-out digits that show 5 to 9", "n": count}


def _of(index: Tensor, new: bool) -> Tensor:
    return index[(data.labels(index) >= FIRST_NEW) == new]
