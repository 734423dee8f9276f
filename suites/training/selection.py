"""GreenTrainer's choice of tensors by dynamic programming, and the exhaustive search that it equals. Pure; no torch.

Maximise the sum of importances of the chosen tensors subject to sum dw(chosen) + sum dy from the loss down to the
earliest chosen <= budget. Autograd does not execute the earliest one's own dy; the released code charges it
(`charge_own`).

Source: Huang et al. 2023, Towards Green AI in Fine-tuning Large Language Models (arXiv 2309.13192), section 3.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Steps that costs are rounded to.
RESOLUTION = 1000


@dataclass(frozen=True)
class Choice:
    """Tensors by place from the loss, 0 first; their importance and their cost in the units of the costs."""

    places: tuple[int, ...]
    importance: float
    cost: float


def backward_budget(rho: float, forward: float, backward: float) -> float:
    """Share of the backward that is left of a step's share rho, rho (1 + f/b) - f/b; 0.05 where nothing is.

    Args:
        rho: wanted share of the whole step's products.
        forward: f, products of the forward.
        backward: b, products of the full backward.
    """
    share = rho * (1 + forward / backward) - forward / backward
    return share if share > 0 else 0.05


def cost_of(places: Sequence[int], dy: Sequence[float], dw: Sequence[float], charge_own: bool = False) -> float:
    """Cost of a choice; an empty one costs nothing."""
    if not places:
        return 0.0
    deepest = max(places)
    return sum(dy[: deepest + (1 if charge_own else 0)]) + sum(dw[place] for place in places)


def chosen(
    dy: Sequence[float],
    dw: Sequence[float],
    importance: Sequence[float],
    budget: float,
    *,
    charge_own: bool = False,
    resolution: int | None = RESOLUTION,
) -> Choice:
    """The best choice within the budget.

    For each tensor that could be the earliest chosen one, what its path leaves of the budget is filled with tensors
    nearer the loss; the best filling for every whole cost is kept from tensor to tensor. Tensors of no positive
    importance are never worth their cost.

    Args:
        dy: products of passing the gradient on, from the loss.
        dw: products of the own gradient, from the loss.
        importance: from the loss.
        budget: of products.
        charge_own: see above.
        resolution: whole steps that the budget is cut into, costs rounded up; None, and where costs are whole numbers
            and the budget is no larger, takes them as they are.

    Raises:
        ValueError: lists of different lengths, a negative cost, or a budget below 0.
    """
    if not len(dy) == len(dw) == len(importance):
        raise ValueError(f"{len(dy)} dy, {len(dw)} dw and {len(importance)} importances: give one of each per tensor")
    if budget < 0 or min([*dy, *dw, 0]) < 0:
        raise ValueError("costs and budget are products and cannot be below 0")
    every = tuple(place for place, worth in enumerate(importance) if worth > 0)
    if (whole_cost := cost_of(every, dy, dw, charge_own)) <= budget:
        return Choice(every, sum(importance[place] for place in every), whole_cost)
    if resolution is not None and budget <= resolution and all(float(cost).is_integer() for cost in [*dy, *dw, budget]):
        resolution = None
    whole = _whole(budget, resolution)
    room = math.floor(budget) if resolution is None else resolution
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())] * (room + 1)  # of tensors nearer the loss, at most a cost
    found, path = Choice((), 0.0, 0.0), 0.0
    for place, (passes, own, worth) in enumerate(zip(dy, dw, importance, strict=True)):
        before = whole(path + (passes if charge_own else 0))
        if before > room:
            break  # further ones cost more
        left = room - before - whole(own)
        if left >= 0 and worth > 0 and best[left][0] + worth > found.importance:
            places = (*best[left][1], place)
            found = Choice(places, best[left][0] + worth, cost_of(places, dy, dw, charge_own))
        best = _filled(best, whole(own), worth, place)
        path += passes
    return found


def _filled(
    best: list[tuple[float, tuple[int, ...]]], cost: int, worth: float, place: int
) -> list[tuple[float, tuple[int, ...]]]:
    """The best fillings with one more tensor to take or to leave."""
    if worth <= 0:
        return best
    new = list(best)
    for room in range(cost, len(best)):
        taken = best[room - cost][0] + worth
        if taken > best[room][0]:
            new[room] = (taken, (*best[room - cost][1], place))
    return new


def _whole(budget: float, resolution: int | None) -> Callable[[float], int]:
    """What rounds a cost up to whole steps; a cost above the budget is one step more than there are."""
    if resolution is None:
        return math.ceil
    step = budget / resolution if budget else 1.0

    def whole(cost: float) -> int:
        return math.ceil(cost / step - 1e-9) if cost <= budget else resolution + 1

    return whole


def exhaustive(
    dy: Sequence[float], dw: Sequence[float], importance: Sequence[float], budget: float, charge_own: bool = False
) -> Choice:
    """The same by trying every set: for a dozen tensors."""
    best = Choice((), 0.0, 0.0)
    for size in range(1, len(dy) + 1):
        for places in itertools.combinations(range(len(dy)), size):
            worth, cost = sum(importance[place] for place in places), cost_of(places, dy, dw, charge_own)
            if cost <= budget and worth > best.importance:
                best = Choice(places, worth, cost)
    return best
