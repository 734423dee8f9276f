"""Products, parameters and payloads of split networks in closed form, matmul convention, one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Half:
    """One half of a cut: products, parameters, and channels and side of what it gives."""

    macs: int
    params: int
    channels: int
    side: int

    @property
    def elements(self) -> int:
        """Numbers that it gives."""
        return self.channels * self.side**2


def _after(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1


class _Walk:
    """A chain of layers: sums of products and parameters, and where it stands."""

    def __init__(self, channels: int, side: int):
        self.channels, self.side, self.macs, self.params = channels, side, 0, 0

    def conv(self, outer: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        weights = self.channels * outer * kernel**2
        self.side = _after(self.side, kernel, stride, padding)
        self.macs, self.params = self.macs + weights * self.side**2, self.params + weights
        self.channels = outer

    def transposed(self, outer: int) -> None:
        """2 x 2 with stride 2: every input has its own outputs."""
        weights = 4 * self.channels * outer
        self.macs, self.params = self.macs + weights * self.side**2, self.params + weights
        self.channels, self.side = outer, 2 * self.side

    def norm(self) -> None:
        self.params += 2 * self.channels

    def gdn(self) -> None:
        self.macs += self.channels**2 * self.side**2
        self.params += self.channels**2 + self.channels

    def pool(self, kernel: int, stride: int, padding: int = 0) -> None:
        self.side = _after(self.side, kernel, stride, padding)

    def half(self) -> Half:
        return Half(self.macs, self.params, self.channels, self.side)


def bottlefit_head(b: int, version: int, resolution: int, channels: int = 3, stem: int = 64, inner: int = 512) -> Half:
    """BottleFit's encoder; `inner` is the width of version 3's further convolution."""
    walk = _Walk(channels, resolution)
    walk.conv(b if version == 1 else stem, 7, 2, 3)
    walk.norm()
    walk.pool(3, 2, 1)
    if version > 1:
        walk.norm()
    if version == 3:
        walk.conv(inner, 2, 2, 1)
        walk.norm()
    if version > 1:
        walk.conv(b, 2, 2, 1)
    return walk.half()


def bottlefit_decoder(
    given: Half, version: int, widths: Sequence[int] = (512, 512, 512, 512), pool: int = 1, stem: int = 64
) -> Half:
    """BottleFit's decoder of what its encoder gives, to the teacher's map."""
    walk = _Walk(given.channels, given.side)
    walk.norm()
    if version == 1:
        walk.conv(stem, 2, 2, 1)
        walk.norm()
    for place, width in enumerate(widths):
        if place:
            walk.norm()
        if version == 3 and place == 0:
            walk.transposed(width)
        else:
            walk.conv(width, 2, 1, int(place < 2))
    walk.pool(2, pool)
    return walk.half()


def entropic_head(widths: Sequence[int], resolution: int, channels: int = 3, *, gdn: bool = True) -> Half:
    """The Entropic Student's encoder; without `gdn` as a count has it that overlooks divisive normalisation."""
    walk = _Walk(channels, resolution)
    for place, width in enumerate(widths):
        walk.conv(width, *((5, 2, 2) if place < 2 else (2, 1, 0)))
        if place < 2 and gdn:
            walk.gdn()
    return walk.half()


def entropic_decoder(given: Half, widths: Sequence[int] = (512, 256, 256)) -> Half:
    """The Entropic Student's decoder, to the teacher's map."""
    walk = _Walk(given.channels, given.side)
    for place, width in enumerate(widths):
        walk.conv(width, 2, 1, int(place != 1))
        if place < 2:
            walk.gdn()
    return walk.half()


def prior_params(channels: int) -> int:
    """A density for each channel: 58 parameters, and three quantiles."""
    return 61 * channels


def expansion(elements: int, resolution: int, channels: int = 3) -> float:
    """Numbers of a map over bytes of the picture: above 1 a cut there expands the data."""
    return elements / (channels * resolution**2)
