"""The efficiency gap: ideal, attainable and measured time of every case of one comparable group, and rank flips.

The gap on a log axis is log(1/E) = log(1/E_att) + log(1/E_kernel), so equal lengths are equal efficiencies (idea:
A. Lavin, arXiv 2404.03617).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from bench.analysis import roofline_of_record
from bench.metrics import METRICS
from reports.figures import lines
from reports.figures.figure import Control, Figure, no_picture, percent, rounded, significant, table_of
from reports.figures.lines import error_bar
from reports.figures.sides import beside
from reports.figures.theme import Spec, Style, axis, layout, legend, log_axis, plain, styles_of
from reports.numbers import scale_for, titled
from reports.rows import Cell, Row
from reports.scores import score_of
from reports.words import unit_noun

ID = "efficiency-gap"
HOW_TO_READ = (
    "Hollow: the time the operations take at the machine's peak; tick: what memory traffic leaves attainable; solid: "
    "what was measured, per {unit}. The axis is logarithmic, so lines of equal length lose the same share of the "
    "peak."
)
CAPTION = "Efficiency gap after Lavin 2024 (arXiv 2404.03617)."
BY_METHOD, BY_MODEL, BY_CASE = "score, methods joined", "score, models joined", "one line per case"
MOST_FLIPS = 5


@dataclass(frozen=True)
class GapPoint:
    """One model of the efficiency-gap plot: times per sample of the batch in ms, the measured one with its interval."""

    name: str
    measured_ms: float
    low_ms: float | None = None
    high_ms: float | None = None
    ideal_ms: float | None = None
    attainable_ms: float | None = None

    @property
    def gap(self) -> float | None:
        """log(1/E): the length of the line on a log axis."""
        return math.log(self.measured_ms / self.ideal_ms) if self.ideal_ms else None

    @property
    def gap_parts(self) -> tuple[float, float] | None:
        """The gap split into log(1/E_att), the network's shape, and log(1/E_kernel), the kernels; they add up."""
        if not self.ideal_ms or not self.attainable_ms:
            return None
        return math.log(self.attainable_ms / self.ideal_ms), math.log(self.measured_ms / self.attainable_ms)


def rank_flips(points: Sequence[GapPoint]) -> list[tuple[str, str]]:
    """Pairs (ideally faster, measured faster) that change order, only where the measured intervals do not overlap."""
    flips = []
    for a in points:
        for b in points:
            if a.ideal_ms is None or b.ideal_ms is None or a.low_ms is None or b.high_ms is None:
                continue
            if a.ideal_ms < b.ideal_ms and b.high_ms < a.low_ms:
                flips.append((a.name, b.name))
    return flips


@dataclass(frozen=True)
class Gap:
    """A row with its times per sample of the batch in ms, and its score where there is one."""

    row: Row
    point: GapPoint
    score: Cell | None

    @property
    def efficiency(self) -> float | None:
        """Ideal over measured time."""
        return None if self.point.ideal_ms is None else self.point.ideal_ms / self.point.measured_ms

    @property
    def shape(self) -> float | None:
        """Ideal over attainable time: what the network's shape allows."""
        ideal, attainable = self.point.ideal_ms, self.point.attainable_ms
        return ideal / attainable if ideal is not None and attainable else None

    @property
    def kernels(self) -> float | None:
        """Attainable over measured time: what the kernels make of it."""
        return None if self.point.attainable_ms is None else self.point.attainable_ms / self.point.measured_ms


def gaps(rows: Sequence[Row]) -> list[Gap]:
    """The gap of every rankable row with a measured latency, fastest first; times per sample of the batch."""
    found, name = [], score_of(rows)
    for row in rows:
        latency = row.cells.get("latency_ms")
        if not row.ranked or latency is None or not latency.value:
            continue
        ideal, attainable = bounds(row)
        times = (latency.value, latency.low, latency.high, ideal, attainable)
        per_sample = [None if time is None else time / row.case.batch for time in times]
        score = row.cells.get(name) if name is not None else None
        usable = score if score is not None and score.value is not None else None
        found.append(Gap(row, GapPoint(row.name, latency.value / row.case.batch, *per_sample[1:]), usable))
    return sorted(found, key=lambda gap: gap.point.measured_ms)


@dataclass(frozen=True)
class Words:
    """What the figure's times are per, and which score is drawn upwards, if there is one."""

    unit: str
    score: str | None

    @property
    def spoken(self) -> str:
        """The score's title inside a sentence."""
        title = "score" if self.score is None else METRICS[self.score].title
        return title if title[1:2].isupper() else title[0].lower() + title[1:]

    @property
    def axis(self) -> str:
        """The score with its unit, as an axis says it."""
        return "" if self.score is None else titled(self.spoken, scale_for([], METRICS[self.score].unit).unit)


def bounds(row: Row) -> tuple[float | None, float | None]:
    """Ideal and attainable time of one forward in ms: the record's readings, else from its layers."""
    ideal, attainable = row.value("ideal_ms"), row.value("attainable_ms")
    if ideal is None and attainable is None:
        line, _ = roofline_of_record.from_record(row.record)
        if line is not None:
            return line.totals.ideal_ms or None, line.totals.attainable_ms or None
    return ideal, attainable


