"""Names of cases that fit into a legend: long lists of a setting shown by their ends."""

from __future__ import annotations

from bench.canonical import BASELINE_METHOD
from bench.plan.case import Case
from bench.short_names import short_name


def case_label(case: Case) -> str:
    """What a case is called in its own figure's title: its method, or its model if compared by that."""
    own = case.model_label if case.method == BASELINE_METHOD and case.against else case.method_label
    return short_name(own)
