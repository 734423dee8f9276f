"""Ranks as intervals inside comparable groups: "2-4", never a single winner inside a tie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from bench.analysis.parts import as_part
from bench.analysis.table import of_part
from bench.analysis.timings import by_index
from bench.config import axes
from bench.metrics import METRICS
from bench.statistics import (
    LEVEL,
    equality_matrix,
    from_summary,
    holm_ranks,
    paired_mean_difference,
    paired_p_matrix,
)
from bench.store.records import Record

#: Two rows are ranked together only if all of these are equal; `conditions` are the axes of the side that a row is
#: compared with, so that `against` decides what may be ranked with what; `execution` keeps what is simulated from the
#: rest.
COMPARABLE = ("metric", "part", "machine_key", "protocol", "provenance", "execution", "conditions")
#: The same for a table without that column.
PLAIN = ("metric", "part", "machine_key", "protocol", "provenance", "execution", *axes.CONDITIONS)


#: On which samples a row was scored, and its answers: their digest, and per sample a mark ("1" for right) or a value.
Answers = tuple[str, str | tuple[float, ...]]


@dataclass(frozen=True)
class _Scale:
    """How a metric's values are compared: on logs with t, on the plain scale with normals, or exactly."""

    exact: bool
    linear: bool


@dataclass(frozen=True)
class Members:
    """The rows of one comparable group, column by column, each [rows]; NaN where an end or a number is missing.

    Attributes:
        values, low, high: estimates with their intervals.
        counts: of replicates behind each.
        provenances: the kinds that occur.
        keys: case key and machine key.
        sessions: in which each was timed, None for none.
        tolerance: the largest log difference that identical twins showed in these sessions.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    provenances: frozenset[str]
    keys: Sequence[tuple[str, str]]
    sessions: Sequence[str | None]
    tolerance: float = 0.0


def rank_intervals(
    frame: pd.DataFrame,
    metric: str,
    group: Sequence[str] = COMPARABLE,
    *,
    medians: Mapping[tuple[str, str], Mapping[int, float]] | None = None,
    answers: Mapping[tuple[str, str], Answers] | None = None,
    level: float = LEVEL,
    part: str | None = None,
) -> pd.DataFrame:
    """The rows of one metric and part with the ranks each may hold inside its comparable group.

    Ranks are Holm-corrected over the group's pairs. Added columns: `group` (number), `rank_low`, `rank_high` (1 is
    best; missing for rows that are not ranked) and `rank_note`, which says why a row is not ranked. Failed,
    contaminated and valueless rows never are.

    Args:
        frame: the tidy table of `bench.analysis.table`.
        metric: a metric with a direction.
        group: columns that must be equal; columns that the frame lacks are skipped.
        medians: `medians_of` this metric and part, to pair rows that were timed in one session instead of comparing
            their intervals.
        answers: `answers_of`, to pair scores sample by sample where two rows were scored on the same ones.
        level: family-wise confidence level within a group.
        part: of the workload; `None` is the whole run, or the subject for what has no parts.

    Raises:
        ValueError: the metric has no better direction.
    """
    if METRICS[metric].better == "none":
        raise ValueError(f"{metric} has no better direction, so it cannot be ranked")
    rows = frame[(frame["metric"] == metric) & of_part(frame, part)].copy()
    rows["rank_note"] = np.select(
        [rows["status"] != "ok", rows["value"].isna()], ["status " + rows["status"].astype(str), "no value"], default=""
    )
    if group is COMPARABLE and "conditions" not in rows.columns:
        group = PLAIN
    columns = [name for name in group if name in rows.columns]
    rows["group"] = rows.groupby(columns, dropna=False, sort=False).ngroup() if len(rows) else []
    floors = _floors(frame, part)
    found: dict[Any, tuple[Any, Any]] = {}
    needed = [name for name in (*_OF_MEMBERS, "group") if name in rows.columns]
    for _, own in rows.loc[rows["rank_note"] == "", needed].groupby("group"):
        placed_here = ranks(_members(own, floors), metric, medians=medians or {}, answers=answers or {}, level=level)
        found |= dict(zip(own.index, placed_here, strict=True))
    placed = [found.get(index, (pd.NA, pd.NA)) for index in rows.index]
    rows["rank_low"] = pd.array([low for low, _ in placed], dtype="Int64")
    rows["rank_high"] = pd.array([high for _, high in placed], dtype="Int64")
    return rows


def medians_of(
    records: Iterable[Record], metric: str = "latency_ms", part: str | None = None
) -> dict[tuple[str, str], dict[int, float]]:
    """Per (case key, session) the value of each process that counts, for pairing rows of one session."""
    shown = (record if part is None else as_part(record, part) for record in records)
    return {
        (record["case_key"], record["timing"]["session"]): by_index(record, metric)
        for record in shown
        if (record.get("timing") or {}).get("session")
    }


def answers_of(records: Iterable[Record]) -> dict[tuple[str, str], Answers]:
    """Per (case key, machine key) the answers sample by sample, for pairing scores; rows without them are left out."""
    found = {}
    for record in records:
        quality = record.get("quality") or {}
        if quality.get("samples_digest") and quality.get("per_sample"):
            marks = quality["per_sample"]
            kept = marks if isinstance(marks, str) else tuple(float(value) for value in marks)
            found[record["case_key"], record["machine_key"]] = (quality["samples_digest"], kept)
    return found


#: Columns of the table that ranks are made from.
_OF_MEMBERS = (
    "value", "ci_low", "ci_high", "n", "provenance", "case_key", "machine_key", "session", "noise_floor_low",
    "noise_floor_high",
)  # fmt: skip


def _members(rows: pd.DataFrame, floors: Mapping[str, float]) -> Members:
    """The rows of one group of the table."""
    values, low, high, counts = (
        rows[name].to_numpy(float, na_value=np.nan) for name in ("value", "ci_low", "ci_high", "n")
    )
    keys = list(zip(rows["case_key"], rows["machine_key"], strict=True))
    sessions = (
        [None if pd.isna(name) else name for name in rows["session"]] if "session" in rows else [None] * len(rows)
    )
    ends = [rows[name].to_numpy(float) for name in ("noise_floor_low", "noise_floor_high") if name in rows]
    tolerance = tolerance_of(np.concatenate([np.empty(0), *ends]), sessions, floors)
    return Members(values, low, high, counts, frozenset(rows["provenance"]), keys, sessions, tolerance)


def ranks(
    members: Members,
    metric: str,
    *,
    medians: Mapping[tuple[str, str], Mapping[int, float]],
    answers: Mapping[tuple[str, str], Answers],
    level: float = LEVEL,
) -> list[tuple[int, int]]:
    """The ranks that each row of a group may hold, 1 the best; the arguments are those of `rank_intervals`."""
    values = members.values
    order = values[:, None] < values[None, :]
    better = order if METRICS[metric].better == "lower" else order.T
    scale = _scale(metric, set(members.provenances))
    p = _p_matrix(members, scale)
    if scale.linear:
        _pair_answers(p, members, answers)
    if not scale.exact and not scale.linear:
        _pair(p, members, medians)
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 over 0 is equal all the same, and has no better side
            near = np.abs(np.log(values[:, None] / values[None, :])) <= members.tolerance
        p[near & ~np.isnan(p)] = 1.0
    return holm_ranks(p, better, level)


def is_exact(metric: str, provenances: set[str]) -> bool:
    """Whether values are ranked as they are, so that only equal ones share a rank and no pair needs a test."""
    return provenances <= {"counted", "modelled"} or METRICS[metric].compared in ("exact", "modelled", "tolerance")


def _scale(metric: str, provenances: set[str]) -> _Scale:
    return _Scale(is_exact(metric, provenances), METRICS[metric].compared == "score")


def _p_matrix(members: Members, scale: _Scale) -> np.ndarray:
    """P-values that two rows are equal, from their intervals."""
    values = members.values
    if scale.exact:
        return (values[:, None] == values[None, :]).astype(float)
    if scale.linear:
        se = (members.high - members.low) / (2 * 1.959964)
        apart = np.abs(values[:, None] - values[None, :]) / np.hypot(se[:, None], se[None, :])
        p: np.ndarray = 2 * special.ndtr(-apart)
        return p
    columns = (members.values, members.low, members.high, members.counts)
    ends = zip(*(column.tolist() for column in columns), strict=True)
    return equality_matrix(
        [from_summary(v, _maybe(lo), _maybe(hi), None if math.isnan(n) else int(n)) for v, lo, hi, n in ends]
    )


def _pair(p: np.ndarray, members: Members, medians: Mapping[tuple[str, str], Mapping[int, float]]) -> None:
    """Replace p-values of rows that were timed together by those of the paired test."""
    if not medians:
        return
    named = zip(members.keys, members.sessions, strict=True)
    found = [None if session is None else medians.get((key[0], session)) for key, session in named]
    together: dict[tuple[Any, tuple[int, ...]], list[int]] = {}
    for place, (session, own) in enumerate(zip(members.sessions, found, strict=True)):
        if own is not None:
            together.setdefault((session, tuple(sorted(own))), []).append(place)
    for (session, processes), places in together.items():
        _fill(p, places, places, [found[i] for i in places], processes)
        for (other_session, others), more in together.items():
            both = tuple(sorted({*processes} & {*others}))
            if session == other_session and processes < others:  # some rows lack a process that others have
                _fill(p, places, more, [found[i] for i in (*places, *more)], both)


def _fill(
    p: np.ndarray, rows: Sequence[int], columns: Sequence[int], own: Sequence[Any], processes: Sequence[int]
) -> None:
    """Put the p-values of rows against columns into the matrix; `own` are their values by process, in that order."""
    if len(processes) < 2:
        return
    found = paired_p_matrix(np.array([[values[k] for k in processes] for values in own], dtype=float))
    block = found if rows is columns else found[: len(rows), len(rows) :]
    p[np.ix_(rows, columns)] = block
    p[np.ix_(columns, rows)] = block.T


def _pair_answers(p: np.ndarray, members: Members, answers: Mapping[tuple[str, str], Answers]) -> None:
    """Replace p-values of rows that answered the same samples by those of the paired test."""
    by_samples: dict[tuple[str, int, bool], list[int]] = {}
    for place, key in enumerate(members.keys):
        if key in answers:
            digest, marks = answers[key]
            by_samples.setdefault((digest, len(marks), isinstance(marks, str)), []).append(place)
    for (_, _, proportions), places in by_samples.items():
        given = [answers[members.keys[i]][1] for i in places]
        p[np.ix_(places, places)] = _mcnemar(given) if proportions else _paired_t(given)


def _mcnemar(marks: Sequence[Any]) -> np.ndarray:
    """McNemar's exact p-values of all pairs (Psychometrika 12, 1947)."""
    right = np.array([np.frombuffer(text.encode(), dtype=np.uint8) == ord("1") for text in marks], dtype=float)
    won = (right @ (1 - right).T).astype(int)  # samples that the row gets right and the column wrong
    exact: np.ndarray = np.minimum(1.0, 2 * special.bdtr(np.minimum(won, won.T), won + won.T, 0.5))
    return exact


