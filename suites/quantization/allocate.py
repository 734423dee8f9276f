"""Bits of layers under a budget, as integer programmes solved exactly (`scipy.optimize.milp`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.optimize import LinearConstraint

#: What losses are blown up by, as the solver stops at an absolute gap of a millionth.
FINE = 1e6
#: Relative rounding of a sum of floats.
ROUNDING = 1e-12


class NoAllocation(ValueError):
    """No choice of bits meets the budget."""


@dataclass(frozen=True)
class Allocation:
    """Bits of each layer, the objective and the cost that they have."""

    bits: tuple[int, ...]
    objective: float
    cost: float

    @property
    def text(self) -> str:
        """The bits as a word, one digit a layer."""
        return "".join(map(str, self.bits))


def allocate(
    sensitivity: Sequence[float],
    cost4: Sequence[float],
    cost8: Sequence[float],
    ties: Sequence[tuple[int, int]] = (),
    budget: float = 0.5,
) -> Allocation:
    """4 or 8 bits a layer (Yao et al. 2021, HAWQV3, arXiv 2011.10680, section 3.4).

    Minimises the sum over 8-bit layers of `sensitivity`, subject to cost <= uniform4 + budget (uniform8 - uniform4).

    Args:
        sensitivity: what a layer adds at 8 bits over 4: trace/n x (err8 - err4), below 0.
        cost4: bytes, bit operations or time of each layer at 4 bits.
        cost8: the same at 8.
        ties: pairs of layers that have the same bits.
        budget: r, the share between uniform 4 and uniform 8.

    Raises:
        NoAllocation: no choice meets the budget.
        ValueError: lists of unequal length.
    """
    if not len(sensitivity) == len(cost4) == len(cost8):
        raise ValueError(f"{len(sensitivity)}, {len(cost4)} and {len(cost8)} entries: one of each a layer")
    low, high = float(sum(cost4)), float(sum(cost8))
    gain = [[0.0, float(s)] for s in sensitivity]
    cost = [[float(a), float(b)] for a, b in zip(cost4, cost8, strict=True)]
    picks = choose(gain, cost, low + budget * (high - low), ties=ties)
    bits = tuple(8 if pick else 4 for pick in picks)
    return Allocation(
        bits,
        float(sum(s for s, b in zip(sensitivity, bits, strict=True) if b == 8)),
        float(sum(c[p] for c, p in zip(cost, picks, strict=True))),
    )


def choose(
    loss: Sequence[Sequence[float]],
    cost: Sequence[Sequence[float]],
    most: float,
    *,
    least: float | None = None,
    ties: Sequence[tuple[int, int]] = (),
) -> list[int]:
    """The choice of each layer with the least sum of losses whose costs sum to `least`..`most`.

    The solver lets constraints be missed by a millionth, which is some bytes of millions: a choice that does not keep
    to the budget to the last byte is forbidden, and the next best is asked for.

    Args:
        loss: of each choice of each layer; as many choices as `cost` has.
        cost: of each choice of each layer.
        most: largest sum of costs.
        least: smallest sum of costs; None for none.
        ties: pairs of layers that choose the same.

    Raises:
        NoAllocation: no choice meets the budget.
    """
    from scipy.optimize import Bounds, milp

    start = np.concatenate([[0], np.cumsum([len(row) for row in loss])]).astype(int)
    rows = _constraints(cost, start, most, least, ties)
    objective = np.concatenate([np.asarray(row, dtype=float) for row in loss])
    size = float(np.abs(objective).max()) or 1.0
    while True:
        found = milp(
            objective * (FINE / size),
            constraints=rows,
            integrality=np.ones(len(objective)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )
        if found.x is None:
            raise NoAllocation(
                f"no choice of bits costs {'' if least is None else f'{least:g} to '}{most:g}: {found.message}"
            )
        picks = [int(np.argmax(found.x[low:high])) for low, high in pairwise(start)]
        if _is_within(cost, picks, most, least):
            return picks
        rows.append(_all_but(start[:-1] + picks, len(objective)))


def _constraints(
    cost: Sequence[Sequence[float]],
    start: np.ndarray,
    most: float,
    least: float | None,
    ties: Sequence[tuple[int, int]],
) -> list[LinearConstraint]:
    """One choice a layer, a sum of costs within the budget, and layers that choose the same."""
    from scipy.optimize import LinearConstraint

    count = int(start[-1])
    one = np.zeros((len(cost), count))
    for layer, (low, high) in enumerate(pairwise(start)):
        one[layer, low:high] = 1
    costs = np.concatenate([np.asarray(row, dtype=float) for row in cost])
    scale = float(np.abs(costs).max()) or 1.0  # of bytes or of milliseconds: the solver's tolerance is absolute
    rows = [
        LinearConstraint(one, 1, 1),
        LinearConstraint(costs[None] / scale, -np.inf if least is None else least / scale, most / scale),
    ]
    for first, second in ties:
        tied = np.zeros((len(cost[first]), count))
        for place in range(len(cost[first])):
            tied[place, start[first] + place], tied[place, start[second] + place] = 1, -1
        rows.append(LinearConstraint(tied, 0, 0))
    return rows


def _all_but(places: np.ndarray, count: int) -> LinearConstraint:
    """Forbids one choice: not all of its places at once."""
    from scipy.optimize import LinearConstraint

    row = np.zeros((1, count))
    row[0, places] = 1
    return LinearConstraint(row, -np.inf, len(places) - 1)


def _is_within(cost: Sequence[Sequence[float]], picks: Sequence[int], most: float, least: float | None) -> bool:
    """Whether costs sum to `least`..`most`, but for the rounding of a sum of floats."""
    spent = sum(row[pick] for row, pick in zip(cost, picks, strict=True))
    return spent <= most + ROUNDING * abs(most) and (least is None or spent >= least - ROUNDING * abs(least))


def choose_exhaustively(
    loss: Sequence[Sequence[float]],
    cost: Sequence[Sequence[float]],
    most: float,
    *,
    least: float | None = None,
    ties: Sequence[tuple[int, int]] = (),
) -> list[int]:
    """What `choose` says, by trying every choice: the slow, obvious reference.

    Raises:
        NoAllocation: no choice meets the budget.
    """
    best, lowest = None, float("inf")
    for picks in product(*(range(len(row)) for row in loss)):
        if not _is_within(cost, picks, most, least):
            continue
        if any(picks[first] != picks[second] for first, second in ties):
            continue
        value = sum(row[pick] for row, pick in zip(loss, picks, strict=True))
        if value < lowest:
            best, lowest = list(picks), value
    if best is None:
        raise NoAllocation(f"no choice of bits costs {most:g} or less")
    return best
