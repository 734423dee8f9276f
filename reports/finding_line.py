"""A row of a page of findings, as the atlas reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A row of a page that promises to save: ratios of the other side's over its own operations and time."""

    suite: str
    case: str
    workload: str
    batch: int
    conditions: str
    promised: float
    measured: float
    low: float
    high: float

    @property
    def realised(self) -> float:
        """Measured over promised speed-up."""
        return self.measured / self.promised

    @property
    def arrived(self) -> float:
        """Time saved over time that the operations promise to save; negative where it is slower."""
        return (1 - 1 / self.measured) / (1 - 1 / self.promised)

    @property
    def verdict(self) -> str:
        """`faster` or `slower` where the whole 95 % interval is on that side of 1, else `open`."""
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "open"
