"""Predictors beside each other: errors on held-out networks, the noise ceiling, and what a choice by them costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.workloads.prediction import WORKLOAD
from reports.content import Site
from reports.figures.figure import significant
from reports.rows import Row


@dataclass(frozen=True)
class Cloud:
    """Networks of one family: measured and predicted milliseconds."""

    family: str
    measured: tuple[float, ...]
    predicted: tuple[float, ...]


@dataclass(frozen=True)
class Predictor:
    """One predictor with the networks that it was judged on; `ceiling` is the error of measuring again, per cent."""

    row: Row
    name: str
    clouds: tuple[Cloud, ...]
    ceiling: float | None

    @property
    def error(self) -> float | None:
        """Mean relative error over networks, per cent."""
        return self.row.value("mape")


def predictors(site: Site) -> list[Predictor]:
    """Every row that predicts and was judged, the smallest error first within what it was asked, what only ranks last.

    That other work disturbed a predictor's own processes changes nothing of its error; that it disturbed what the
    predictor is made from does, and such a row is left out.
    """
    found = [_predictor(row) for row in site.rows if row.case.workload == WORKLOAD.name and _is_sound(row)]
    judged = [one for one in found if one.error is not None or one.row.value("spearman") is not None]
    return sorted(judged, key=lambda one: (_asked(one), math.inf if one.error is None else one.error))


def _is_sound(row: Row) -> bool:
    codes = {flag["code"] for flag in row.record.get("flags") or []}
    return row.status in ("ok", "contaminated") and "disturbed_rows" not in codes


def _predictor(row: Row) -> Predictor:
    curves = [curve for curve in row.record.get("curves") or [] if curve["metric"] == "predicted_ms"]
    clouds = tuple(Cloud(str(curve["part"]), tuple(curve["at"]), tuple(curve["values"])) for curve in curves)
    return Predictor(row, row.case.model_label, clouds, row.value("noise_mape"))


def _asked(one: Predictor) -> tuple[str, ...]:
    """What was learned from and held out, as the record has it."""
    details = one.row.record.get("workload") or {}
    return tuple(str(details.get(name, "")) for name in ("machine", "form", "family", "split", "target"))


def asked(one: Predictor) -> str:
    """The same in words: `fbnet, split c`."""
    machine, form, family, split, _ = _asked(one)
    words = [family, f"split {split}"]
    words += [form] if form not in ("", "plain") else []
    return ", ".join([*words, *([f"simulated: {machine}"] if machine not in ("", "measured") else [])])


HEAD = [
    "predictor", "learned from, split", "networks", "MAPE", "noise ceiling", "bias", "spread", "Spearman",
    "R2", "R2 of logs", "75th percentile", "right side of the budget", "regret of its choice",
    "predicted of those held out", "build (s)", "one prediction (us)",
]  # fmt: skip


def table(found: Sequence[Predictor]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a predictor with every error."""
    return HEAD, [_line(one) for one in found]


def _line(one: Predictor) -> list[str]:
    cells = one.row.cells
    networks = sum(len(cloud.measured) for cloud in one.clouds)
    return [
        one.name,
        asked(one),
        str(networks or "-"),
        _said(one, "mape", " %"),
        _said(one, "noise_mape", " %"),
        *(_said(one, name, " %") for name in ("bias_percent", "spread_percent")),
        *(_said(one, name) for name in ("spearman", "r2", "r2_log")),
        *(_said(one, name, " %") for name in ("p75_abs_rel_error", "decides_percent")),
        _said(one, "top1_regret", "x"),
        _said(one, "coverage_percent", " %"),
        _said(one, "build_seconds"),
        significant(cells["predict_us"].value) if "predict_us" in cells and cells["predict_us"].value else "n/a",
    ]


def _said(one: Predictor, metric: str, unit: str = "") -> str:
    """`4.2 % [3.1, 5.6]`."""
    cell = one.row.cells.get(metric)
    if cell is None or cell.value is None:
        return "n/a"
    text = f"{significant(cell.value)}{unit}"
    if cell.low is None or cell.high is None:
        return text
    return f"{text} [{significant(cell.low)}, {significant(cell.high)}]"
