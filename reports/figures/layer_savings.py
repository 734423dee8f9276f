"""Where a method saves: MACs and time saved in every block, and the tokens left where layers have any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.analysis import roofline
from bench.plan.case import Case
from bench.store.records import Record
from reports.figures.figure import Figure, no_picture, percent, rounded, significant, table_of
from reports.figures.theme import Spec, axis, layout, legend, plain
from reports.labels import case_label
from reports.own_time import added_paths

ID = "saved-per-block"
TOKENS_ABOVE = "above, tokens that leave it; below, "
HOW_TO_READ = (
    "Per block of the network: {above}MACs and layer time saved, both as a share of the baseline's total. The yellow "
    "bar below zero is what the method's own operators take there, the tick what is left of the time saved; where it "
    "stays below the MAC bar the promise is not kept."
)
MOST_TICKS = 12


@dataclass(frozen=True)
class BlockSums:
    """Sums over the layers of one block in the baseline and in the case; None where a part is not known.

    `own_ms` is the part of `ms` in modules that the baseline lacks: the method's own operators.
    """

    name: str
    base_macs: float
    macs: float
    base_ms: float | None
    ms: float | None
    base_tokens: int | None
    tokens: int | None
    own_ms: float = 0.0


def blocks(record: Record, baseline: Record) -> list[BlockSums]:
    """Blocks of either network in execution order, those of the baseline first where orders differ."""
    before, after = _by_block(baseline["layers"]), _by_block(record["layers"])
    names = list(before) + [name for name in after if name not in before]
    added, _ = added_paths(record["layers"], baseline["layers"])
    return [
        BlockSums(
            name,
            _macs(before.get(name, [])),
            _macs(after.get(name, [])),
            _time(before.get(name, [])),
            _time(after.get(name, [])),
            _tokens(before.get(name, [])),
            _tokens(after.get(name, [])),
            _time([row for row in after.get(name, []) if str(row.get("module_path") or row["name"]) in added]) or 0.0,
        )
        for name in names
    ]


def _by_block(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        path = str(row.get("module_path") or row["name"])
        found.setdefault(roofline.block_of(path) or path.partition(".")[0], []).append(row)
    return found


def _macs(rows: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(row.get("macs") or 0.0) for row in rows)


def _time(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Time of a block in ms; 0 for one that does not exist, None if no layer of it was timed."""
    times = [row["time_ms"] for row in rows if row.get("time_ms") is not None]
    return sum(times) if times or not rows else None


def _tokens(rows: Sequence[Mapping[str, Any]]) -> int | None:
    return next((int(row["tokens"]) for row in reversed(rows) if row.get("tokens") is not None), None)


def figure(record: Record, baseline: Record | None, *, part: str = "", id: str = ID) -> Figure:
    """The figure of a case beside its baseline; with a reason instead if there is no baseline or one has no layers.

    Args:
        record: of a whole run, or of a part that is looked at as one.
        baseline: the same of the other side.
        part: its name, for the title.
        id: a stable slug, unique on the page.
    """
    label = case_label(Case.from_dict(record["case"])) + (f", {part}," if part else "")
    reason = _why_not(record, baseline)
    if baseline is None or reason:
        how = HOW_TO_READ.format(above="")
        return no_picture(id, f"{label.rstrip(',')}: nothing to compare layer by layer", how, reason)
    found = blocks(record, baseline)
    how = HOW_TO_READ.format(above=TOKENS_ABOVE if _have_tokens(found) else "")
    return Figure(id, title(label, *saved(found)), how, block_table(found), {"": draw(found)}, notes=notes(found))


