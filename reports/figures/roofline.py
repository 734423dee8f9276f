"""The roofline of one case: its layers on log-log axes below the roofs that were measured on its machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.analysis import roofline, roofline_of_record
from bench.analysis.roofline import Bar, Totals
from bench.plan.case import Case
from bench.store.records import Record
from reports.figures import roofs
from reports.figures.figure import Control, Figure, no_picture, percent
from reports.figures.roofs import Dot
from reports.figures.waterline import hover_text, layer_table
from reports.figures.waterline_view import grouped
from reports.labels import case_label

ID = "roofline"
HOW_TO_READ = (
    "A dot is a layer: to the right it does more operations per byte, further up it does them faster, and its area is "
    "its share of the measured time; the line above it is what memory and arithmetic of this machine allow."
)
CAPTION = "Roofline (after Williams, Waterman and Patterson 2009); roofs are measured, not data-sheet values."
LAYERS, BLOCKS, NAMED = "layers", "blocks", "layers with names"
#: Kinds of layers that have a name in the view with names.
MOST_NAMED = 10
NAMES_NOTE = f"in the view with names the slowest layer of each kind has one, {MOST_NAMED} kinds at most"
X_TITLE = "operations per byte of DRAM traffic, log"
#: States of a bar in the words of the legend, with colour roles.
KINDS = {"compute-bound": "@orange", "memory-bound": "@blue", "balanced": "@green", "unknown": "@grey"}


def figure(record: Record, *, id: str = ID) -> Figure:
    """The figure of a record's layers, and of its blocks; without times, bytes or peaks it says which is missing."""
    label = case_label(Case.from_dict(record["case"]))
    if not record.get("layers"):
        return no_picture(id, f"{label}: no layers", HOW_TO_READ, roofline_of_record.from_record(record)[1])
    layers, reasons = roofline_of_record.layers_of(record)
    line = roofline.waterline(layers, end_to_end_ms=(record.get("layers_info") or {}).get("end_to_end_ms"))
    table = layer_table(layers, line)
    peaks = {layer.dtype: layer.peak for layer in layers if layer.peak and layer.ops}
    row_of = {name: place for place, name in reversed(list(enumerate(table["layer"])))}
    texts: list[str] = []
    dots = {
        name: _dots(shown, row_of, texts, line.totals)
        for name, shown in ((LAYERS, line.bars), (BLOCKS, grouped(line).bars))
    }
    dots[NAMED] = dots[LAYERS]
    bandwidth = next((layer.bandwidth for layer in layers if layer.bandwidth), None)
    views = {
        name: roofs.draw(own, peaks, bandwidth, KINDS, X_TITLE, named=name == NAMED)
        for name, own in dots.items()
        if own and peaks
    }
    if not views:
        reason = "; ".join(dict.fromkeys(reasons)) or "no layer has operations, bytes and a measured time"
        return no_picture(id, f"{label}: no roofline", HOW_TO_READ, reason, table)
    return Figure(
        id, _title(label, line.bars), HOW_TO_READ, table, views, (Control("Dots", tuple(views)),), CAPTION,
        (*dict.fromkeys(reasons), NAMES_NOTE), hover=tuple(texts),
    )  # fmt: skip


def _dots(shown: Sequence[Bar], row_of: dict[str, int], texts: list[str], totals: Totals) -> list[Dot]:
    """Dots of the bars that have operations, bytes and a time; each adds its text to `texts`."""
    found: list[Dot] = []
    bars: list[Bar] = []
    for bar in shown:
        if not bar.intensity or not bar.ops or not bar.time_ms:
            continue
        kind = bar.state if bar.state in KINDS else "unknown"
        row = row_of.get(bar.members[0]) if bar.members else None
        size = roofs.size_of(bar.share_measured)
        found.append(Dot(bar.intensity, bar.ops / bar.time_ms * 1e3, row, len(texts), kind, size))
        texts.append(hover_text(bar, totals))
        bars.append(bar)
    return _named(found, bars)


def _named(found: Sequence[Dot], bars: Sequence[Bar]) -> list[Dot]:
    """The dots, of which the slowest of each kind of layer has a name: layers of one kind lie on each other."""
    slowest: dict[str, int] = {}
    for place in sorted(range(len(bars)), key=lambda place: -(bars[place].time_ms or 0.0)):
        slowest.setdefault(_kind(bars[place].name), place)
    names = {place: kind for kind, place in list(slowest.items())[:MOST_NAMED]}
    return [replace(dot, name=names.get(place, "")) for place, dot in enumerate(found)]


def _kind(path: str) -> str:
    """What a layer is in its block, whichever block that is: `mlp.fc1` of `blocks.3.mlp.fc1`."""
    return path.removeprefix(roofline.block_of(path)).lstrip(".") or path


def _title(label: str, bars: Sequence[Bar]) -> str:
    """How much of the time is spent in layers that memory limits."""
    timed = [bar for bar in bars if bar.time_ms]
    total = sum(bar.time_ms or 0.0 for bar in timed)
    bound = sum(bar.time_ms or 0.0 for bar in timed if bar.state == "memory-bound")
    if not total:
        return f"{label}: roofline"
    return f"{label}: layers that memory limits take {percent(bound / total)} of the time"
