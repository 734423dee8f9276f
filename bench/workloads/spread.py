"""How products differ from input to input: mean, percentiles that occurred, and extremes, as readings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.reading import Reading, reading

#: Metrics of the products of a sample of inputs, in this order.
COUNTED = ("macs_mean", "macs_p50", "macs_p90", "macs_p95", "macs_min", "macs_max")
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95}


def counted_spread(values: Sequence[float], note: str, part: str = "") -> list[Reading]:
    """Readings of the products of each input of a sample, per input.

    Args:
        values: products of each input.
        note: of what sample they are.
        part: of the workload; empty where one run is a forward.
    """
    found = (*summary(values), min(values), max(values))
    return [
        reading(name, value, "counted", method_note=note, statistic=how(name), part=part)
        for name, value in zip(COUNTED, found, strict=True)
    ]


def summary(values: Sequence[float]) -> tuple[float, ...]:
    """Mean, p50, p90 and p95."""
    return statistics.fmean(values), *(percentile(values, share) for share in SHARES.values())


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def how(name: str) -> str:
    """What a metric of a sample is the statistic of, by its name."""
    share = next((text for text in SHARES if text in name), None)
    if share is not None:
        return f"{share} over inputs"
    return "mean over inputs" if name in ("macs_mean", "input_ms") else "extreme over inputs"
