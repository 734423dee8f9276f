"""How many survive a rate: exact decimal arithmetic, so that 29 % of 100 are 29 and not 28."""

from __future__ import annotations

from fractions import Fraction


def exact(rate: float) -> Fraction:
    """The decimal number that was written, as a fraction."""
    return Fraction(repr(float(rate)))


def dropped(count: int, sparsity: float) -> int:
    """int(s n): how many of `count` go."""
    return int(exact(sparsity) * count)


def kept(count: int, sparsity: float) -> int:
    """N - int(s n): how many of `count` weights or blocks stay."""
    return count - dropped(count, sparsity)


def kept_width(width: int, rate: float) -> int:
    """int(c (1 - rate)), one at least: how many of `width` channels stay."""
    return max(1, int((1 - exact(rate)) * width))


def check_sparsity(sparsity: float, what: str = "sparsity") -> None:
    """Raise ValueError unless 0 <= sparsity < 1."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"{what}={sparsity}: a share of the weights that go is wanted, 0 up to but without 1")
