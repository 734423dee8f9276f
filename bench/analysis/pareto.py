"""Pareto fronts that know their uncertainty: who is on the front, who may be, and who certainly is not.

Objectives are any metrics with directions (`lower` or `higher`). Everything holds within one comparable group of rows;
choosing that group is the caller's part (`bench.analysis.ranking.COMPARABLE`).

Sources: dominance and hypervolume, E. Zitzler, L. Thiele, IEEE Trans. Evol. Comput. 3(4), 1999.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.statistics import normal_reach

DRAWS = 10_000
#: Replicates below which an interval is too weak to certify anything.
MIN_REPLICATES = 3

Better = Literal["lower", "higher"]
Standing = Literal["front", "plausible", "certified-dominated", "excluded"]


@dataclass(frozen=True)
class Objective:
    """One axis: a metric's name and which way is better."""

    name: str
    better: Better


@dataclass(frozen=True)
class Estimate:
    """A point with its interval; `None` for both ends where there is none, `exact` for counted values.

    `n` is the number of replicates behind the interval.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    exact: bool = False

    @property
    def certain(self) -> bool:
        """Whether the estimate may certify dominance: an exact value, or an interval from enough replicates."""
        enough = self.n is None or self.n >= MIN_REPLICATES
        return self.exact or (self.low is not None and self.high is not None and enough)

    @property
    def ends(self) -> tuple[float, float]:
        """Low and high; the point itself where there is no interval."""
        return (self.value if self.low is None else self.low, self.value if self.high is None else self.high)


@dataclass(frozen=True)
class Candidate:
    """One candidate: its name and an estimate per objective, in the objectives' order."""

    name: str
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True)
class Placed:
    """Where a row stands: by whom it is dominated as a point, by whom for certain, and its probability of the front.

    `plausible` is dominated as a point, but by nobody with separated intervals in every objective. `p_front` is `None`
    for excluded rows; `note` says why a row is excluded or cannot be certified.
    """

    name: str
    standing: Standing
    dominated_by: tuple[str, ...]
    certified_by: tuple[str, ...]
    p_front: float | None
    note: str = ""


def pareto(
    rows: Sequence[Candidate], objectives: Sequence[Objective], *, draws: int = DRAWS, seed: int = 0
) -> list[Placed]:
    """The standing of every row, in the given order; rows with a missing objective are excluded and listed as such.

    Args:
        rows: candidates of one comparable group.
        objectives: at least one; their order is that of the estimates.
        draws: seeded draws for P(front), at least 2000.
        seed: of the draws.

    Raises:
        ValueError: too few draws, no objective, or a row with another number of estimates.
    """
    if draws < 2000 or not objectives:
        raise ValueError("P(front) needs at least 2000 draws and a front at least one objective")
    if any(len(row.estimates) != len(objectives) for row in rows):
        raise ValueError(f"every row needs {len(objectives)} estimates, one per objective")
    usable = [row for row in rows if not _missing(row, objectives)]
    points, best, worst = _matrices(usable, objectives)
    dominated = _dominates(points, points)
    separated = (worst[:, None, :] < best[None, :, :]).all(axis=2) & _certain_pairs(usable)
    chance = front_probability(usable, objectives, draws=draws, seed=seed)
    placed = {
        id(row): _place(
            row,
            [usable[j].name for j in np.flatnonzero(dominated[:, i])],
            [usable[j].name for j in np.flatnonzero(separated[:, i])],
            chance[i],
        )
        for i, row in enumerate(usable)
    }
    return [
        placed.get(id(row)) or Placed(row.name, "excluded", (), (), None, _missing(row, objectives)) for row in rows
    ]


