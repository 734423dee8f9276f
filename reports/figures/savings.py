"""Saving promised against saving realised: the MAC ratio of every case beside the speed-up that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.columns import column_key
from reports.figures import lines
from reports.figures.figure import Control, Figure, no_picture, percent, rounded, significant, table_of
from reports.figures.lines import error_bar
from reports.figures.sides import beside
from reports.figures.theme import Spec, Style, layout, legend, log_axis, plain, styles_of
from reports.rows import Cell, Row

ID = "savings"
HOW_TO_READ = (
    "Promised is the baseline's MACs over the case's, realised the measured speed-up; on the diagonal the machine "
    "gives all that the operations promise, and inside the grey band a speed-up cannot be distinguished from noise."
)
SCATTER, BY_CASE = "promised against realised", "one line per case"


@dataclass(frozen=True)
class Saving:
    """A case with the speed-up its MACs promise, the one measured, and their ratio (1 = all of it)."""

    row: Row
    promised: float
    speedup: Cell
    realised: float


@dataclass(frozen=True)
class Floor:
    """The widest interval of the A/A ratio among the cases: what identical networks differ by."""

    low: float
    high: float

    def hides(self, cell: Cell) -> bool:
        """Whether the interval (or the value, if it has none) overlaps the floor."""
        low, high = (cell.value if end is None else end for end in (cell.low, cell.high))
        return low is not None and high is not None and low <= self.high and high >= self.low


def savings(rows: Sequence[Row], part: str = "") -> list[Saving]:
    """Every rankable case with a promised and a measured speed-up of a part, the least realised first."""
    found = []
    for row in rows:
        speedup, promised = row.cells.get(column_key("speedup", part)), row.value("mac_ratio", part)
        if row.ranked and speedup is not None and speedup.value and promised:
            found.append(Saving(row, promised, speedup, speedup.value / promised))
    return sorted(found, key=lambda saving: saving.realised)


def noise_floor(rows: Sequence[Row]) -> Floor | None:
    """The widest A/A interval of the rows' timing; None where no twin was timed."""
    floors = [(row.record.get("timing") or {}).get("noise_floor") or {} for row in rows]
    ends = [(floor["low"], floor["high"]) for floor in floors if floor.get("low") and floor.get("high")]
    return Floor(min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The figure of rows that may be compared (one `reports.groups.Group`)."""
    found, floor = savings(rows), noise_floor(rows)
    styles = styles or styles_of(rows)
    table = savings_table(found, floor)
    if not found:
        reason = "no case of this group has both a MAC count with a baseline and a measured speed-up"
        return no_picture(id, "No saving to compare", HOW_TO_READ, reason, table)
    by_case = lines.draw(
        [_line(place, saving, styles) for place, saving in enumerate(found)],
        x_title="speed-up over the baseline (×), log",
        start="promised by MACs",
        end="measured",
        band=_band(floor, "x"),
        mark=1.0,
    )
    views = {SCATTER: draw(found, floor, styles), BY_CASE: by_case}
    parts = _of_parts(rows)
    hover, tables = [hover_text(s) for s in found], [table]
    for part, own in parts.items():
        views[f"{SCATTER}, {part}"] = draw(own, None, styles, first=len(hover))
        hover += [hover_text(s, part) for s in own]
        tables.append(savings_table(own, None).assign(part=part))
    if parts:
        whole = next((row.whole for row in rows if row.whole), "whole run")
        table = pd.concat([table.assign(part=whole), *tables[1:]], ignore_index=True).astype(object)
        table = table.where(table.notna(), None)
    control = (Control("View", tuple(views)),)
    return Figure(id, title(found), HOW_TO_READ, table, views, control, notes=notes(found, floor), hover=tuple(hover))


def _of_parts(rows: Sequence[Row]) -> dict[str, list[Saving]]:
    """The same of every further part of the workload that has any."""
    parts = dict.fromkeys(part for row in rows for part in row.parts)
    return {part: own for part in parts if (own := savings(rows, part))}


def title(found: Sequence[Saving]) -> str:
    """The finding: the least and the most of the promised speed-up that a case realises."""
    worst, best = found[0], found[-1]
    if len(found) == 1:
        return f"{worst.row.name} realises {percent(worst.realised)} of the speed-up it promises"
    return (
        f"Realised of the promised speed-up: from {percent(worst.realised)} ({worst.row.name}) to "
        f"{percent(best.realised)} ({best.row.name})"
    )


def notes(found: Sequence[Saving], floor: Floor | None) -> tuple[str, ...]:
    """What to know: cases inside the noise, slower than the baseline, beyond the promise; a missing floor."""
    slower = [s for s in found if s.speedup.high is not None and s.speedup.high < 1 < s.promised]
    more = [s for s in found if s.speedup.low is not None and s.speedup.low > s.promised]
    said = [
        f"{s.row.name} is slower than its baseline although it promises {significant(s.promised)}×" for s in slower[:3]
    ]
    if len(slower) > 3:
        said.append(f"and {len(slower) - 3} more are slower than their baseline")
    if floor is None:
        said.append("no A/A twin was timed: the noise floor is not known")
    elif hidden := sum(floor.hides(s.speedup) for s in found):
        said.append(f"{hidden} of {len(found)} speed-ups cannot be distinguished from noise")
    if more:
        said.append(
            f"{len(more)} of {len(found)} are faster than MACs promise: they save memory traffic or overhead too"
        )
    if len(found) > lines.MOST_LINES:
        said.append(f"'{BY_CASE}' shows {lines.MOST_LINES} of {len(found)}")
    return tuple(said)


def savings_table(found: Sequence[Saving], floor: Floor | None) -> pd.DataFrame:
    """The numbers behind the figure."""
    rows = [
        {
            "model": s.row.case.model,
            "method": s.row.case.method_label,
            **beside(s.row),
            "promised speed-up (×)": s.promised,
            "MACs saved (%)": 100 * (1 - 1 / s.promised),
            "measured speed-up (×)": s.speedup.value,
            "low (×)": s.speedup.low,
            "high (×)": s.speedup.high,
            "realised (share of promised)": s.realised,
            "inside the noise floor": None if floor is None else "yes" if floor.hides(s.speedup) else "no",
        }
        for s in found
    ]
    return table_of(rows)


def hover_text(saving: Saving, part: str = "") -> str:
    """All of one case as plotly's pseudo-HTML."""
    cell = saving.speedup
    interval = "" if cell.low is None or cell.high is None else f" [{significant(cell.low)}, {significant(cell.high)}]"
    return (
        f"<b>{plain(saving.row.name)}</b>{f' · {plain(part)}' if part else ''}<br>promised "
        f"{significant(saving.promised)}× by MACs<br>measured {significant(cell.value)}×{interval}<br>realised "
        f"{percent(saving.realised)}"
    )


def _line(place: int, saving: Saving, styles: Mapping[str, Style]) -> lines.Line:
    cell = saving.speedup
    return lines.Line(
        f"{saving.row.name}: {percent(saving.realised)}",
        styles[saving.row.family],
        place,
        saving.promised,
        cell.value or 0.0,
        None,
        cell.low,
        cell.high,
    )


def _band(floor: Floor | None, across: str) -> Spec | None:
    if floor is None:
        return None
    other = "y" if across == "x" else "x"
    return {
        "type": "rect",
        "layer": "below",
        "fillcolor": "@band",
        "line": {"width": 0, "color": "@none"},
        f"{across}0": floor.low,
        f"{across}1": floor.high,
        f"{other}ref": f"{other} domain",
        f"{other}0": 0,
        f"{other}1": 1,
    }


def draw(found: Sequence[Saving], floor: Floor | None, styles: Mapping[str, Style], first: int = 0) -> Spec:
    """Measured over promised speed-up, on equal logarithmic scales, with the diagonal and the noise band.

    `first` is the place of the first of them in the figure's table and hover texts.
    """
    ends = [end for s in found for end in (s.speedup.low, s.speedup.high, s.speedup.value) if end]
    low = min(1.0, *(s.promised for s in found), *ends)
    high = max(*(s.promised for s in found), *ends, 1.1)
    xaxis = log_axis(
        "promised speed-up, MAC ratio (×), log",
        min(1.0, *(s.promised for s in found)),
        max(high / 1.05, *(s.promised for s in found)),
    )
    yaxis = log_axis("measured speed-up (×), log", low, high)
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "name": "all of it",
        "x": [low / 2, high * 2],
        "y": [low / 2, high * 2],
        "line": {"color": "@quiet", "width": 1.5, "dash": "dash"},
        "hoverinfo": "skip",
    }
    traces = [diagonal, *([_floor_name()] if floor else [])]
    for family in dict.fromkeys(s.row.family for s in sorted(found, key=lambda s: s.row.family)):
        members = [(i, s) for i, s in enumerate(found, first) if s.row.family == family]
        traces.append(_points(members, styles[family]))
    xaxis |= {"constrain": "domain", "constraintoward": "left"}
    yaxis |= {"scaleanchor": "x", "scaleratio": 1, "constrain": "domain", "constraintoward": "top"}
    shapes = [shape for shape in (_band(floor, "y"), _no_change()) if shape]
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=460, shapes=shapes, legend=legend())}


def _floor_name() -> Spec:
    """A legend entry for the band, which is a shape and has none of its own."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "A/A noise",
        "x": [None],
        "y": [None],
        "hoverinfo": "skip",
        "marker": {"symbol": "square", "size": 12, "color": "@band"},
    }


def _no_change() -> Spec:
    return {
        "type": "line",
        "xref": "x domain",
        "x0": 0,
        "x1": 1,
        "y0": 1,
        "y1": 1,
        "layer": "below",
        "line": {"color": "@quiet", "width": 1},
    }


def _points(members: Sequence[tuple[int, Saving]], style: Style) -> Spec:
    cells = [s.speedup for _, s in members]
    values = [cell.value or 0.0 for cell in cells]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(members[0][1].row.legend),
        "x": rounded([s.promised for _, s in members]),
        "y": rounded(values),
        "error_y": error_bar(values, [cell.low for cell in cells], [cell.high for cell in cells]),
        "marker": {"symbol": style.symbol, "color": style.colour, "size": 10},
        "customdata": [[place, place] for place, _ in members],
        "meta": "hover",
    }
