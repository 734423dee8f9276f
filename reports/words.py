"""The nouns of a group of rows: what a batch counts, what one run is, what the other side is called."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from bench import workloads
from bench.plan.case import Case
from reports.rows import Row


@cache
def _known(workload: str) -> workloads.Workload | None:
    """The workload, if it is one of ours: a name in a record is never imported."""
    return workloads.find(workload) if workload in workloads.WORKLOADS else None


def run_noun(rows: Iterable[Row]) -> str:
    """What one run is called: `forward`, `request`, `step`; `run` where rows differ."""
    found = {row.whole or "run" for row in rows}
    return found.pop() if len(found) == 1 else "run"


def unit_noun(rows: Iterable[Row]) -> str:
    """What a batch counts, singular: `image` where the inputs are pixels, else the unit of the workload's batch."""
    found = {_unit(row.case) for row in rows}
    return found.pop() if len(found) == 1 else "sample"


def _unit(case: Case) -> str:
    if case.workload == workloads.FORWARD:
        return "image" if case.resolution is not None else "sample"
    known = _known(case.workload)
    if known is None:
        return "sample"
    return known.axis("batch").unit or "sample"


def takes(case: Case, axis: str) -> bool:
    """Whether an axis of a shape has a meaning for the case's workload; for an unknown one, whether it is set."""
    known = _known(case.workload)
    if known is None:
        return case.full_shape.get(axis) is not None
    return any(each.name == axis for each in known.axes)