def title(label: str, macs: float | None, time: float | None) -> str:
    """The finding: what of the baseline's MACs and of its layers' time is saved, or what more they cost."""
    parts = [] if macs is None else [_change(macs, "of the MACs", "more MACs")]
    parts += [] if time is None else [_change(time, "of the layers' time", "more time in the layers")]
    verbs = [verb for verb, _ in parts]
    if len(set(verbs)) == 1:
        said = f"{verbs[0]} {' and '.join(what for _, what in parts)}"
    else:
        said = " and ".join(f"{verb} {what}" for verb, what in parts) or "has no MACs per layer"
    return f"{label} {said}" + ("; no time was measured per layer" if time is None else "")


def _change(share: float, of: str, more: str) -> tuple[str, str]:
    """The verb and what follows it, of a share that is saved; below zero it is what is added."""
    return ("costs", f"{percent(-share)} {more}") if share < 0 else ("saves", f"{percent(share)} {of}")


def _have_tokens(found: Sequence[BlockSums]) -> bool:
    """Whether any layer says how many tokens leave it: networks of other kinds have none."""
    return any(b.tokens is not None or b.base_tokens is not None for b in found)


def _why_not(record: Record, baseline: Record | None) -> str:
    """Why the two cannot be compared layer by layer; empty if they can."""
    if baseline is None:
        return "the baseline is not among the records"
    bare = [
        (who, part["status"])
        for who, part in (("the case", record), ("its baseline", baseline))
        if not part.get("layers")
    ]
    return "; ".join(f"{who} has no layer table ({status})" for who, status in bare)


def saved(found: Sequence[BlockSums]) -> tuple[float | None, float | None]:
    """MACs and layer time saved over all blocks as shares of the baseline's; None where the baseline has none."""
    macs, time = sum(b.base_macs for b in found), _sum(b.base_ms for b in found)
    now = _sum(b.ms for b in found)
    return (1 - sum(b.macs for b in found) / macs if macs else None), (
        1 - now / time if time and now is not None else None
    )


def _sum(values: Any) -> float | None:
    parts = list(values)
    return None if any(part is None for part in parts) else float(sum(parts))


def notes(found: Sequence[BlockSums]) -> tuple[str, ...]:
    """Blocks that save MACs and no time, and what the method adds."""
    broken = [
        b.name
        for b in found
        if b.ms is not None and b.base_ms is not None and b.macs < b.base_macs and b.ms >= b.base_ms
    ]
    said = (
        [f"MACs fall and time does not in: {', '.join(broken[:8])}{', ...' if len(broken) > 8 else ''}"]
        if broken
        else []
    )
    if _have_tokens(found) and all(b.tokens is None for b in found):
        said.append("token counts were not recorded for this case")
    return tuple(said)


def block_table(found: Sequence[BlockSums]) -> pd.DataFrame:
    """The numbers behind the figure, one row per block."""
    macs, time = sum(b.base_macs for b in found), _sum(b.base_ms for b in found)
    tokens = _have_tokens(found)
    rows = [
        {
            "block": b.name,
            **({"tokens, baseline": b.base_tokens, "tokens": b.tokens} if tokens else {}),
            "MMACs, baseline": b.base_macs / 1e6,
            "MMACs": b.macs / 1e6,
            "time, baseline (ms)": b.base_ms,
            "time (ms)": b.ms,
            "of it in own operators (ms)": b.own_ms,
            "MACs saved (% of total)": _share(b.base_macs, b.macs, macs),
            "time saved (% of total)": _share(b.base_ms, b.ms, time),
        }
        for b in found
    ]
    return table_of(rows)


def _share(before: float | None, after: float | None, total: float | None) -> float | None:
    return None if before is None or after is None or not total else 100 * (before - after) / total


