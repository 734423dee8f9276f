"""Which batch fits and which is worth it: memory as a line in the batch, throughput as a curve that bends: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

#: A doubling that gains less than this share of throughput is past the bend.
WORTH = 0.10


@dataclass(frozen=True)
class Growth:
    """Peak bytes of a run by its batch: `base` that is there anyway, and so many more for each sample."""

    base: float
    per_sample: float

    def at(self, batch: int) -> float:
        """Peak bytes of a run of so many samples."""
        return self.base + self.per_sample * batch

    def largest(self, limit: float, most: int) -> int:
        """The largest batch whose peak stays within the limit, at most `most`; 0 where not even one sample fits."""
        if self.at(1) > limit:
            return 0
        if self.per_sample <= 0 or self.at(most) <= limit:
            return most
        return int((limit - self.base) / self.per_sample)


def growth(peaks: Mapping[int, float]) -> Growth:
    """The line through the peaks of the two largest batches that were taken.

    Raises:
        ValueError: fewer than two batches.
    """
    if len(peaks) < 2:
        raise ValueError("the growth of memory needs the peaks of two batches")
    one, two = sorted(peaks)[-2:]
    slope = (peaks[two] - peaks[one]) / (two - one)
    return Growth(peaks[two] - slope * two, slope)


@dataclass(frozen=True)
class Throughput:
    """Samples a second at one batch, with the ends of its 95 % interval where there is one."""

    batch: int
    value: float
    low: float | None = None
    high: float | None = None


def best(points: Sequence[Throughput]) -> Throughput | None:
    """The smallest batch whose throughput cannot be told from the highest; None without points."""
    if not points:
        return None
    top = max(points, key=lambda point: point.value)
    floor = top.value if top.low is None else top.low
    return min((point for point in points if (point.high or point.value) >= floor), key=lambda point: point.batch)


def bend(points: Sequence[Throughput], worth: float = WORTH) -> int | None:
    """The batch from which more samples no longer pay: every doubling after it gains less than `worth`.

    None where the last step still pays, or there are fewer than two points. A step that is no doubling is judged by
    what it gains per doubling.
    """
    ordered = sorted(points, key=lambda point: point.batch)
    found = None
    for before, after in zip(ordered[::-1][1:], ordered[::-1], strict=False):
        if _per_doubling(before, after) >= 1 + worth:
            break
        found = before.batch
    return found


def _per_doubling(before: Throughput, after: Throughput) -> float:
    return (after.value / before.value) ** (1 / log2(after.batch / before.batch))
