"""The waterline figure of one case: where its ideal time goes under water, and where the kernels lose the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pandas as pd

from bench.analysis import roofline, roofline_of_record
from bench.analysis.roofline import Bar, Totals, Waterline
from bench.plan.case import Case
from bench.store.record_parts import reading_of
from bench.store.records import Record
from reports.figures import bars
from reports.figures.bars import Kind, Mark
from reports.figures.figure import SEPARATOR, Control, Figure, no_picture, percent, rounded, significant, table_of
from reports.figures.theme import Spec, axis, layout, legend, plain
from reports.figures.waterline_view import GROUP_ABOVE, grouped, top_share
from reports.numbers import quantity

ID = "waterline"
CAPTION = "Waterline (after Lavin 2024, arXiv 2404.03617); the geometry is derived from the roofline model."
HOW_TO_READ = (
    "Bars are layers in execution order; in the op:byte view a bar's width is the time DRAM needs, its height the "
    "operational intensity over the machine's ridge, its area the ideal time, and the water above it is time lost to "
    "DRAM."
)
OP_BYTE, ATTAINABLE, MEASURED, FUSED = "op:byte", "attainable time", "measured time", "what if blocks were fused"
LAYERS, BLOCKS, SLOWEST = "layers", "blocks", "slowest 90 %"
SLOW_SHARE = 0.9
#: Block names are drawn where a block has at least this share of the width, which leaves room for one on a phone.
NAMED_SHARE = 0.045

#: Kind of mark -> legend entry and colour role, in the order of the legend.
STYLES: dict[Kind, tuple[str, str]] = {
    "above": ("compute-bound", "@orange"),
    "under": ("memory-bound", "@blue"),
    "water": ("lost to DRAM", "@water"),
    "dram": ("time for DRAM", "@water"),
    "unknown": ("unknown", "@none"),
    "unexplained": ("unexplained", "@grey"),
}


@dataclass(frozen=True)
class View:
    """One geometry: how marks are made of bars, and what its axes and the line at 1 mean."""

    name: str
    marks: Callable[[Sequence[Bar]], list[Mark]]
    x_title: str
    y_title: str
    line: str


@dataclass
class Hover:
    """The texts of all bars of a figure, each kept once; `row_of` finds a layer's row of the table."""

    row_of: dict[str, int]
    totals: Totals
    texts: list[str] = field(default_factory=list)
    _known: dict[str, int] = field(default_factory=dict)

    def customdata(self, bar: Bar) -> list[int | None]:
        """Table row and text of a bar; a bar of several layers points to its first."""
        text = hover_text(bar, self.totals)
        if text not in self._known:
            self._known[text] = len(self.texts)
            self.texts.append(text)
        return [self.row_of.get(bar.members[0]) if bar.members else None, self._known[text]]


def figure(record: Record, *, part: str = "", id: str = ID) -> Figure:
    """The waterline of a record's case: three views by layer, by block and by what is slowest, and the fused what-if.

    Args:
        record: of a whole run, or of a part that is looked at as one (`bench.analysis.parts.as_part`).
        part: its name, for the title.
        id: a stable slug, unique on the page.
    """
    label = Case.from_dict(record["case"]).label + (f", {part}" if part else "")
    if not record.get("layers"):
        return no_picture(id, f"{label}: no layers", HOW_TO_READ, roofline_of_record.from_record(record)[1])
    layers, reasons = roofline_of_record.layers_of(record)
    line = roofline.waterline(layers, end_to_end_ms=(record.get("layers_info") or {}).get("end_to_end_ms"))
    notes = tuple(dict.fromkeys([*reasons, *line.notes, *_notes(line), *_counted_by_the_processor(record)]))
    title, table = f"{label}: {finding(line.totals)}", layer_table(layers, line)
    if not any(view.marks(line.bars) for view in _views(line.totals)):
        reason = "; ".join(notes) or "no layer has operations or bytes"
        return no_picture(id, title, HOW_TO_READ, reason, table)
    hover = Hover({name: row for row, name in reversed(list(enumerate(table["layer"])))}, line.totals)
    specs = _specs(line, roofline.waterline(roofline.fused(layers)), hover)
    chosen = [key.split(SEPARATOR) for key in specs]
    controls = tuple(
        Control(name, tuple(dict.fromkeys(key[i] for key in chosen))) for i, name in enumerate(("View", "Bars"))
    )
    return Figure(id, title, HOW_TO_READ, table, specs, controls, CAPTION, notes, hover=tuple(hover.texts))


