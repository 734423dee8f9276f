"""Noise and samples: every raw sample of every invocation of a case, beside its baseline and its A/A twin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.plan.case import Case
from bench.statistics import iqr_over_median, log_mean_interval, outlier_share, spread_class
from bench.store.records import Record
from reports.figures.figure import Control, Figure, no_picture, percent, rounded, significant, table_of
from reports.figures.theme import Spec, axis, layout, legend, plain
from reports.labels import case_label

ID = "noise"
HOW_TO_READ = (
    "A box per fresh process: median, quartiles and samples beyond Tukey's fences, none of them dropped. Processes are "
    "the unit of replication, so the band, the 95 % interval of the mean of their medians, counts and not the number "
    "of samples."
)
BOXES, ORDER, BESIDE = "distribution", "in order of time", "beside baseline and twin"
#: Samples of one invocation that are drawn; more are thinned evenly, the summary in the table has them all.
MOST_SAMPLES = 200

#: Role -> legend entry, colour role.
ROLES = {"case": ("this case", "@blue"), "baseline": ("baseline", "@ink"), "twin": ("baseline's A/A twin", "@grey")}


@dataclass(frozen=True)
class Series:
    """The samples (ms, in order) of one role in one invocation; `set_aside` ones are drawn and not counted."""

    role: str
    invocation: int
    samples: tuple[float, ...]
    set_aside: bool = False
    labels: tuple[str, ...] = ()

    @property
    def median(self) -> float:
        """Median of the samples in ms."""
        ordered, middle = sorted(self.samples), len(self.samples) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def series(record: Record, files: Mapping[str, Any]) -> list[Series]:
    """The samples of the case, its baseline and the twin in every invocation whose file is there.

    Args:
        record: the case's.
        files: contents of raw samples files by the name that stands in the record (`samples_file`).
    """
    roles = {"case": record["case_key"]}
    if record.get("baseline_key") not in (None, record["case_key"]):
        roles["baseline"] = record["baseline_key"]
    found = []
    for run in (record.get("timing") or {}).get("invocations") or []:
        raw = files.get(str(run.get("samples_file"))) or {}
        per_role = {role: (raw.get("cases") or {}).get(key) for role, key in roles.items()} | {"twin": raw.get("twin")}
        for role, part in per_role.items():
            samples = tuple(float(x) for x in (part or {}).get("latency_ms") or [])
            if samples:
                labels = tuple(str(label) for label in run.get("labels") or [])
                found.append(Series(role, int(run["index"]), samples, bool(run.get("set_aside")), labels))
    return found


def figure(record: Record, files: Mapping[str, Any], *, id: str = ID) -> Figure:
    """The noise figure of a case from its raw samples; the reason if there are none."""
    found = series(record, files)
    own = [each for each in found if each.role == "case"]
    label = case_label(Case.from_dict(record["case"]))
    table = noise_table(found)
    if not own:
        timed = (record.get("timing") or {}).get("invocations")
        reason = "the raw samples files are not beside the records" if timed else "the case was not timed"
        return no_picture(id, f"{label}: no samples", HOW_TO_READ, reason, table)
    views = {BOXES: boxes(own, found), ORDER: in_order(own, found)}
    if len(found) > len(own):
        views[BESIDE] = beside(found)
    return Figure(id, title(own, label), HOW_TO_READ, table, views, (Control("View", tuple(views)),), notes=notes(own))


def title(own: Sequence[Series], label: str) -> str:
    """The finding: spread inside processes against spread between them."""
    kept = [each for each in own if not each.set_aside] or list(own)
    inside = sorted(iqr_over_median(each.samples) for each in kept)[len(kept) // 2]
    medians = [each.median for each in kept]
    between = max(medians) / min(medians) - 1
    text = f"{label}: samples of one process spread by {percent(inside)} (IQR / median, {spread_class(inside)})"
    return text if len(kept) < 2 else f"{text}, {len(kept)} processes differ by {percent(between)}"


def notes(own: Sequence[Series]) -> tuple[str, ...]:
    """Labels of the invocations, those set aside, a thinned drawing."""
    said = [f"process {each.invocation + 1}: {', '.join(each.labels)}" for each in own if each.labels]
    aside = [str(each.invocation + 1) for each in own if each.set_aside]
    if aside:
        said.append(f"set aside, drawn and not counted: process {', '.join(aside)}")
    if any(len(each.samples) > MOST_SAMPLES for each in own):
        said.append(f"drawn are {MOST_SAMPLES} evenly spaced samples of each process; the table summarises all")
    return tuple(said)


def noise_table(found: Sequence[Series]) -> pd.DataFrame:
    """One row per role and invocation: number of samples, quantiles, spread and outliers."""
    rows = []
    for each in found:
        ordered = sorted(each.samples)
        rows.append(
            {
                "what": ROLES[each.role][0],
                "process": each.invocation + 1,
                "samples": len(ordered),
                "least (ms)": ordered[0],
                "median (ms)": each.median,
                "largest (ms)": ordered[-1],
                "IQR / median": iqr_over_median(ordered) if len(ordered) > 1 else None,
                "outliers (share)": outlier_share(ordered) if len(ordered) > 1 else None,
                "counted": "no, set aside" if each.set_aside else "yes",
                "labels": ", ".join(each.labels),
            }
        )
    return table_of(rows)


def thinned(samples: Sequence[float]) -> list[float]:
    """At most `MOST_SAMPLES` samples, evenly spaced and in order."""
    step = max(1, math.ceil(len(samples) / MOST_SAMPLES))
    return list(samples[::step])


def boxes(own: Sequence[Series], found: Sequence[Series]) -> Spec:
    """A box per invocation, and the interval of the mean of their medians."""
    data = [_box(each, f"{each.invocation + 1}", found) for each in own]
    band = _interval([each.median for each in own if not each.set_aside])
    xaxis = axis("fresh process", type="category", showgrid=False)
    return {
        "data": data,
        "layout": layout(xaxis=xaxis, yaxis=axis("latency (ms)"), height=400, shapes=band, showlegend=False),
    }


def _box(each: Series, x: str, found: Sequence[Series]) -> Spec:
    _, colour = ROLES[each.role]
    values = rounded(thinned(each.samples))
    row = found.index(each)
    return {
        "type": "box",
        "name": x,
        "x": [x] * len(values),
        "y": values,
        "boxpoints": "outliers",
        "quartilemethod": "linear",
        "marker": {"color": colour, "size": 4, "symbol": "circle-open"},
        "line": {"color": "@grey" if each.set_aside else colour, "width": 1.5},
        "fillcolor": "@band",
        "customdata": [[row]] * len(values),
        "hoverinfo": "y",
    }


def _interval(medians: Sequence[float]) -> list[Spec]:
    """The band of the 95 % t-interval on logs with the geometric mean in it; nothing with fewer than two medians."""
    if len(medians) < 2:
        return []
    interval = log_mean_interval(medians)
    if interval.low is None or interval.high is None:
        return []
    across = {"xref": "paper", "x0": 0, "x1": 1}
    return [
        {"type": "rect", **across, "y0": interval.low, "y1": interval.high, "layer": "below", "fillcolor": "@band",
         "line": {"width": 0, "color": "@none"}},
        {"type": "line", **across, "y0": interval.value, "y1": interval.value,
         "line": {"color": "@vermillion", "width": 1.2, "dash": "dot"}},
    ]  # fmt: skip


def in_order(own: Sequence[Series], found: Sequence[Series]) -> Spec:
    """Every sample in the order in which it was taken, invocations side by side: drift and bursts show."""
    x: list[float] = []
    y: list[float] = []
    rows: list[list[int]] = []
    ticks, names, edges = [], [], []
    for each in own:
        values = thinned(each.samples)
        start = len(x)
        x += range(start, start + len(values))
        y += values
        rows += [[found.index(each)]] * len(values)
        ticks.append(start + len(values) / 2)
        names.append(str(each.invocation + 1))
        edges.append(
            {
                "type": "line",
                "x0": start - 0.5,
                "x1": start - 0.5,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": "@grid", "width": 1},
            }
        )
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": rounded(y),
        "marker": {"color": "@blue", "size": 4, "opacity": 0.75},
        "customdata": rows,
        "hoverinfo": "y",
    }
    xaxis = axis(
        "fresh process, samples in order", tickvals=ticks, ticktext=names, ticks="", showgrid=False, range=[-1, len(x)]
    )
    return {
        "data": [trace],
        "layout": layout(xaxis=xaxis, yaxis=axis("latency (ms)"), height=400, shapes=edges, showlegend=False),
    }


def beside(found: Sequence[Series]) -> Spec:
    """Case, baseline and twin of every invocation relative to that invocation's baseline: what pairing removes."""
    reference: dict[int, float] = {}
    for role in ("case", "twin", "baseline"):
        reference |= {each.invocation: each.median for each in found if each.role == role}
    present = [role for role in ROLES if any(each.role == role for each in found)]
    data = []
    for role in present:
        name, colour = ROLES[role]
        members = [each for each in found if each.role == role]
        medians = [each.median / reference[each.invocation] for each in members]
        quartiles = [
            [_quantile(each.samples, q) / reference[each.invocation] for each in members] for q in (0.25, 0.75)
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [each.invocation + 1 + _nudge(role) for each in members],
                "y": rounded(medians),
                "marker": {"color": colour, "size": 8, "symbol": "circle" if role != "twin" else "diamond-open"},
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "color": colour,
                    "thickness": 1.4,
                    "width": 3,
                    "array": rounded([high - m for high, m in zip(quartiles[1], medians, strict=True)]),
                    "arrayminus": rounded([m - low for low, m in zip(quartiles[0], medians, strict=True)]),
                },
                "customdata": [[found.index(each)] for each in members],
                "hoverinfo": "text",
                "hovertext": [
                    f"{plain(name)}, process {each.invocation + 1}<br>median {significant(each.median, 4)} ms"
                    for each in members
                ],
            }
        )
    xaxis = axis("fresh process", showgrid=False, dtick=1)
    return {
        "data": data,
        "layout": layout(
            xaxis=xaxis, yaxis=axis("median and quartiles / baseline median"), height=400, legend=legend()
        ),
    }


def _nudge(role: str) -> float:
    return {"case": -0.15, "baseline": 0.0, "twin": 0.15}[role]


def _quantile(samples: Sequence[float], q: float) -> float:
    """Linear interpolation between the order statistics."""
    ordered = sorted(samples)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
