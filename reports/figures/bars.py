"""The rectangles of the waterline plot: from the bars of `bench.analysis.roofline` to each of its views.

Times are ms. `x` runs along the time axis of the view, heights are shares of the peak or intensity over the ridge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from bench.analysis.roofline import Bar

Kind = Literal["above", "under", "water", "dram", "unknown", "unexplained"]


@dataclass(frozen=True)
class Mark:
    """A rectangle that stands for (a part of) the bar at position `bar`; None for time that no layer explains.

    `above`: work of a compute-bound layer; `under`: work of a memory-bound one; `water` over it; `dram`: measured time
    that DRAM accounts for; `unknown`: bytes or peak are not known. `estimated` marks are hatched.
    """

    bar: int | None
    x: float
    width: float
    low: float
    high: float
    kind: Kind
    estimated: bool = False

    @property
    def area(self) -> float:
        """Width times height; for the work in any of the views the layer's ideal time in ms."""
        return self.width * (self.high - self.low)


def left_edges(widths: Sequence[float | None]) -> list[float]:
    """Where each of these bars begins, edges touching; one of unknown width leaves no hole."""
    return [0.0, *accumulate(width or 0.0 for width in widths)][:-1]


def op_byte(bars: Sequence[Bar]) -> list[Mark]:
    """Width = DRAM time, height = intensity over the ridge, water up to 1: work + water = attainable time."""
    marks: list[Mark] = []
    for i, (bar, x) in enumerate(zip(bars, left_edges([bar.memory_ms for bar in bars]), strict=True)):
        if bar.memory_ms:
            marks += _filled(i, bar, x, bar.memory_ms, bar.height, bar.top)
    return marks


def attainable(bars: Sequence[Bar]) -> list[Mark]:
    """Width = attainable time, height = ideal over attainable, water up to 1; without bytes a hatched bar."""
    marks: list[Mark] = []
    for i, (bar, x) in enumerate(zip(bars, left_edges([bar.attainable_ms for bar in bars]), strict=True)):
        if bar.attainable_ms:
            share = None if bar.compute_ms is None else bar.compute_ms / bar.attainable_ms
            marks += _filled(i, bar, x, bar.attainable_ms, share, 1.0)
    return marks


def measured(bars: Sequence[Bar], unexplained_ms: float | None) -> list[Mark]:
    """Width = measured time, solid up to ideal / measured, then DRAM's part up to attainable / measured.

    Heights may exceed 1.

    Args:
        bars: of a waterline; those without a measured time are left out.
        unexplained_ms: end-to-end time beyond the layers, one last grey bar.
    """
    marks: list[Mark] = []
    end = 0.0
    for i, (bar, x) in enumerate(zip(bars, left_edges([bar.time_ms for bar in bars]), strict=True)):
        if bar.time_ms:
            marks += _measured(i, bar, x, bar.time_ms)
            end = x + bar.time_ms
    if unexplained_ms and marks:
        marks.append(Mark(None, end, unexplained_ms, 0.0, 1.0, "unexplained"))
    return marks


def _filled(i: int, bar: Bar, x: float, width: float, height: float | None, top: float | None) -> Iterable[Mark]:
    if height is None or top is None:
        yield Mark(i, x, width, 0.0, 1.0, "unknown")
        return
    if height > 0:
        yield Mark(i, x, width, 0.0, height, _work(bar), estimated(bar))
    if height < top:
        yield Mark(i, x, width, height, top, "water")


def _measured(i: int, bar: Bar, x: float, time: float) -> Iterable[Mark]:
    if bar.compute_ms is None:
        yield Mark(i, x, time, 0.0, 1.0, "unknown")
        return
    ideal = bar.compute_ms / time
    if ideal > 0:
        yield Mark(i, x, time, 0.0, ideal, _work(bar), estimated(bar))
    if bar.attainable_ms is not None and bar.attainable_ms > bar.compute_ms:
        yield Mark(i, x, time, ideal, bar.attainable_ms / time, "dram")


def _work(bar: Bar) -> Kind:
    if bar.state == "unknown":
        return "unknown"
    return "under" if bar.state == "memory-bound" else "above"


def estimated(bar: Bar) -> bool:
    """Whether the bar's bytes are an estimate and no count."""
    return bar.layer is not None and bar.layer.bytes_source == "estimated"
