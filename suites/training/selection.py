"""GreenTrainer's choice of tensors by dynamic programming, and the exhaustive search that it equals. Pure; no torch.

Maximise the sum of importances of the chosen tensors subject to sum dw(chosen) + sum dy from the loss down to the
earliest chosen <= budget. Autograd does not execute the earliest one's own dy; the released code charges it
(`charge_own`).

Source: Huang et al. 2023, Towards Green AI in Fine-tuning Large Language Models (arXiv 2309.13192), section 3.3.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: T_q of the paper: steps that a budget is cut into, which costs are rounded up to.
RESOLUTION = 1000
#: Tensors up to which costs are taken as they are: fillings of so few are few enough whatever they cost.
EXACT = 16
#: A cost, what it buys, and the places that it is spent on.
Filling = tuple[float, float, tuple[int, ...]]


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
    resolution: int | None = None,
) -> Choice:
    """The best choice within the budget.

    For each tensor that could be the earliest chosen one, what its path leaves of the budget is filled with tensors
    nearer the loss; the fillings that no other undercuts are kept from tensor to tensor. Tensors of no positive
    importance are never worth their cost.

    Args:
        dy: products of passing the gradient on, from the loss.
        dw: products of the own gradient, from the loss.
        importance: from the loss.
        budget: of products.
        charge_own: see above.
        resolution: whole steps that the budget is cut into, costs rounded up to them; None takes costs as they are, of
            more than `EXACT` tensors in `RESOLUTION` steps. Whole costs within as many steps are always as they are.

    Raises:
        ValueError: lists of different lengths, a negative cost, a budget below 0, or less than one step.
    """
    if not len(dy) == len(dw) == len(importance):
        raise ValueError(f"{len(dy)} dy, {len(dw)} dw and {len(importance)} importances: give one of each per tensor")
    if budget < 0 or min([*dy, *dw, 0]) < 0:
        raise ValueError("costs and budget are products and cannot be below 0")
    every = tuple(place for place, worth in enumerate(importance) if worth > 0)
    if (whole_cost := cost_of(every, dy, dw, charge_own)) <= budget:
        return Choice(every, sum(importance[place] for place in every), whole_cost)
    whole, room = _steps([*dy, *dw], budget, resolution, len(every))
    front: list[Filling] = [(0, 0.0, ())]  # of tensors nearer the loss
    found, path = Choice((), 0.0, 0.0), 0.0
    for place, (passes, own, worth) in enumerate(zip(dy, dw, importance, strict=True)):
        before = whole(path + (passes if charge_own else 0))
        if before > room:
            break  # further ones cost more
        left = room - before - whole(own)
        if left >= 0 and worth > 0:
            _, value, beside = front[bisect_right(front, left, key=lambda filling: filling[0]) - 1]
            if value + worth > found.importance:
                places = (*beside, place)
                found = Choice(places, value + worth, cost_of(places, dy, dw, charge_own))
            front = _extended(front, whole(own), worth, place, room)
        path += passes
    return found


def _extended(front: list[Filling], cost: float, worth: float, place: int, room: float) -> list[Filling]:
    """The fillings with one more tensor to take or to leave, by cost; each is worth more than all cheaper ones."""
    taken = [(spent + cost, value + worth, (*places, place)) for spent, value, places in front if spent + cost <= room]
    kept: list[Filling] = []
    for filling in sorted([*front, *taken], key=lambda each: (each[0], -each[1])):
        if not kept or filling[1] > kept[-1][1]:
            kept.append(filling)
    return kept


def _steps(
    costs: Sequence[float], budget: float, resolution: int | None, count: int
) -> tuple[Callable[[float], float], float]:
    """What makes steps of a cost, one too many of a cost above the budget; and how many there are."""
    if resolution is not None and resolution < 1:
        raise ValueError(f"resolution={resolution}: a budget is cut into one step or more")
    if resolution is None and count > EXACT:
        resolution = RESOLUTION
    as_they_are = budget <= (resolution or 0) and all(float(cost).is_integer() for cost in [*costs, budget])
    if resolution is None or as_they_are:
        return lambda cost: cost, budget
    step = budget / resolution if budget else 1.0
    most = resolution
    return lambda cost: math.ceil(cost / step - 1e-9) if cost <= budget else most + 1, most


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
