"""A request stage by stage: what share of it each stage takes, and what is left beside the network.

Shares are ratios of sums over the same requests: medians of stages do not add up to the median of requests. Their
intervals are over the timed processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import workloads
from reports.content import Site
from reports.rows import Cell, Row, column_key

#: Requests that one figure holds.
MOST = 24


@dataclass(frozen=True)
class Request:
    """One case: its stages in order with their shares in per cent, and all but the network's."""

    name: str
    row: Row
    stages: tuple[tuple[str, Cell], ...]
    network: str
    outside: Cell

    @property
    def latency(self) -> Cell | None:
        """Milliseconds of a whole request."""
        return self.row.cells.get("latency_ms")

    @property
    def largest(self) -> str:
        """The stage that takes the largest share."""
        return max(self.stages, key=lambda stage: stage[1].value or 0.0)[0]


def requests(site: Site) -> list[Request]:
    """The pipelines whose stages were timed, with something before the network, in the order of the site; each once."""
    found: dict[str, Request] = {}
    for row in site.rows:
        details = row.record.get("workload") or {}
        outside = row.cells.get("nonnetwork_share")
        names = [name for name in details.get("stages", []) if _share(row, name) is not None]
        if row.case.workload != "pipeline" or not row.ranked or len(names) < 3 or outside is None:
            continue
        if outside.value is None or row.case.model_label in found:
            continue
        stages = tuple((name, row.cells[column_key("stage_share", name)]) for name in names)
        network = str(details.get("network", "infer"))
        found[row.case.model_label] = Request(row.case.model_label, row, stages, network, outside)
    return list(found.values())


def _share(row: Row, stage: str) -> float | None:
    return row.value("stage_share", stage)


def table(found: Sequence[Request]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a request each, its time, what lies outside the network, and its stages from the largest on."""
    head = ["request", "bytes", "ms", "outside the network", "stages"]
    lines = []
    for one in found:
        stages = sorted(one.stages, key=lambda stage: -(stage[1].value or 0.0))
        size, latency = one.row.value("request_bytes"), one.latency
        lines.append(
            [
                one.name,
                "unavailable" if size is None else f"{size:,.0f}",
                "unavailable" if latency is None or latency.value is None else f"{latency.value:.3g}",
                said(one.outside),
                ", ".join(f"{name} {cell.value:.1f} %" for name, cell in stages),
            ]
        )
    return head, lines


def said(cell: Cell) -> str:
    """`42.1 % [38.0, 46.2]`."""
    text = f"{cell.value:.1f} %"
    return text if cell.low is None or cell.high is None else f"{text} [{cell.low:.1f}, {cell.high:.1f}]"


def rates_table(site: Site) -> tuple[list[str], list[list[str]]]:
    """Head and lines: how many requests are answered under load, section by section, and what they wait for."""
    metrics = ("saturated_rate", "preprocess_rate", "transfer_rate", "network_rate", "frame_rate", "serving_efficiency")
    head = ["request", "whole chain (1/s)", "pre-processing alone", "transfer alone", "network alone", "frames (1/s)",
            "efficiency (%)", "bottleneck"]  # fmt: skip
    lines = []
    for row in site.rows:
        if row.case.workload != "pipeline" or row.value("saturated_rate") is None or not row.ranked:
            continue
        cells = [row.cells.get(metric) for metric in metrics]
        values = ["-" if cell is None or cell.value is None else _interval(cell) for cell in cells]
        lines.append([_asked_for(row), *values, str((row.record.get("workload") or {}).get("bottleneck", "-"))])
    return head, lines


def _asked_for(row: Row) -> str:
    """The request with what of its shape is not as usual."""
    usual = {axis.name: axis.default for axis in workloads.find(row.case.workload).axes}
    shape = {name: value for name, value in row.case.full_shape.items() if name in usual and value is not None}
    further = [f"{name} {value:g}" for name, value in shape.items() if value != usual[name]]
    return ", ".join([row.case.model_label, *further])


def _interval(cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return f"{cell.value:.3g}"
    return f"{cell.value:.3g} [{cell.low:.3g}, {cell.high:.3g}]"