def _specs(line: Waterline, what_if: Waterline, hover: Hover) -> dict[str, Spec]:
    """Every view by every grouping; blocks come first where layers are too many to tell apart."""
    groupings = {LAYERS: line, BLOCKS: grouped(line), SLOWEST: top_share(line, SLOW_SHARE)}
    if len(line.bars) > GROUP_ABOVE:
        groupings = {name: groupings[name] for name in (BLOCKS, SLOWEST, LAYERS)}
    views = [view for view in _views(line.totals) if view.marks(line.bars)]
    specs = {
        SEPARATOR.join((view.name, rows)): draw(view, shown, hover)
        for view in views
        for rows, shown in groupings.items()
    }
    if views[0].name == OP_BYTE and len(what_if.bars) < len(line.bars):
        before, after = (percent(each.totals.e_att) for each in (line, what_if))
        view = View(FUSED, bars.op_byte, "DRAM time if fused (ms)", views[0].y_title, f"{before} → {after}")
        specs[SEPARATOR.join((FUSED, BLOCKS))] = draw(view, what_if, hover)
    return specs


def _views(totals: Totals) -> list[View]:
    """The views in the order in which they are offered; without attainable times only the measured one."""
    measured = View(
        MEASURED,
        lambda shown: bars.measured(shown, totals.unexplained_ms),
        "measured time (ms)",
        "share of peak",
        "peak",
    )
    if totals.attainable_ms is None:
        return [measured]
    return [
        View(OP_BYTE, bars.op_byte, "DRAM time (ms)", "intensity / ridge (×)", "water level"),
        View(ATTAINABLE, bars.attainable, "attainable time (ms)", "share of peak", "water level"),
        measured,
    ]


def finding(totals: Totals) -> str:
    """What the figure shows in a few words: the efficiency, what the shape allows, what the kernels make of it."""
    if totals.ideal_ms is None:
        return "time by layer; without a measured peak for every dtype there is no ideal"
    if totals.attainable_ms is None:
        return f"{percent(totals.efficiency)} of peak; without a measured bandwidth there is no water level"
    if totals.e_att is None:
        return "no operations to compare with the peak"
    shape = f"{'at most ' if totals.attainable_is_bound else ''}{percent(totals.e_att)}"
    if totals.efficiency is None or totals.e_kernel is None:
        return f"memory traffic leaves {shape} of peak attainable"
    used, kernels = percent(totals.efficiency), percent(totals.e_kernel)
    return f"{used} of the peak is used: the shape allows {shape}, the kernels reach {kernels} of that"


def _notes(line: Waterline) -> Iterable[str]:
    guessed = sum(bars.estimated(bar) for bar in line.bars)
    if guessed:
        yield f"layers with estimated bytes (est.), hatched: {guessed}"
    weightless = sum(bar.ops > 0 and bar.bytes == 0 for bar in line.bars)
    if weightless:
        yield f"layers with operations and no bytes, without width in the op:byte view but in all totals: {weightless}"
    if line.totals.unexplained_ms and line.totals.end_to_end_ms:
        share = percent(line.totals.unexplained_ms / line.totals.end_to_end_ms)
        yield f"{share} of the end-to-end time belongs to no layer"


def _counted_by_the_processor(record: Record) -> Iterable[str]:
    """What its counters say of the same run, where the machine has them: waiting for memory, or many instructions."""
    names = ("instructions_per_cycle", "llc_miss_bytes", "traffic_bytes")
    rate, fetched, compulsory = (reading_of(record, name) for name in names)
    if rate is None or fetched is None:
        return
    batch = int(record["case"].get("batch") or 1)
    said = f"the processor retired {rate['value']:.2f} instructions a cycle and fetched "
    said += f"{quantity(fetched['value'] * batch, 'B')} past its caches"
    yield said + (f"; what a run has to move is {quantity(compulsory['value'], 'B')}" if compulsory else "")


