"""How many samples a number needs: apart from `bench.statistics`, which brings NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache


@cache
def samples_for_percentile(q: float, confidence: float = 0.99) -> int:
    """How many samples a percentile needs: 64 for p90, 662 for p99.

    The smallest n at which the second largest sample is an upper confidence bound of the percentile, that is at most
    one sample above it has probability 1 - confidence or less.

    Source: MLPerf Inference, "Early stopping" (MLCommons inference policies, appendix; loadgen/early_stopping).
    """
    if not 0 < q < 1:
        raise ValueError(f"a percentile lies between 0 and 1, not at {q}")
    n = 2
    while q**n + n * (1 - q) * q ** (n - 1) > 1 - confidence:  # none above it, or one
        n += 1
    return n


def sure_percentile(samples: Sequence[float], q: float) -> tuple[float | None, str]:
    """The q-quantile (0..1), linear between samples, where they are enough; else None and how many are needed."""
    needed = 1 if q == 0.5 else samples_for_percentile(q)
    if len(samples) < needed:
        return None, f"{len(samples)} samples; {needed} are needed"
    ordered = sorted(samples)
    place = q * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below]), ""
