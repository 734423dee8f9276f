"""Every metric by name: its unit, which direction is better, its chart section and its definition.

A number that is not in this table cannot enter a record, so no figure is ever shown without a unit and a definition.
A new metric is one row in one of the files beside this one.
"""

from __future__ import annotations

from bench.metrics.answers import ANSWERS
from bench.metrics.metric import SECTIONS, Comparison, Direction, Metric, Section
from bench.metrics.pipelines import PIPELINES
from bench.metrics.predictions import PREDICTIONS
from bench.metrics.rates import RATES
from bench.metrics.runs import RUNS
from bench.metrics.subjects import SUBJECTS
from bench.metrics.workloads import WORKLOADS

__all__ = ["METRICS", "SECTIONS", "Comparison", "Direction", "Metric", "Section", "rate_of"]


def rate_of(unit: str) -> str:
    """The metric of the rate at which units of this kind are done: the plain throughput counts samples."""
    return "throughput_per_s" if unit == "sample" else f"{unit}s_per_s"


def _by_name(*rows: Metric) -> dict[str, Metric]:
    names = [metric.name for metric in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"a metric stands twice in bench.metrics: {sorted({n for n in names if names.count(n) > 1})}")
    return {metric.name: metric for metric in rows}


METRICS: dict[str, Metric] = _by_name(*RUNS, *ANSWERS, *WORKLOADS, *PIPELINES, *RATES, *SUBJECTS, *PREDICTIONS)
