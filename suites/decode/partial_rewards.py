"""What early rejection rests on: that the reward of an unfinished step tells that of the whole one (arXiv 2508.01969).

The plain search finishes every step of every beam, so its steps can be judged twice: after tau of their tokens and at
their end. Pearson's correlation of the two is the reading; steps that are over within tau tokens tell nothing and are
left out. Token scores that are independent would give sqrt(tau / L) for steps of L tokens (early_rejection.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from suites.decode.early_rejection import Extend, Ids

#: A prefix before a step was written, and with the whole step.
Step = tuple[Ids, Ids]


def noting(extend: Extend, into: list[Step]) -> Extend:
    """The writer, which also notes every step that it writes."""

    def write(prefixes: Sequence[Ids], most: int) -> list[Ids]:
        written = extend(prefixes, most)
        into.extend(zip(prefixes, written, strict=True))
        return written

    return write


def unfinished(steps: Sequence[Step], tau: int) -> list[Step]:
    """Of every step of more than tau tokens the prefix with tau of them, and with all."""
    return [(whole[: len(before) + tau], whole) for before, whole in steps if len(whole) - len(before) > tau]


def correlation(partial: Sequence[float], whole: Sequence[float]) -> float | None:
    """Pearson's correlation; None of fewer than three pairs, or where one side is all alike."""
    if len(partial) < 3:
        return None
    means = sum(partial) / len(partial), sum(whole) / len(whole)
    apart = [(a - means[0], b - means[1]) for a, b in zip(partial, whole, strict=True)]
    squares = sum(a * a for a, _ in apart) * sum(b * b for _, b in apart)
    return sum(a * b for a, b in apart) / math.sqrt(squares) if squares > 0 else None
