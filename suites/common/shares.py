"""Whole numbers of tokens from a share: what floating point loses or adds in the last digit is no token.

100 x 0.29 is 28.999999999999996 there, and 3100 (1 - 0.7) is 930.0000000000001. Shares may be differences or
quotients, so a product is taken as whole within a tolerance, which holds for up to millions of tokens. Budgets over all
weights of a network are larger, and their shares are decimals that somebody wrote: `suites.pruning.rounding` takes
those exactly.
"""

from __future__ import annotations

import math

#: What a product of a number of tokens and a share may be off.
TOLERANCE = 1e-9


def at_most(count: int, share: float) -> int:
    """floor(count x share)."""
    return math.floor(count * share + TOLERANCE)


def at_least(count: int, share: float) -> int:
    """ceil(count x share)."""
    return math.ceil(count * share - TOLERANCE)
