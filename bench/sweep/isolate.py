"""Isolation: which member breaks an invocation, when several cases are timed in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from bench.plan.case import Case
from bench.sweep.attempts import Attempts
from bench.worker.client import Failed

#: What a worker is told that times these cases; its arguments are the session's name, the index, the cases.
SpecOf = Callable[[str, int, Sequence[Case]], dict[str, Any]]


def failing_members(
    members: Sequence[Case],
    baseline: Case,
    outcome: Failed,
    in_isolation: Callable[[Sequence[Case]], dict[Case, Failed]],
) -> dict[Case, Failed]:
    """The members that broke an invocation, and how each failed; empty if they only run out of memory together.

    Memory that ran out in company says nothing of the member that happened to ask for it last. Where no member breaks
    in isolation either, and memory is not the reason, none of them can be timed in this company.

    Args:
        members: the cases that wait for a record.
        baseline: what they were timed beside.
        outcome: how the invocation failed.
        in_isolation: the members that fail also when each is timed by itself.
    """
    crowded = outcome.status == "oom" and len(members) > 1
    in_group = outcome if list(members) == [baseline] else failed_only_in_group(outcome)
    named = [case for case in members if case.key == outcome.error.get("case") and not crowded]
    broken = dict.fromkeys(named, in_group if outcome.status == "oom" else outcome)
    if not broken and len(members) > 1:
        broken = in_isolation(members)
    if not broken and not crowded:
        broken = dict.fromkeys(members, in_group)
    return broken


def failing_in_isolation(members: Sequence[Case], attempts: Attempts, spec_of: SpecOf) -> dict[Case, Failed]:
    """The members that fail also when each is timed by itself, and how.

    All are tried: while they run in turn, which one it was is lost with the process.
    """
    failed = {}
    for case in members:
        outcome = attempts.run("invocation", spec_of(f"alone-{case.key}", 0, [case]), f"{case.key}.alone", [case])
        if isinstance(outcome, Failed):
            failed[case] = outcome
    return failed


def failed_only_in_group(outcome: Failed) -> Failed:
    """The failure, saying that it was seen beside other cases only."""
    return replace(
        outcome, error={**outcome.error, "message": f"timed beside its baseline and others: {outcome.message}"}
    )