def figure(rows: Sequence[Row], *, styles: Mapping[str, Style] | None = None, id: str = ID) -> Figure:
    """The efficiency-gap figure of rows that may be compared (one `reports.groups.Group`)."""
    found = gaps(rows)
    styles = styles or styles_of(rows)
    words = Words(unit_noun(rows), score_of(rows))
    how = HOW_TO_READ.format(unit=words.unit)
    table = gap_table(found, words)
    if not found:
        return no_picture(id, "No efficiency gap", how, "no case of this group has a measured latency", table)
    scored = [gap for gap in found if gap.score is not None]
    views: dict[str, Spec] = {}
    if len(scored) > 1:
        views[BY_MODEL] = against_score(found, styles, words, lambda gap: f"{gap.row.case.model}/{gap.row.family}")
        views[BY_METHOD] = against_score(found, styles, words, lambda gap: gap.row.head)
    views[BY_CASE] = lines.draw(
        [_line(place, gap, styles) for place, gap in enumerate(found)],
        x_title=f"time per {words.unit} (ms), log",
        start="ideal",
        middle="attainable",
        end="measured",
    )
    return Figure(
        id,
        title(found),
        how,
        table,
        views,
        (Control("View", tuple(views)),),
        CAPTION,
        notes(found, words),
        hover=tuple(hover_text(gap, words) for gap in found),
    )


def flips(found: Sequence[Gap]) -> list[tuple[str, str]]:
    """Pairs (faster on paper, faster measured) whose measured intervals do not overlap."""
    return rank_flips([gap.point for gap in found])


def title(found: Sequence[Gap]) -> str:
    """The finding: the range of efficiencies, and how many pairs change order."""
    reached = [gap.efficiency for gap in found if gap.efficiency is not None]
    if not reached:
        return "Measured time only: without a measured peak there is no ideal to compare with"
    low, high = percent(min(reached)), percent(max(reached))
    part = f"Cases reach {low} of peak" if low == high else f"Cases reach {low} to {high} of peak"
    count = len(flips(found))
    return f"{part}; {count or 'no'} pair{'s change' if count != 1 else ' changes'} order between paper and machine"


def notes(found: Sequence[Gap], words: Words) -> tuple[str, ...]:
    """Rank flips by name, and what is not drawn and why."""
    pairs = flips(found)
    said = [
        f"rank flip: {paper} is faster on paper, {machine} is faster measured" for paper, machine in pairs[:MOST_FLIPS]
    ]
    if len(pairs) > MOST_FLIPS:
        said.append(f"and {len(pairs) - MOST_FLIPS} more rank flips (last column of the table)")
    bare = sum(gap.point.ideal_ms is None for gap in found)
    if bare:
        said.append(f"{bare} of {len(found)} cases have no measured peak: measured time only, hollow")
    unscored = sum(gap.score is None for gap in found)
    if unscored:
        said.append(f"{unscored} of {len(found)} cases have no {words.spoken}: only in the table and in '{BY_CASE}'")
    if len(found) > lines.MOST_LINES:
        said.append(f"'{BY_CASE}' shows the {lines.MOST_LINES} fastest of {len(found)}")
    return tuple(said)


def gap_table(found: Sequence[Gap], words: Words) -> pd.DataFrame:
    """The numbers behind the figure: times per sample, efficiency, and the gap split into shape and kernels."""
    flipped: dict[str, list[str]] = {}
    for one, other in flips(found):
        flipped.setdefault(one, []).append(other)
        if other != one:
            flipped.setdefault(other, []).append(one)
    rows = []
    for gap in found:
        point, case = gap.point, gap.row.case
        parts = point.gap_parts
        against = flipped.get(point.name, [])
        rows.append(
            {
                "model": case.model,
                "method": case.method_label,
                **beside(gap.row),
                "ideal (ms)": point.ideal_ms,
                "attainable (ms)": point.attainable_ms,
                "measured (ms)": point.measured_ms,
                "low (ms)": point.low_ms,
                "high (ms)": point.high_ms,
                **({words.axis: None if gap.score is None else gap.score.value} if words.score else {}),
                "efficiency": gap.efficiency,
                "shape (ideal/attainable)": gap.shape,
                "kernels (attainable/measured)": gap.kernels,
                "gap, ln(1/E)": point.gap,
                "gap by shape": parts[0] if parts else None,
                "gap by kernels": parts[1] if parts else None,
                "rank flips with": "; ".join(against),
            }
        )
    return table_of(rows)


def hover_text(gap: Gap, words: Words) -> str:
    """All of one case as plotly's pseudo-HTML."""
    point = gap.point
    interval = "" if point.low_ms is None else f" [{significant(point.low_ms)}, {significant(point.high_ms)}]"
    score = (
        "n/a"
        if gap.score is None or words.score is None
        else f"{significant(gap.score.value)} {METRICS[words.score].unit}"
    )
    scored = f"<br>{METRICS[words.score].title} {score}" if words.score else ""
    return (
        f"<b>{plain(point.name)}</b><br>ideal {significant(point.ideal_ms)} ms · attainable "
        f"{significant(point.attainable_ms)} ms<br>measured {significant(point.measured_ms)} ms{interval} per "
        f"{words.unit}<br>efficiency {percent(gap.efficiency)} = shape {percent(gap.shape)} × kernels "
        f"{percent(gap.kernels)}{scored}"
    )


