"""One group: its task prepared, each missing case probed in a process of its own, then all of them timed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.canonical import BASELINE_METHOD, OWN_NETWORKS
from bench.config.schema import Config
from bench.plan import estimate
from bench.plan.case import Case
from bench.plan.plan import Group, Plan
from bench.plan.recipe import Recipe
from bench.sweep import memory
from bench.sweep.attempts import Attempts
from bench.sweep.events import Advanced, Event, Working
from bench.sweep.timing import Timing
from bench.sweep.unfinished import Unfinished
from bench.sweep.writing import Writer
from bench.worker.client import Failed


def no_quality_reason(case: Case, plan: Plan) -> str:
    """Why a case without a task has no score."""
    native = plan.models[case.model].task
    if not plan.tasks:
        return "no task was asked for (task=none)"
    if native is None and case.suite == OWN_NETWORKS:
        return "nothing was named to score it on: task=imagefolder or textfile, with data.root=... and checkpoint=..."
    if native is None:
        return f"the model is not made for the task {' or '.join(plan.tasks)}"
    return f"random weights of a model made for {native}: a score has no meaning; name weights with checkpoint=..."


@dataclass(frozen=True)
class GroupMeasurement:
    """Measures what is missing of a group and writes its records.

    Args:
        config: the validated configuration.
        plan: what the sweep measures.
        recipe_of: what a worker is told about a case.
        meters: what a probe measures.
        attempts: runs the workers.
        writer: writes the records.
        unfinished: probes that an earlier sweep left.
        timing: times the members; None where cases are not timed at all.
        announce: told of every step.
    """

    config: Config
    plan: Plan
    recipe_of: Callable[[Case], Recipe]
    meters: Sequence[str]
    attempts: Attempts
    writer: Writer
    unfinished: Unfinished
    timing: Timing | None
    announce: Callable[[Event], None]

    def measure(self, group: Group, missing: Sequence[Case], estimate: float) -> None:
        """Give every missing case of the group its record.

        Args:
            group: what is measured together.
            missing: its cases without a record that counts.
            estimate: seconds for all of them, for the progress bar.
        """
        missing = self._prepared(group, missing)
        share = estimate / (2 * max(1, len(missing)))
        probes: dict[str, dict[str, Any]] = {}
        for case in missing:
            self.announce(Working(f"probe {case.label}"))
            probe = self._probe(case)
            if probe is not None:
                probes[case.key] = probe
            self.announce(Advanced(share))
        probed = [case for case in missing if case.key in probes]
        if self.timing is None:
            for case in probed:
                self.writer.finished(case, probes[case.key], None)
            return
        sizes = {key: memory.expected_bytes(probe) for key, probe in probes.items()}
        for members in memory.cases_that_fit(probed, sizes, group.baseline.key, memory.room(self.config)):
            self.timing.time_members(group, members, probes, estimate / 2 * len(members) / len(probed))

    def count(self, missing: Sequence[Case]) -> None:
        """Give cases that are only counted their records: in one process, or where that is lost each in its own.

        A process ends early where its counts take long, so that they are on disk; the next one counts the rest.

        Args:
            missing: cases of any groups, at least one.
        """
        self.announce(Working(f"counting {len(missing)} cases, {missing[0].label} first"))
        started = self.writer.now()
        spec = {
            "recipes": [self.recipe_of(case).as_dict() for case in missing],
            "protocol": self.config.protocol.model_dump(),
        }
        outcome = self.attempts.run("count", spec, missing[0].group_key, missing)
        if isinstance(outcome, Failed):
            if len(missing) == 1:
                self.writer.failed(missing[0], outcome, started)
                self.attempts.check_circuit(outcome)
                return
            for case in missing:
                self.count([case])
            return
        counted = [case for case in missing if case.key in outcome.result["cases"]]
        for case in counted:
            found = outcome.result["cases"][case.key]
            if found["status"] != "ok":
                self.writer.failed(case, Failed(found["status"], found["error"], outcome.seconds), started)
                continue
            self.writer.learn_torch(found["result"])
            self.writer.finished(case, found["result"], None)
        self.announce(Advanced(estimate.COUNT_S * len(counted)))
        if len(counted) < len(missing):
            self.count(missing[len(counted) :])

    def _prepared(self, group: Group, missing: Sequence[Case]) -> list[Case]:
        """The missing cases whose model and method have what they need of their task, trained now or checked.

        Where that fails for a model, its cases get records with that reason.
        """
        if all(case.task == "none" for case in missing):
            return list(missing)
        members = missing if group.baseline in missing else [group.baseline, *missing]
        models = dict.fromkeys((case.model, case.model_settings) for case in members)
        ready: list[Case] = []
        for model in models:
            own = [case for case in missing if (case.model, case.model_settings) == model]
            plain = next(case for case in members if (case.model, case.model_settings) == model).plain
            ready += own if self._prepare(plain, own) else []
        return [case for case in missing if case in ready]

    def _prepare(self, plain: Case, missing: Sequence[Case]) -> bool:
        """Train or check what a model and the methods of its missing cases need; the cases' records if that fails."""
        self.announce(Working(f"preparing {plain.model} for {plain.task}"))
        started = self.writer.now()
        learners = [self.recipe_of(member).as_dict() for member in missing if member.method != BASELINE_METHOD]
        spec = {"recipe": self.recipe_of(plain).as_dict(), "learners": learners}
        outcome = self.attempts.run("prepare", spec, plain.key, missing)
        self.writer.journal.append(
            "prepared", model=plain.model, task=plain.task, status=outcome.status, seconds=outcome.seconds
        )
        if isinstance(outcome, Failed):
            for member in missing:
                self.writer.failed(member, outcome, started)
            self.attempts.check_circuit(outcome)
            return False
        return True

    def _probe(self, case: Case) -> dict[str, Any] | None:
        """The probe's result, from disk if it is there; None after writing the record of a failure."""
        saved = self.unfinished.probe(case)
        if saved is not None:
            self.writer.learn_torch(saved)
            return saved
        spec = {
            "recipe": self.recipe_of(case).as_dict(),
            "protocol": self.config.protocol.model_dump(),
            "meters": list(self.meters),
            "no_quality": no_quality_reason(case, self.plan),
            "other_side": None if case.is_baseline else self.recipe_of(case.baseline).as_dict(),
        }
        started = self.writer.now()
        outcome = self.attempts.run("probe", spec, case.key, [case])
        if isinstance(outcome, Failed):
            self.writer.failed(case, outcome, started)
            self.attempts.check_circuit(outcome)
            return None
        self.unfinished.keep_probe(case, outcome.result)
        self.writer.journal.append("probed", case=case.key, seconds=outcome.seconds)
        self.writer.learn_torch(outcome.result)
        return outcome.result
