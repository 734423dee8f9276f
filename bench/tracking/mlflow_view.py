"""Addresses that open MLflow's page on a useful view, and the view that we leave there for them.

MLflow keeps a shared view as an experiment's tag; where a version does not understand ours, it shows its own default
for the same search, so that the address is useful either way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from bench.tracking.over_processes import PROCESSES
from bench.tracking.tracked_run import FOLDED, INTERVALS, LOGARITHMS

VIEW_TAG = "mlflow.sharedViewState."
VIEW_LIMIT = 5000  # characters that MLflow takes in one tag of an experiment
LATENCY = "latency/latency_ms"
SORTED_BY = LATENCY
#: The question of every method: what its operations promise against what was measured, both on logarithmic axes.
PROMISED_AND_MEASURED = (f"{LOGARITHMS}/mac_ratio", f"{LOGARITHMS}/speedup")

Chart = str | tuple[str, str]


COLUMNS = (
    "params.`model`",
    "params.`method_label`",
    "tags.`status`",
    "metrics.`compute/macs`",
    "metrics.`latency/latency_ms`",
    "metrics.`latency/speedup`",
    "metrics.`compute/mac_ratio`",
    "metrics.`latency/realised_gain`",
    "metrics.`memory/peak_memory_bytes`",
)


#: Sections of which the charts above are enough; of another one, which a workload alone has, every metric is drawn.
_COMMON = frozenset({"size", "compute", "roofline", "latency", "throughput", "memory", "energy", "quality"})
#: What is drawn of a further part of the workload.
_OF_PARTS = ("latency_ms", "speedup", "macs")


def _common_sections(scores: Sequence[str]) -> tuple[tuple[str, tuple[Chart, ...]], ...]:
    """Sections of the chart page in order: title, then charts.

    A pair is a scatter plot (x, y), a name a bar chart, and a name of the values of each process a line.
    """
    latency = f"{LOGARITHMS}/latency_ms"
    answers: tuple[Chart, ...] = (
        PROMISED_AND_MEASURED,
        *((latency, score) for score in scores),
        "latency/own_share_percent",
        "latency/realised_gain",
    )
    trade_offs: tuple[Chart, ...] = (
        (f"{LOGARITHMS}/macs", latency),
        (latency, f"{LOGARITHMS}/peak_memory_bytes"),
    )
    return (
        ("promised and realised", answers),
        ("trade-offs (log10)", trade_offs),
        ("latency", (LATENCY, "latency/speedup", f"{PROCESSES}/latency_ms", f"{PROCESSES}/speedup")),
        ("noise", ("latency/noise_floor_percent",)),
        ("quality", tuple(scores)),
        ("compute", ("compute/macs",)),
        ("memory", ("memory/peak_memory_bytes",)),
        ("energy", ("energy/energy_j",)),
    )


def _scores(have: Iterable[str]) -> list[str]:
    """The scores of tasks among the metrics."""
    return sorted(name for name in have if name.startswith("quality/") and name.count("/") == 1)


def view_state(search: str, present: Iterable[str]) -> str:
    """The view as MLflow stores it: trade-offs as scatter plots first, then bars, intervals folded away.

    Args:
        search: which runs to show.
        present: names of the metrics that some run has; charts of others are left out.
    """
    have = set(present)
    wanted = sections_of(have)
    for count in range(len(wanted), 0, -1):
        text = _state(search, have, wanted[:count])
        if len(text) <= VIEW_LIMIT:
            return text
    return _state(search, have, [])


def sections_of(present: Iterable[str]) -> list[tuple[str, list[Chart]]]:
    """The sections of charts that have something to show: the common ones, then those of the workload and its parts.

    Args:
        present: names of the metrics that some run has.
    """
    have = set(present)
    found = [
        (title, [chart for chart in charts if have.issuperset(chart if isinstance(chart, tuple) else (chart,))])
        for title, charts in _common_sections(_scores(have))
    ]
    shown = {chart for _, charts in found for chart in charts if isinstance(chart, str)}
    own: dict[str, list[Chart]] = {}
    for name in sorted(have - shown):
        section, _, rest = name.partition("/")
        part, _, metric = rest.rpartition("/")
        if section in FOLDED or (not part and section in _COMMON):
            continue
        if not part or metric in _OF_PARTS:
            own.setdefault(f"{section} of {part}" if part else section, []).append(name)
    known = dict(found)
    for title, names in own.items():
        known.setdefault(title, []).extend(names)
    return [(title, charts) for title, charts in known.items() if charts]


def _state(search: str, have: set[str], wanted: Sequence[tuple[str, list[Chart]]]) -> str:
    charts: list[dict[str, Any]] = []
    sections: list[dict[str, Any]] = []
    for title, drawn in wanted:
        sections.append(_section(title))
        charts += [_chart(f"{title}-{number}", title, chart) for number, chart in enumerate(drawn)]
    sections += [_section(name, shown=False) for name in (INTERVALS, LOGARITHMS)]
    columns = [*COLUMNS, *(f"metrics.`{name}`" for name in _scores(have))]
    state = {
        "searchFilter": search,
        "orderByKey": f"metrics.`{SORTED_BY}`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": [name for name in columns if not name.startswith("metrics") or name[9:-1] in have],
    }
    return json.dumps(state, separators=(",", ":"))


def _section(title: str, shown: bool = True) -> dict[str, Any]:
    return {
        "uuid": title,
        "name": title,
        "display": shown,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": 2,
    }


def _chart(key: str, section: str, chart: str | tuple[str, str]) -> dict[str, Any]:
    common = {
        "uuid": key,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
    }
    if isinstance(chart, tuple):
        x, y = ({"key": name, "type": "METRIC"} for name in chart)
        return {**common, "type": "SCATTER", "xaxis": x, "yaxis": y}
    if chart.startswith(f"{PROCESSES}/"):
        return {**common, "type": "LINE", "metricKey": chart, "xAxisKey": "step", "scaleType": "log"}
    return {**common, "type": "BAR", "metricKey": chart}


def view_key(suite: str, model: str | None = None) -> str:
    """The name under which the view of a suite, or of one network in it, is kept."""
    return f"waterline-{suite}" if model is None else f"waterline-{suite}-{re.sub(r'[^A-Za-z0-9_.-]', '_', model)}"


def view_url(base: str, experiment_id: str | None, search: str, key: str | None = None) -> str:
    """The address of the cases that match `search`, side by side as charts, fastest first.

    Children are collapsed under their parent unless something is searched for, so the search is part of the address.

    Args:
        base: where the interface is served.
        experiment_id: whose runs.
        search: MLflow's filter.
        key: a view that was left there (`view_key`); it holds the search.
    """
    query = (
        {"viewStateShareKey": key}
        if key
        else {
            "searchFilter": search,
            "orderByKey": f"metrics.`{SORTED_BY}`",
            "orderByAsc": "true",
            "startTime": "ALL",
            "lifecycleFilter": "Active",
        }
    )
    query |= {"compareRunsMode": "CHART", "workflowType": "machine_learning"}
    return f"{base}/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"