def _line(place: int, gap: Gap, styles: Mapping[str, Style]) -> lines.Line:
    point, style = gap.point, styles[gap.row.family]
    if point.ideal_ms is None:
        style = Style(style.colour, f"{style.symbol}-open")
    return lines.Line(
        point.name, style, place, point.ideal_ms, point.measured_ms, point.attainable_ms, point.low_ms, point.high_ms
    )


def against_score(
    found: Sequence[Gap], styles: Mapping[str, Style], words: Words, family: Callable[[Gap], str]
) -> Spec:
    """The score over log time: three joined points per case, a curve of each family's ideals and one measured."""
    scored = [(place, gap) for place, gap in enumerate(found) if gap.score is not None]
    times = [
        t
        for _, g in scored
        for t in (g.point.ideal_ms, g.point.attainable_ms, g.point.low_ms, g.point.high_ms, g.point.measured_ms)
    ]
    known = [time for time in times if time]
    traces = [_segments([gap for _, gap in scored])]
    for _, members in groupby(
        sorted((g for _, g in scored), key=lambda g: (family(g), g.point.measured_ms)), key=family
    ):
        traces += _curves(list(members), styles)
    for name in dict.fromkeys(gap.row.family for _, gap in scored):
        traces += _points([(place, gap) for place, gap in scored if gap.row.family == name], styles[name])
    return {
        "data": traces,
        "layout": layout(
            xaxis=log_axis(f"time per {words.unit} (ms), log", min(known), max(known)),
            yaxis=axis(words.axis),
            height=460,
            legend=legend(),
        ),
    }


def _score(gap: Gap) -> float:
    assert gap.score is not None and gap.score.value is not None
    return gap.score.value


def _segments(scored: Sequence[Gap]) -> Spec:
    x: list[float | None] = []
    y: list[float | None] = []
    for gap in scored:
        if gap.point.ideal_ms is not None:
            x += [gap.point.ideal_ms, gap.point.measured_ms, None]
            y += [_score(gap), _score(gap), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": rounded(x),
        "y": rounded(y),
        "hoverinfo": "skip",
        "showlegend": False,
        "line": {"color": "@grey", "width": 1},
    }


def _curves(members: Sequence[Gap], styles: Mapping[str, Style]) -> list[Spec]:
    """Through the ideal points (dotted) and the measured ones (solid) of a family of two or more."""
    colour = styles[members[0].row.family].colour
    made = []
    for name, dash in (("ideal_ms", "dot"), ("measured_ms", "solid")):
        points = [(getattr(gap.point, name), _score(gap)) for gap in members if getattr(gap.point, name)]
        if len(points) > 1:
            made.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": rounded([x for x, _ in points]),
                    "y": rounded([y for _, y in points]),
                    "hoverinfo": "skip",
                    "showlegend": False,
                    "legendgroup": members[0].row.family,
                    "line": {"color": colour, "width": 1.6, "dash": dash},
                }
            )
    return made


def _points(members: Sequence[tuple[int, Gap]], style: Style) -> list[Spec]:
    """Ideal, attainable and measured marks of one family; the measured ones carry its name in the legend."""
    method = members[0][1].row.family
    made = []
    for name, symbol, size in (("ideal_ms", f"{style.symbol}-open", 8), ("attainable_ms", "line-ns-open", 9)):
        known = [(place, gap) for place, gap in members if getattr(gap.point, name) is not None]
        made.append(_scatter(known, [getattr(gap.point, name) for _, gap in known], style, symbol, size, method))
    solid = [f"{style.symbol}-open" if gap.point.ideal_ms is None else style.symbol for _, gap in members]
    points = [gap.point for _, gap in members]
    cells = [gap.score for _, gap in members if gap.score is not None]
    x, y = [point.measured_ms for point in points], [_score(gap) for _, gap in members]
    made.append(
        {
            **_scatter(members, x, style, solid, 10, method),
            "showlegend": True,
            "name": plain(members[0][1].row.legend),
            "error_x": error_bar(x, [p.low_ms for p in points], [p.high_ms for p in points]),
            "error_y": error_bar(y, [c.low for c in cells], [c.high for c in cells]),
        }
    )
    return made


def _scatter(
    members: Sequence[tuple[int, Gap]],
    x: Sequence[float | None],
    style: Style,
    symbol: str | list[str],
    size: int,
    group: str,
) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounded(list(x)),
        "y": rounded([_score(gap) for _, gap in members]),
        "marker": {
            "symbol": symbol,
            "size": size,
            "color": style.colour,
            "line": {"width": 1.5, "color": style.colour},
        },
        "customdata": [[place, place] for place, _ in members],
        "meta": "hover",
        "showlegend": False,
        "legendgroup": group,
    }