def draw(found: Sequence[BlockSums]) -> Spec:
    """Tokens above, saved shares below, on one axis of blocks."""
    macs, time = sum(b.base_macs for b in found), _sum(b.base_ms for b in found)
    hover = [_hover(b) for b in found]
    places = list(range(len(found)))
    step = -(-len(found) // MOST_TICKS)
    shown = places[::step]
    xaxis = axis(
        "block",
        tickvals=shown,
        ticktext=[_short(found[i].name) for i in shown],
        tickangle=0,
        showgrid=False,
        range=[-0.6, len(found) - 0.4],
        anchor="y",
    )
    data = [
        _bar("MACs saved", "@blue", [_share(b.base_macs, b.macs, macs) for b in found], hover, -0.4),
        *_times(found, time, hover),
    ]
    tokens = _have_tokens(found)
    panels: Spec = {
        "yaxis": axis(
            "saved (% of total)", domain=[0, 0.58] if tokens else [0, 1], zeroline=True, zerolinecolor="@quiet"
        )
    }
    if tokens:
        panels["yaxis2"] = axis("tokens left", domain=[0.66, 1], rangemode="tozero", anchor="x")
        data += [
            _steps("tokens, baseline", "@quiet", [b.base_tokens for b in found], "dot"),
            _steps("tokens, this case", "@ink", [b.tokens for b in found], "solid"),
        ]
    return {"data": data, "layout": layout(xaxis=xaxis, height=460, barmode="overlay", legend=legend(), **panels)}


def _times(found: Sequence[BlockSums], total: float | None, hover: list[str]) -> list[Spec]:
    """Time saved by the network's layers, time of the method's own below zero, and a tick at what is left of both."""
    net = [_share(b.base_ms, b.ms, total) for b in found]
    if not any(b.own_ms for b in found):
        return [_bar("time saved", "@orange", net, hover, 0.0)]
    gross = [_share(b.base_ms, None if b.ms is None else b.ms - b.own_ms, total) for b in found]
    own = [None if b.ms is None or not b.own_ms or not total else -100 * b.own_ms / total for b in found]
    below = _bar("own operators", "@orange", own, hover, 0.0)
    below["base"] = rounded([min(0.0, each or 0.0) for each in gross], 4)
    tick = {
        "type": "scatter",
        "mode": "markers",
        "name": "time saved, net",
        "x": [place + 0.2 for place in range(len(net))],
        "y": rounded(net, 4),
        "hoverinfo": "skip",
        "marker": {"symbol": "line-ew-open", "size": 11, "color": "@ink", "line": {"width": 2.2}},
    }
    return [_bar("time saved by the network's layers", "@green", gross, hover, 0.0), below, tick]


def _short(block: str) -> str:
    """The last part of a block's name, cut so that a dozen fit side by side on a phone."""
    last = block.rpartition(".")[2]
    return plain(last if len(last) <= 5 else last[:4] + "…")


def _bar(name: str, colour: str, values: list[float | None], hover: list[str], offset: float) -> Spec:
    return {
        "type": "bar",
        "name": name,
        "x": list(range(len(values))),
        "y": rounded(values, 4),
        "width": 0.4,
        "offset": offset,
        "marker": {"color": colour},
        "customdata": [[i] for i in range(len(values))],
        "hovertext": hover,
        "hoverinfo": "text",
    }


def _steps(name: str, colour: str, values: Sequence[int | None], dash: str) -> Spec:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(range(len(values))),
        "y": list(values),
        "yaxis": "y2",
        "line": {"shape": "hvh", "color": colour, "width": 1.6, "dash": dash},
        "marker": {"size": 4, "color": colour},
        "connectgaps": False,
        "hoverinfo": "y+name",
    }


def _hover(block: BlockSums) -> str:
    tokens = block.tokens is not None or block.base_tokens is not None
    left = f"<br>tokens {_count(block.base_tokens)} → {_count(block.tokens)}" if tokens else ""
    return (
        f"<b>{plain(block.name)}</b><br>MACs {significant(block.base_macs / 1e6)} → {significant(block.macs / 1e6)} "
        f"M<br>time {significant(block.base_ms)} → {significant(block.ms)} ms, {significant(block.own_ms, 2)} of it "
        f"in own operators{left}"
    )


def _count(tokens: int | None) -> str:
    return "n/a" if tokens is None else str(tokens)
