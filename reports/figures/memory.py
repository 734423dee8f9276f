"""What saved bytes cost: bytes over the baseline's in one convention, against products over the baseline's.

Conventions of bytes are never mixed in a view: what an engine would need (modelled), what a formula says that autograd
keeps (modelled) and what it keeps, what a continual learner keeps, tensors that are alive. One view sets the ratio that
a formula promises beside that of the tensors alive: each of them is over its own baseline in its own convention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.figures.figure import Control, Figure, no_picture, rounded, significant, table_of
from reports.figures.sides import beside
from reports.figures.theme import Spec, Style, axis, layout, legend, log_axis, plain, styles_of
from reports.rows import Row

ID = "memory"
HOW_TO_READ = (
    "Each point is a case over its baseline: down, fewer bytes; to the right, more products. Each choice is one "
    "convention of bytes; the last sets the ratio that a formula promises against that of the tensors alive."
)
#: View -> metric.
CONVENTIONS = {
    "engine (modelled)": "engine_peak_bytes",
    "saved by formula (modelled)": "promised_saved_bytes",
    "saved for the backward": "saved_activation_bytes",
    "kept between tasks": "kept_bytes",
    "alive at the peak": "peak_activation_bytes",
}
#: Views that are promises of a formula; a case has one of them at most.
FORMULAS = ("engine (modelled)", "saved by formula (modelled)")
PROMISE = "promised and alive"
#: Rows that have one of these are about memory; all rows have a peak.
_ABOUT = tuple(metric for metric in CONVENTIONS.values() if metric != "peak_activation_bytes")


@dataclass(frozen=True)
class Case:
    """A row with its ratios to the baseline: products, and bytes by view."""

    row: Row
    products: float
    bytes: Mapping[str, float]


def wanted(rows: Sequence[Row]) -> bool:
    """Whether there is a case to draw."""
    return bool(cases(rows))


def cases(rows: Sequence[Row]) -> list[Case]:
    """Ranked cases beside their baselines, where either states or saves bytes."""
    baselines = {(row.case_key, row.machine_key): row for row in rows if row.case.is_baseline}
    found = []
    for row in rows:
        base = baselines.get((str(row.record.get("baseline_key")), row.machine_key))
        if base is None or row.case.is_baseline or not row.ranked:
            continue
        products = _over(row, base, "macs")
        ratios = {name: ratio for name, metric in CONVENTIONS.items() if (ratio := _over(row, base, metric))}
        if products and any(CONVENTIONS[name] in _ABOUT for name in ratios):
            found.append(Case(row, products, ratios))
    return found


def _over(row: Row, base: Row, metric: str) -> float | None:
    own, other = row.value(metric), base.value(metric)
    return own / other if own is not None and other else None


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of rows that may be compared (one `reports.groups.Group`)."""
    found, styles = cases(rows), styles or styles_of(rows)
    table = memory_table(found)
    if not found:
        return no_picture(
            id, "No bytes to compare", HOW_TO_READ, "no case states or saves bytes beside a baseline", table
        )
    views = {name: _scatter(found, name, styles) for name in CONVENTIONS if any(name in case.bytes for case in found)}
    if any(_promised(case) for case in found):
        views[PROMISE] = _promise(found, styles)
    return Figure(id, title(found), HOW_TO_READ, table, views, (Control("Bytes", tuple(views)),), notes=notes(found))


def _promised(case: Case) -> tuple[float, float] | None:
    """The ratio by formula and that of the tensors alive; None without either."""
    formula = next((case.bytes[name] for name in FORMULAS if name in case.bytes), None)
    alive = case.bytes.get("alive at the peak")
    return None if formula is None or alive is None else (formula, alive)


def title(found: Sequence[Case]) -> str:
    """The finding: the case that saves most in the first convention that is there, and its price."""
    view = next(name for name in CONVENTIONS if any(name in case.bytes for case in found))
    least = min((case for case in found if view in case.bytes), key=lambda case: case.bytes[view])
    return (
        f"{least.row.name} needs {significant(least.bytes[view])}x the bytes ({view}) for "
        f"{significant(least.products)}x the products"
    )


def notes(found: Sequence[Case]) -> tuple[str, ...]:
    """How many keep their promise when tensors are counted that are alive."""
    pairs = [pair for case in found if (pair := _promised(case)) and pair[0] < 1]
    if not pairs:
        return ()
    kept = sum(live <= 1.1 * formula for formula, live in pairs)
    return (f"of {len(pairs)} cases that promise fewer bytes, {kept} have as few alive, within a tenth",)


def memory_table(found: Sequence[Case]) -> pd.DataFrame:
    """The numbers behind the figure."""
    lines = [
        {
            "model": case.row.case.model_label,
            "method": case.row.case.method_label,
            **beside(case.row),
            "products (x)": case.products,
            **{f"{name} (x)": case.bytes.get(name) for name in CONVENTIONS},
            **{metric: case.row.value(metric) for metric in CONVENTIONS.values()},
        }
        for case in found
    ]
    return table_of(lines)


def _points(
    found: Sequence[Case], styles: Mapping[str, Style], places: Mapping[int, tuple[float, float]]
) -> list[Spec]:
    """A trace a family; `places` has x and y by the case's index."""
    traces = []
    for family in dict.fromkeys(found[index].row.family for index in places):
        own = [index for index in places if found[index].row.family == family]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(family),
                "x": rounded([places[index][0] for index in own]),
                "y": rounded([places[index][1] for index in own]),
                "text": [plain(found[index].row.name) for index in own],
                "marker": {"symbol": styles[family].symbol, "size": 9, "color": styles[family].colour},
                "customdata": [[index] for index in own],
            }
        )
    return traces


def _scatter(found: Sequence[Case], view: str, styles: Mapping[str, Style]) -> Spec:
    places = {i: (case.products, case.bytes[view]) for i, case in enumerate(found) if view in case.bytes}
    values = [1.0, *(y for _, y in places.values() if y)]
    yaxis = log_axis(f"bytes over the baseline's (x), {view}, log", min(values), max(values))
    xaxis = axis("products over the baseline's (x)")
    return {
        "data": _points(found, styles, places),
        "layout": layout(xaxis=xaxis, yaxis=yaxis, height=440, legend=legend()),
    }


def _promise(found: Sequence[Case], styles: Mapping[str, Style]) -> Spec:
    places = {i: pair for i, case in enumerate(found) if (pair := _promised(case))}
    values = [1.0, *(value for pair in places.values() for value in pair if value)]
    low, high = min(values), max(values)
    return {
        "data": _points(found, styles, places),
        "layout": layout(
            xaxis=log_axis("promised by a formula (x), log", low, high),
            yaxis=log_axis("alive at the peak (x), log", low, high),
            height=440,
            legend=legend(),
        ),
    }