def layer_table(layers: Sequence[roofline.Layer], line: Waterline) -> pd.DataFrame:
    """The numbers behind the figure, one row per layer in execution order, views included; None is not known."""
    drawn = {id(bar.layer): bar for bar in line.bars}
    rows = [_table_row(layer, drawn.get(id(layer)) or roofline.bar_of(layer)) for layer in layers]
    return table_of(rows)


def _table_row(layer: roofline.Layer, bar: Bar) -> dict[str, Any]:
    return {
        "layer": layer.name, "operator": layer.op, "dtype": layer.dtype, "state": state(bar),
        "GFLOP": bar.ops / 1e9, "read (MB)": _per(layer.read_bytes, 1e6), "written (MB)": _per(layer.write_bytes, 1e6),
        "bytes from": layer.bytes_source, "intensity (op/byte)": bar.intensity, "intensity / ridge": bar.height,
        "ideal (ms)": bar.compute_ms, "DRAM (ms)": bar.memory_ms, "attainable (ms)": bar.attainable_ms,
        "lost to DRAM (ms)": bar.water_ms, "measured (ms)": bar.time_ms, "measured low (ms)": bar.time_low_ms,
        "measured high (ms)": bar.time_high_ms, "efficiency": bar.efficiency,
        "share of attainable": bar.share_attainable, "share of measured": bar.share_measured,
    }  # fmt: skip


def state(bar: Bar) -> str:
    """What sets the layer's time, in words."""
    if bar.ops == 0:
        return "moves data only" if bar.bytes else "view"
    return "memory-bound (under water)" if bar.state == "memory-bound" else bar.state