def _paired_t(values: Sequence[Any]) -> np.ndarray:
    """The paired t-test's p-values of all pairs; NaN where there is one sample."""
    p = np.ones((len(values), len(values)))
    for i, one in enumerate(values):
        for j in range(i):
            p[i, j] = p[j, i] = paired_mean_difference(values[j], one)[3] if len(one) > 1 else np.nan
    return p


def _floors(frame: pd.DataFrame, part: str | None) -> dict[str, float]:
    """The largest log difference that identical twins showed, by session, from the readings `aa_ratio`."""
    if "session" not in frame.columns:
        return {}
    twins = frame[(frame["metric"] == "aa_ratio") & of_part(frame, part) & frame["session"].notna()]
    return floors_of(zip(twins["session"], twins["ci_low"], twins["ci_high"], strict=True))


def floors_of(twins: Iterable[tuple[str, float | None, float | None]]) -> dict[str, float]:
    """The largest log difference that identical twins showed, by session, from the ends of their ratios."""
    found: dict[str, float] = {}
    for session, *ends in twins:
        found[session] = max(found.get(session, 0.0), _largest(np.array(ends, dtype=float)))
    return found


def tolerance_of(ends: np.ndarray, sessions: Iterable[str | None], floors: Mapping[str, float]) -> float:
    """The largest log difference that identical twins showed in the sessions of some rows.

    It stands in every row of a session. The reading `aa_ratio` tells the same, but only where the baseline was recorded
    in that session.

    Args:
        ends: of the noise floors that the rows name, as ratios.
        sessions: of the rows.
        floors: `floors_of` all rows.
    """
    return max([_largest(ends), *(floors.get(session, 0.0) for session in set(sessions) if session is not None)])


def _largest(ends: np.ndarray) -> float:
    """The largest absolute logarithm of ratios; 0 of none that is known."""
    ends = ends[np.isfinite(ends) & (ends > 0)]
    return float(np.abs(np.log(ends)).max()) if len(ends) else 0.0


def _maybe(value: float) -> float | None:
    return None if math.isnan(value) else value
