"""How RT-DETRv4 steers the weight of its semantic loss: by the share that a layer has of all gradients, once an epoch.

Source: Liao et al. 2025, RT-DETRv4, arXiv:2510.25257, section 3.3, as its released code does it (Apache-2.0, read).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: The least factor of one epoch, and how far a weight may move in it either way.
LEAST, FARTHEST = 0.1, 10.0
#: Shares below this, in percent, are no gradient at all, and weights below it no weight.
NOTHING = 1e-6


@dataclass(frozen=True)
class Band:
    """Where the share of gradients shall stay, in percent: `rho` +- `delta`; the weight before, and when all fails."""

    start: float
    rho: float
    delta: float
    default: float

    def next_weight(self, weight: float, share: float, last: bool = False) -> float:
        """The weight of the next epoch.

        Inside the band it stays. Outside the target is the far bound, and the weight is multiplied with the ratio of
        the odds of target and share.

        Args:
            weight: of this epoch.
            share: of this epoch, in percent.
            last: whether the epochs without augmentation have begun, which have the default weight.
        """
        low, high = self.rho - self.delta, self.rho + self.delta
        if last or share < NOTHING:
            return self.default
        if low <= share <= high or weight <= NOTHING or share >= 100:
            return weight
        wanted, now = (high if share < low else low) / 100, share / 100
        factor = max(LEAST, wanted * (1 - now) / (now * (1 - wanted)))
        return min(max(weight * factor, weight / FARTHEST), weight * FARTHEST)


#: Of the released detectors by size, with epochs and those without augmentation among them.
BANDS = {
    "S": Band(5, 11, 1, 20), "M": Band(5, 3.5, 0.25, 15), "L": Band(15, 2, 0.1, 15), "X": Band(20, 2, 0.25, 20),
}  # fmt: skip
EPOCHS = {"S": 132, "M": 102, "L": 58, "X": 58}
#: Share of the epochs that come last, without augmentation: 12 of 132 of the smallest detector.
LAST = 12 / 132


def gradient_share(layer: nn.Module, parameters: Iterable[nn.Parameter]) -> float:
    """L1 norm of the gradients of a layer over that of all, in percent; 0 where there is none."""
    part, whole = _l1(layer.parameters()), _l1(parameters)
    return 100 * part / whole if whole else 0.0


def _l1(parameters: Iterable[nn.Parameter]) -> float:
    norms: list[Tensor] = [p.grad.detach().abs().sum() for p in parameters if p.grad is not None]
    return float(torch.stack(norms).sum()) if norms else 0.0