def _per(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def hover_text(bar: Bar, totals: Totals) -> str:
    """Everything known of one bar, as plotly's pseudo-HTML with names escaped."""
    layer = bar.layer
    what = f"{len(bar.members)} layers" if layer is None else f"{plain(layer.op)} · {plain(layer.dtype)}"
    lines = [
        f"<b>{plain(bar.name)}</b> · {what}",
        f"{state(bar)} · {significant(_per(bar.ops, 1e9))} GFLOP · {_bytes(bar)}",
        f"op:byte {significant(bar.intensity)} against a ridge of {significant(bar.ridge)}",
        f"ideal {significant(bar.compute_ms)} ms · DRAM {significant(bar.memory_ms)} ms · "
        f"attainable {'≥ ' if bar.attainable_is_bound else ''}{significant(bar.attainable_ms)} ms",
        f"measured {significant(bar.time_ms)} ms{_interval(bar)} · efficiency {percent(bar.efficiency)}",
        f"{percent(bar.share_attainable)} of attainable, {percent(bar.share_measured)} of measured time",
    ]
    if layer is not None:
        lines.append(
            f"peak {significant(_per(layer.peak, 1e9))} GFLOP/s, bandwidth {significant(_per(layer.bandwidth, 1e9))} "
            "GB/s, both measured on the machine"
        )
    return "<br>".join([*lines, *bar.badges])


def _bytes(bar: Bar) -> str:
    layer = bar.layer
    if bar.bytes is None:
        return "bytes unknown"
    if layer is None or layer.read_bytes is None or layer.write_bytes is None:
        return f"{significant(bar.bytes / 1e6)} MB" + (f" ({plain(layer.bytes_source)})" if layer else "")
    source = "est." if bars.estimated(bar) else layer.bytes_source
    return (
        f"read {significant(layer.read_bytes / 1e6)} MB, wrote {significant(layer.write_bytes / 1e6)} MB "
        f"({plain(source)})"
    )


def _interval(bar: Bar) -> str:
    if bar.time_low_ms is None or bar.time_high_ms is None:
        return ""
    return f" [{significant(bar.time_low_ms)}, {significant(bar.time_high_ms)}]"


def draw(view: View, line: Waterline, hover: Hover) -> Spec:
    """The spec of one view of a waterline; texts of its bars go to `hover`."""
    marks = view.marks(line.bars)
    right = max((mark.x + mark.width for mark in marks), default=1.0)
    top = max([1.0, *(mark.high for mark in marks)])
    styles = sorted(
        {(mark.kind, mark.estimated) for mark in marks}, key=lambda style: (list(STYLES).index(style[0]), style[1])
    )
    traces = [_trace([m for m in marks if (m.kind, m.estimated) == style], line.bars, hover) for style in styles]
    edges, names = _blocks(marks, line.bars, right)
    return {
        "data": [*traces, _level(view.line, right)],
        "layout": layout(
            xaxis=axis(view.x_title, range=[0, right], showgrid=False),
            yaxis=axis(view.y_title, range=[0, 1.12 * top]),
            barmode="overlay",
            bargap=0,
            shapes=edges,
            annotations=names,
            margin={"l": 56, "r": 12, "t": 52, "b": 48},
            legend=legend(y=1.07),
        ),
    }


def _trace(marks: Sequence[Mark], shown: Sequence[Bar], hover: Hover) -> Spec:
    """All marks of one style; estimates and unknown bars are hatched, unknown ones outlined."""
    kind, hatched = marks[0].kind, marks[0].estimated or marks[0].kind in ("unknown", "dram")
    name, colour = STYLES[kind]
    fill: Spec = {
        "color": colour,
        "line": {
            "width": {"unknown": 1, "water": 0}.get(kind, 0.5),
            "color": "@quiet" if kind == "unknown" else "@paper",
        },
    }
    if hatched:
        ink = {"unknown": "@quiet", "dram": "@waterline"}.get(kind, "@paper")
        fill["pattern"] = {
            "shape": "x" if kind == "unknown" else "/",
            "fgcolor": ink,
            "bgcolor": colour,
            "size": 6,
            "solidity": 0.25,
        }
    trace: Spec = {
        "type": "bar",
        "name": name + (" (est.)" if marks[0].estimated else ""),
        "offset": 0,
        "marker": fill,
        "x": rounded([m.x for m in marks]),
        "width": rounded([m.width for m in marks]),
        "base": rounded([m.low for m in marks]),
        "y": rounded([m.high - m.low for m in marks]),
    }
    if kind == "unexplained":
        text = f"end-to-end time outside the layers: {significant(marks[0].width)} ms"
        return {**trace, "hovertext": [text], "hoverinfo": "text", "customdata": [[None, None]]}
    return {
        **trace,
        "meta": "hover",
        "customdata": [hover.customdata(shown[m.bar]) for m in marks if m.bar is not None],
    }


def _level(name: str, right: float) -> Spec:
    """The water line at 1 across the plot, named in the legend."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": rounded([0, right]),
        "y": [1, 1],
        "hoverinfo": "skip",
        "line": {"color": "@waterline", "width": 2.5},
    }


def _blocks(marks: Sequence[Mark], shown: Sequence[Bar], right: float) -> tuple[list[Spec], list[Spec]]:
    """Thin lines between blocks, and above the plot the last part of the name of every block that has room for it."""
    edges: set[str] = set()
    names: list[Spec] = []
    placed = [(mark.x, mark.x + mark.width, _block(shown[mark.bar])) for mark in marks if mark.bar is not None]
    for block, run in groupby(placed, key=lambda place: place[2]):
        spans = list(run)
        left, end = spans[0][0], spans[-1][1]
        if not block:
            continue
        edges |= {f"{x:.5g}" for x in (left, end) if 0 < x < right}
        if end - left >= NAMED_SHARE * right:
            names.append(
                {
                    "text": plain(block.rsplit(".", 1)[-1][:12]),
                    "x": float(f"{(left + end) / 2:.4g}"),
                    "y": 1,
                    "yref": "paper",
                    "yanchor": "bottom",
                    "showarrow": False,
                    "font": {"size": 11, "color": "@quiet"},
                }
            )
    return ([_edges(edges)] if edges else []), names


def _block(bar: Bar) -> str:
    return bar.layer.block if bar.layer is not None else roofline.block_of(bar.members[0]) if bar.members else ""


def _edges(places: Iterable[str]) -> Spec:
    """Lines from the bottom to the top at places of the axis, as one path: a shape each would be most of the page."""
    return {
        "type": "path",
        "path": "".join(f"M{x},0V1" for x in sorted(places, key=float)),
        "yref": "paper",
        "layer": "below",
        "line": {"color": "@grid", "width": 1},
    }