def front_probability(
    rows: Sequence[Candidate], objectives: Sequence[Objective], *, draws: int = DRAWS, seed: int = 0
) -> list[float]:
    """P(front) of each row: the share of seeded draws in which no other row dominates it.

    Draws are independent normals with standard deviation half-width / 1.96; a value without an interval does not move.
    Rows that another beats by over eight standard deviations in every objective get 0 without being drawn.
    """
    points, best, worst = _matrices(rows, objectives)
    spread = (worst - best) / (2 * normal_reach())
    hopeless = (points[:, None, :] + 4 * spread[:, None, :] < points[None, :, :] - 4 * spread[None, :, :]).all(axis=2)
    drawn = np.flatnonzero(~hopeless.any(axis=0))
    chance = np.zeros(len(rows))
    if not len(drawn):
        return []
    rng, done = np.random.default_rng(seed), 0
    pairs = len(drawn) if len(objectives) == 2 else len(drawn) ** 2
    chunk = max(1, 2_000_000 // (pairs * len(objectives)))
    while done < draws:
        size = min(chunk, draws - done)
        at = points[drawn] + spread[drawn] * rng.standard_normal((size, len(drawn), len(objectives)))
        undominated = undominated_pairs(at) if len(objectives) == 2 else undominated_points(at)
        chance[drawn] += undominated.sum(axis=0)
        done += size
    return [float(count) / draws for count in chance]


def undominated_points(at: np.ndarray) -> np.ndarray:
    """(draws, rows) booleans from (draws, rows, objectives): whether no other row of the draw dominates the row."""
    no_worse = (at[:, :, None, :] <= at[:, None, :, :]).all(axis=3)
    better = (at[:, :, None, :] < at[:, None, :, :]).any(axis=3)
    return np.logical_not(np.any(no_worse & better, axis=1))


def undominated_pairs(at: np.ndarray) -> np.ndarray:
    """As `undominated_points`, for two objectives: one sweep over rows sorted by the first, not every pair."""
    order = np.argsort(at[:, :, 0], axis=1)
    x, y = (np.take_along_axis(at[:, :, k], order, axis=1) for k in range(2))
    if (x[:, 1:] == x[:, :-1]).any():  # the second objective decides; seldom so, because it takes ten times as long
        order = np.lexsort((at[:, :, 1], at[:, :, 0]))
        x, y = (np.take_along_axis(at[:, :, k], order, axis=1) for k in range(2))
    unset = np.full((len(at), 1), np.inf)
    best = np.concatenate([unset, np.minimum.accumulate(y, axis=1)[:, :-1]], axis=1)
    first = np.maximum.accumulate(np.where(y < best, np.arange(y.shape[1]), 0), axis=1)
    best_x = np.concatenate([unset, np.take_along_axis(x, first, axis=1)[:, :-1]], axis=1)
    dominated = (best < y) | ((best == y) & (best_x < x))
    free = np.empty_like(dominated)
    np.put_along_axis(free, order, ~dominated, axis=1)
    return free


def staircase(points: Sequence[tuple[float, float]], better: tuple[Better, Better]) -> tuple[list[float], list[float]]:
    """The corners of the front of two objectives, ready to draw as one line: horizontal first, then vertical.

    Args:
        points: (x, y) of rows; dominated ones are left out here, NaN ones too.
        better: direction of x and of y.
    """
    front = _front_points(points, better)
    xs: list[float] = []
    ys: list[float] = []
    for x, y in front:
        if xs:
            xs.append(x)
            ys.append(ys[-1])
        xs.append(x)
        ys.append(y)
    return xs, ys


def hypervolume(
    points: Sequence[tuple[float, float]], better: tuple[Better, Better], reference: tuple[float, float]
) -> float:
    """The area between the front and a reference point that is worse in both objectives, in the product of their units.

    Points that do not improve on the reference in both add nothing.
    """
    signs = [_sign(direction) for direction in better]
    limit = [reference[k] * signs[k] for k in range(2)]
    area, floor = 0.0, limit[1]
    for x, y in sorted((x * signs[0], y * signs[1]) for x, y in _front_points(points, better)):
        if x < limit[0] and y < floor:
            area += (limit[0] - x) * (floor - y)
            floor = y
    return area


def _front_points(points: Sequence[tuple[float, float]], better: tuple[Better, Better]) -> list[tuple[float, float]]:
    """The distinct undominated points, ordered from the best first objective to the worst."""
    signs = [_sign(direction) for direction in better]
    clean = sorted(
        {(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)},
        key=lambda p: (p[0] * signs[0], p[1] * signs[1]),
    )
    front: list[tuple[float, float]] = []
    for x, y in clean:
        if not front or y * signs[1] < front[-1][1] * signs[1]:
            front.append((x, y))
    return front


def _sign(better: Better) -> float:
    """1 or -1, such that smaller is better after multiplying."""
    return 1.0 if better == "lower" else -1.0


def _missing(row: Candidate, objectives: Sequence[Objective]) -> str:
    """Why a row cannot be placed; empty if it can."""
    gone = [o.name for o, e in zip(objectives, row.estimates, strict=True) if not math.isfinite(e.value)]
    return f"no value for {', '.join(gone)}" if gone else ""


def _matrices(rows: Sequence[Candidate], objectives: Sequence[Objective]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, best ends and worst ends, each (rows, objectives), turned so that smaller is better."""
    shape = (len(rows), len(objectives))
    points, best, worst = np.empty(shape), np.empty(shape), np.empty(shape)
    for i, row in enumerate(rows):
        for j, (estimate, objective) in enumerate(zip(row.estimates, objectives, strict=True)):
            sign = _sign(objective.better)
            points[i, j] = sign * estimate.value
            best[i, j], worst[i, j] = sorted(sign * end for end in estimate.ends)
    return points, best, worst


def _dominates(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(len(a), len(b)) booleans: row i of `a` is no worse than row j of `b` anywhere and better somewhere."""
    return np.asarray((a[:, None, :] <= b[None, :, :]).all(axis=2) & (a[:, None, :] < b[None, :, :]).any(axis=2))


def _certain_pairs(rows: Sequence[Candidate]) -> np.ndarray:
    certain = np.array([all(estimate.certain for estimate in row.estimates) for row in rows], dtype=bool)
    return np.logical_and.outer(certain, certain)


def _place(row: Candidate, dominated_by: list[str], certified_by: list[str], chance: float) -> Placed:
    weak = not all(estimate.certain for estimate in row.estimates)
    standing: Standing = "front" if not dominated_by else "certified-dominated" if certified_by else "plausible"
    note = ""
    if weak and dominated_by:
        standing, note = "plausible", f"no interval or fewer than {MIN_REPLICATES} replicates: nothing can be certified"
    return Placed(row.name, standing, tuple(dominated_by), tuple(certified_by), chance, note)
