"""Quality against total bits: loss = a + b bits^-c through the sizes of one width, and which width is best at a budget.

The form of the laws for quantised families (Dettmers and Zettlemoyer 2022, arXiv 2212.09720; 2501.06218). No loss is
below 0, and no floor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

#: What widths are told apart by: bits, or the name of a format.
Width = TypeVar("Width", int, str)


#: Powers that are tried.
POWERS = (0.01, 4.0)


@dataclass(frozen=True)
class Law:
    """loss = floor + factor bits^-power."""

    floor: float
    factor: float
    power: float

    def at(self, bits: float) -> float:
        """The loss at a number of total bits."""
        return self.floor + self.factor * bits**-self.power

    @property
    def is_determined(self) -> bool:
        """Whether the sizes say what it is: the loss falls, by a power that is not an end of those that were tried."""
        low, high = POWERS
        return self.factor > 0 and low * 1.01 < self.power < high * 0.99


def fitted(bits: Sequence[float], losses: Sequence[float]) -> Law:
    """The law through total bits and losses of one width: least squares with a floor of 0 or more.

    Raises:
        ValueError: fewer than three sizes, or bits that do not differ.
    """
    if len(bits) < 3 or len(bits) != len(losses) or len(set(bits)) < 3:
        raise ValueError(f"{len(bits)} sizes and {len(losses)} losses: three different sizes or more are needed")
    logs = np.log(np.asarray(bits, dtype=float))
    wanted = np.asarray(losses, dtype=float)
    middle = float(logs.mean())

    def at(power: float) -> tuple[float, Law]:
        design = np.stack([np.ones_like(logs), np.exp(-power * (logs - middle))], axis=1)
        (floor, factor), *_ = np.linalg.lstsq(design, wanted, rcond=None)
        if floor < 0:
            floor, factor = 0.0, float(design[:, 1] @ wanted) / float(design[:, 1] @ design[:, 1])
        error = float(((design @ np.array([floor, factor]) - wanted) ** 2).sum())
        return error, Law(float(floor), float(factor) * math.exp(power * middle), power)

    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda power: at(float(power))[0], bounds=POWERS, method="bounded")
    return at(float(found.x))[1]


def best_precision(laws: Mapping[Width, Law], budget: float) -> Width:
    """The width whose law is lowest at so many total bits; of equal ones the smaller."""
    return min(sorted(laws), key=lambda width: laws[width].at(budget))


def best_precision_interval(
    points: Mapping[Width, Sequence[tuple[float, float]]], budget: float, draws: int = 200, seed: int = 0
) -> dict[Width, float]:
    """How often each width is best at a budget when residuals of its law are drawn anew (bootstrap), as shares.

    Args:
        points: by width, (total bits, loss) of each size.
        budget: total bits.
        draws: of residuals.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    laws = {width: fitted(*zip(*each, strict=True)) for width, each in points.items()}
    won = dict.fromkeys(points, 0)
    for _ in range(draws):
        drawn = {}
        for width, each in points.items():
            rest = np.array([loss - laws[width].at(bits) for bits, loss in each])
            shaken = [
                laws[width].at(bits) + float(r) for (bits, _), r in zip(each, rng.choice(rest, len(rest)), strict=True)
            ]
            drawn[width] = fitted([bits for bits, _ in each], shaken)
        won[best_precision(drawn, budget)] += 1
    return {width: count / draws for width, count in won.items()}
