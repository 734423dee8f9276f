"""Timing: sessions of fresh processes that time the baseline and all members until the protocol is satisfied."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.assemble import Session
from bench.analysis.next_process import next_process
from bench.analysis.session import Invocation, decide
from bench.config.schema import Config
from bench.plan.case import Case
from bench.plan.plan import Group
from bench.plan.process import ProcessPlan
from bench.plan.recipe import Recipe
from bench.sweep import isolate
from bench.sweep.attempts import Attempts
from bench.sweep.events import Advanced, Event, Working
from bench.sweep.unfinished import Unfinished, free_index, invocations
from bench.sweep.writing import Writer
from bench.worker.client import Failed

Probes = dict[str, dict[str, Any]]
#: What the first process of a session does.
IN_FULL = ProcessPlan()


class Timing:
    """Times the members of a group and writes their records.

    Args:
        config: protocol and seed.
        recipe_of: what a worker is told about a case.
        attempts: runs the workers.
        writer: writes the records.
        unfinished: sessions that an earlier sweep left.
        announce: told of every step.
    """

    def __init__(
        self,
        config: Config,
        recipe_of: Callable[[Case], Recipe],
        attempts: Attempts,
        writer: Writer,
        unfinished: Unfinished,
        announce: Callable[[Event], None],
    ):
        self._config, self._recipe_of, self._attempts = config, recipe_of, attempts
        self._writer, self._unfinished, self._announce = writer, unfinished, announce

    def time_members(self, group: Group, members: list[Case], probes: Probes, estimate: float) -> None:
        """Time the members together, or in as many sessions as it takes, and write their records.

        Args:
            group: what they belong to.
            members: cases with a probe.
            probes: by case key.
            estimate: seconds for all of them, for the progress bar.
        """
        parts = [members]
        while parts:
            parts = [*self._run_session(group, parts[0], probes, estimate), *parts[1:]]

    def _run_session(self, group: Group, members: list[Case], probes: Probes, estimate: float) -> list[list[Case]]:
        """Time the members in one session and write their records; the parts to time instead if an invocation broke."""
        baseline, is_groups_own = self._baseline(group, members)
        session_id, folder = self._unfinished.session(group.key, baseline, members, self._writer.now())
        share = estimate / self._config.protocol.latency.invocations
        ended = self._invocations(session_id, folder, baseline, members, share)
        if isinstance(ended, Failed):
            return self._exclude_failing_members(members, baseline, ended, probes)
        done, reason = ended
        session = Session(session_id, tuple(done), baseline.key, is_groups_own, reason, baseline in members)
        for case in members:
            self._writer.finished(case, probes[case.key], session)
        return []

    def _baseline(self, group: Group, members: Sequence[Case]) -> tuple[Case, bool]:
        """What the members are compared with, and whether it is the group's own baseline: else the first member."""
        baseline = group.baseline
        if baseline in members:
            return baseline, True
        record = self._writer.latest_readable(baseline)
        if record is None or record["status"] in ("ok", "contaminated"):
            return baseline, True
        return members[0], False

    def _invocations(
        self, session_id: str, folder: Path, baseline: Case, members: Sequence[Case], share: float
    ) -> tuple[list[Invocation], str] | Failed:
        """Invocations until the protocol is satisfied, and why it was; the failure of the first if that failed."""
        protocol = self._config.protocol.latency
        timed = [baseline, *(case for case in members if case != baseline)]
        done = invocations(folder, self._writer.sweep.problems)
        while True:
            decision = decide(done, [case.key for case in timed], baseline.key, protocol)
            if decision.done:
                return done, decision.reason
            index = free_index([item["index"] for item in done])
            self._announce(Working(f"timing {len(timed)} cases of {baseline.model} together, process {index + 1}"))
            wanted = next_process(done, [case.key for case in timed], baseline.key, self._config.protocol)
            spec = self._spec(session_id, index, timed, wanted)
            outcome = self._attempts.run("invocation", spec, session_id, members)
            if isinstance(outcome, Failed):
                return outcome
            self._writer.save(folder / f"{index:02d}.json.gz", outcome.result)
            self._writer.journal.append("timed", session=session_id, index=index, seconds=outcome.seconds)
            done.append(outcome.result)
            if index < protocol.invocations:
                self._announce(Advanced(share))

    def _spec(
        self, session_id: str, index: int, timed: Sequence[Case], wanted: ProcessPlan = IN_FULL
    ) -> dict[str, Any]:
        text = f"{session_id}/{index}/{self._config.seed}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        return {
            "recipes": [self._recipe_of(case).as_dict() for case in timed],
            "session": session_id,
            "index": index,
            "protocol": self._config.protocol.model_dump(),
            "plan": wanted.as_dict(),
            "seed": seed,
        }

    def _exclude_failing_members(
        self, members: list[Case], baseline: Case, outcome: Failed, probes: Probes
    ) -> list[list[Case]]:
        """The members to be timed instead: without those that broke the invocation, which get their failed record.

        If none is at fault and memory ran out, the two halves are timed as sessions of their own.
        """
        broken = isolate.failing_members(members, baseline, outcome, self._failing_in_isolation)
        if not broken:
            self._writer.journal.append("split", cases=[case.key for case in members])
            half = len(members) // 2
            return [members[:half], members[half:]]
        for case, failure in broken.items():
            self._writer.failed(case, failure, probes[case.key]["started_at"], probes[case.key])
        self._attempts.check_circuit(outcome)
        rest = [case for case in members if case not in broken]
        return [rest] if rest else []

    def _failing_in_isolation(self, members: Sequence[Case]) -> dict[Case, Failed]:
        self._announce(Working(f"looking for what broke the timing of {len(members)} cases"))
        return isolate.failing_in_isolation(members, self._attempts, self._spec)
