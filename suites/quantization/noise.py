"""What a number format changes, in decibels: energy of exact numbers over that of the difference, over all layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Noise:
    """Sums of squares of exact numbers and of what rounding changed; tensors of shapes alone say nothing."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    @torch.no_grad()
    def add(self, exact: Tensor, rounded: Tensor) -> None:
        """Take a layer's numbers in."""
        if exact.is_meta or rounded.is_meta:
            return
        exact = exact.double()
        self.signal += float(exact.square().sum())
        self.noise += float((exact - rounded.double()).square().sum())

    @property
    def db(self) -> float | None:
        """10 log10(signal / noise); infinite without noise, None where nothing but zeros was seen."""
        if not self.signal:
            return None
        return math.inf if not self.noise else 10 * math.log10(self.signal / self.noise)
