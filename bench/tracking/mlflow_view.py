"""Addresses that open MLflow's page on a useful view, and the view that we leave there for them.

MLflow keeps a shared view as an experiment's tag; where a version does not understand ours, it shows its own default
for the same search, so that the address is useful either way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

from bench.tracking.tracked_run import INTERVALS

VIEW_TAG = "mlflow.sharedViewState."
VIEW_LIMIT = 5000  # characters that MLflow takes in one tag of an experiment
SORTED_BY = "latency/latency_ms"

#: Sections of the chart page in order: title, then charts; a pair is a scatter plot (x, y), a name a bar chart.
SECTIONS: tuple[tuple[str, tuple[str | tuple[str, str], ...]], ...] = (
    (
        "trade-offs",
        (
            ("compute/macs", "latency/latency_ms"),
            ("latency/latency_ms", "quality/accuracy"),
            ("compute/macs", "latency/speedup"),
            ("latency/latency_ms", "memory/peak_memory_bytes"),
        ),
    ),
    ("latency", ("latency/latency_ms", "latency/speedup")),
    ("quality", ("quality/accuracy",)),
    ("compute", ("compute/macs",)),
    ("memory", ("memory/peak_memory_bytes",)),
    ("energy", ("energy/energy_j",)),
)
COLUMNS = ("params.`model`", "params.`method_label`", "tags.`status`", "metrics.`compute/macs`",
           "metrics.`latency/latency_ms`", "metrics.`latency/speedup`", "metrics.`memory/peak_memory_bytes`",
           "metrics.`quality/accuracy`")  # fmt: skip


def view_state(search: str, present: Iterable[str]) -> str:
    """The view as MLflow stores it: trade-offs as scatter plots first, then bars, intervals folded away.

    Args:
        search: which runs to show.
        present: names of the metrics that some run has; charts of others are left out.
    """
    have = set(present)
    charts: list[dict[str, Any]] = []
    sections: list[dict[str, Any]] = []
    for title, wanted in SECTIONS:
        drawn = [chart for chart in wanted if have.issuperset(chart if isinstance(chart, tuple) else (chart,))]
        if drawn:
            sections.append(_section(title))
            charts += [_chart(f"{title}-{number}", title, chart) for number, chart in enumerate(drawn)]
    sections.append(_section(INTERVALS, shown=False))
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
        "selectedColumns": [name for name in COLUMNS if not name.startswith("metrics") or name[9:-1] in have],
    }
    return json.dumps(state, separators=(",", ":"))


def _section(title: str, shown: bool = True) -> dict[str, Any]:
    return {"uuid": title, "name": title, "display": shown, "isReordered": True, "deleted": False,
            "isGenerated": False, "columns": 2}  # fmt: skip


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
    return {**common, "type": "BAR", "metricKey": chart}


def view_key(suite: str) -> str:
    """The name under which a suite's view is kept."""
    return f"waterline-{suite}"


def view_url(base: str, experiment_id: str | None, search: str, key: str | None = None) -> str:
    """The address of the cases that match `search`, side by side as charts, fastest first.

    Children are collapsed under their parent unless something is searched for, so the search is part of the address.

    Args:
        base: where the interface is served.
        experiment_id: whose runs.
        search: MLflow's filter.
        key: a view that was left there (`view_key`); it holds the search.
    """
    query = {"viewStateShareKey": key} if key else {
        "searchFilter": search,
        "orderByKey": f"metrics.`{SORTED_BY}`",
        "orderByAsc": "true",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
    }  # fmt: skip
    query |= {"compareRunsMode": "CHART", "workflowType": "machine_learning"}
    return f"{base}/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"
