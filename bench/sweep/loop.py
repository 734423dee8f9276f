"""The sweep: which cases are missing, in what order, each measured in fresh processes and written down once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import workloads
from bench.analysis.assemble import Context
from bench.config.schema import Config
from bench.host import code
from bench.host.environment import environment
from bench.host.identity import machine_key
from bench.meters import table
from bench.moment import utc_second
from bench.plan.case import Case
from bench.plan.plan import Group, Plan, threads
from bench.plan.recipe import Recipe, recipe_for
from bench.store.journal import Journal
from bench.store.lock import ResultsLock
from bench.store.outline import Head
from bench.store.records import CorruptRecord, Record, Store, counts
from bench.store.stored import Stored
from bench.sweep.attempts import RESUME_HINT, Attempts, Interrupted
from bench.sweep.calibration import Calibrator
from bench.sweep.events import Event, GroupFinished, Listener, Recorded, Started
from bench.sweep.executors import Executor, open_executor
from bench.sweep.group import GroupMeasurement
from bench.sweep.pool import is_pool, open_pool
from bench.sweep.pool.arrivals import Arrivals
from bench.sweep.pool.driving import PoolDriver
from bench.sweep.timing import Timing
from bench.sweep.unfinished import Unfinished
from bench.sweep.writing import Sweep, Writer

#: Cases that one process counts: the first pays for what the others need as well, and what is counted is soon on disk;
#: the layers of thirty deep decoders were more than one outcome may hold (`bench.store.foreign.MOST_PARTS`).
COUNTED_TOGETHER = 10
#: Said of predictions where groups are measured on other machines, which have not the rows of this folder.
NOT_IN_A_POOL = (
    "predictions are made from the rows of this folder, and no machine of a pool has them: run the same command with "
    "executor=local once the rows are here"
)


def _is_of_records(group: Group) -> bool:
    """Whether the group tells what is made from other rows, which have to be there first."""
    return workloads.find(group.baseline.workload).of_records


class Driver:
    """Measures what is missing of a plan; one object per sweep.

    Args:
        config: the validated configuration.
        plan: what to measure.
        listeners: called with every event of `bench.sweep.events`, in this order.
        now: gives the time stamps; replaced in tests.
        recipes: what a worker is told about a case; default from plan and configuration.
        meters: what a probe measures.
        timed: whether cases are timed at all; never where the protocol only counts.
        calibrated: whether the machine's peaks are measured first; never where the protocol only counts.
    """

    def __init__(
        self,
        config: Config,
        plan: Plan,
        listeners: Sequence[Listener] = (),
        *,
        now: Callable[[], str] = utc_second,
        recipes: Callable[[Case], Recipe] | None = None,
        meters: Sequence[str] = table.NAMES,
        timed: bool = True,
        calibrated: bool = True,
    ):
        self.config, self.plan, self.now = config, plan, now
        self.meters = meters
        self.timed, self.calibrated = timed and config.protocol.timed, calibrated and config.protocol.timed
        self._listeners = tuple(listeners)
        self._recipe_of = recipes or (lambda case: recipe_for(case, plan, config))
        self.store = Store(config.paths.results)
        self.journal = Journal(self.store.journal)
        self.sweep = Sweep(Stored(self.store))
        self.environment = environment(config.device.name)
        self.machine_key = machine_key(self.environment)
        label = config.executor.label or ""
        pooled = is_pool(config.executor.name)
        self._arrivals = Arrivals(self.store, self.journal, label, self._arrived) if pooled else None
        self._on_arrival: Callable[[str, bool], None] = lambda key, failed: None

    def run(self, estimates: dict[str, float]) -> Sweep:
        """Measure every missing case.

        Args:
            estimates: seconds per group key, for the progress bar.

        Raises:
            ResultsError: the results folder is locked or not writable.
            Interrupted: Ctrl-C; everything finished is on disk.
            CircuitBroken: too many failures in a row.
        """
        with ResultsLock(self.store.root):
            self.store.remove_litter()
            try:
                self._measure_missing(estimates)
            except KeyboardInterrupt:  # between two processes: no case was active
                self.journal.append("interrupted", cases=[])
                raise Interrupted(RESUME_HINT) from None
        return self.sweep

    def _measure_missing(self, estimates: dict[str, float]) -> None:
        timed = self.config.protocol.timed
        groups = sorted(self.plan.groups, key=_is_of_records)
        # what is made from other rows: which of it is missing is known once those are there
        later = [group for group in groups if timed and _is_of_records(group)]
        missing = {group.key: [] if group in later else self._missing(group) for group in groups}
        todo = [group for group in groups if missing[group.key]]
        if later and self._arrivals is not None:
            self.sweep.problems.append(NOT_IN_A_POOL)
        elif not todo:
            missing |= {group.key: self._missing(group) for group in later}
            todo, later = [group for group in later if missing[group.key]], []
        total = sum(estimates.get(group.key, 0.0) for group in [*todo, *later])
        absent = sum(map(len, missing.values())) + sum(len(group.cases) for group in later)
        present = len(self.plan.cases) - absent
        self._announce(Started(len(self.plan.cases), present, total))
        self.journal.append("sweep_started", suite=self.plan.suite.name, cases=len(self.plan.cases), present=present)
        if todo and self._arrivals is not None:
            self._measure_in_pool(todo, missing, estimates, self._arrivals)
        elif todo:
            with open_executor(self.config.executor.name, self.config.executor.timeouts_s.model_dump()) as executor:
                measurement = self._measurement(executor)
                if timed:
                    self._measure_groups(measurement, [*todo, *later], missing, estimates)
                else:
                    cases = [case for group in todo for case in missing[group.key]]
                    for start in range(0, len(cases), COUNTED_TOGETHER):
                        measurement.count(cases[start : start + COUNTED_TOGETHER])
        self.journal.append("sweep_ended", measured=self.sweep.measured, failed=len(self.sweep.failed))

    def _measure_in_pool(
        self, todo: Sequence[Group], missing: dict[str, list[Case]], estimates: dict[str, float], arrivals: Arrivals
    ) -> None:
        """Have the groups measured on the machines of a pool; what comes back joins the sweep's records."""
        with open_pool(self.config) as pool:
            driver = PoolDriver(self.config, pool, arrivals, self.journal, self._announce, self.sweep.problems)
            self._on_arrival = driver.recorded
            try:
                driver.measure(todo, missing, estimates)
            finally:
                self.sweep.problems.extend(arrivals.problems)

    def _arrived(self, record: Record) -> None:
        """A record that a machine of a pool sent and that is on disk now."""
        self.sweep.records.append(record)
        self.sweep.measured += 1
        self._on_arrival(record["case_key"], record["status"] not in ("ok", "contaminated"))
        self._announce(Recorded(record))

    def _measure_groups(
        self,
        measurement: GroupMeasurement,
        todo: Sequence[Group],
        missing: dict[str, list[Case]],
        estimates: dict[str, float],
    ) -> None:
        """Measure one group after another, and tell of each when it is done.

        Args:
            measurement: measures a group.
            todo: groups, those that are made from other rows last.
            missing: by group key; of those that are made from other rows nothing yet, unless nothing else was missing.
            estimates: seconds by group key.
        """
        for place, group in enumerate(todo):
            began = time.monotonic()
            cases = missing[group.key] or self._missing(group)
            before = len(self.sweep.records)
            if cases:
                measurement.measure(group, cases, estimates.get(group.key, 0.0))
            seconds, made = time.monotonic() - began, self.sweep.records[before:].heads()
            failed = {head.case_key for head in made if head.status not in ("ok", "contaminated")}
            done, left = todo[: place + 1], todo[place + 1 :]
            expected = (sum(estimates.get(each.key, 0.0) for each in groups) for groups in (done, left))
            told = len({head.case_key for head in made})
            self._announce(GroupFinished(group.label, told, len(failed), seconds, len(done), len(left), *expected))

    def _announce(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def _missing(self, group: Group) -> list[Case]:
        """The group's cases without a record that counts; the records of the others join the sweep's."""
        missing = []
        for case in group.cases:
            try:
                head = self._present(case)
            except CorruptRecord as error:  # it is neither counted nor measured over: its file has to be moved away
                self.sweep.problems.append(str(error))
                continue
            if head is None or self._is_outdated(case, head):
                missing.append(case)
            else:
                self.sweep.records.add(head.case_key, head.machine_key)
        return missing

    def _present(self, case: Case) -> Head | None:
        """The head of the record that makes measuring the case needless: this machine's, or any machine's of the pool.

        Raises:
            CorruptRecord: there is one that cannot be trusted.
        """
        if self._arrivals is not None:
            return self._arrivals.present(case, self.config.retries)
        head = self.store.head(case.key, self.machine_key)
        return head if head is not None and counts(head.status, retry=self.config.retries) else None

    def _is_outdated(self, case: Case, head: Head) -> bool:
        """Whether a record was made from other rows of the folder than there are now."""
        if not workloads.find(case.workload).of_records:
            return False
        record = self.store.latest(head.case_key, head.machine_key)
        rows = [known.brief() for known in self.store.heads(self.sweep.problems).values()]
        return record is None or bool(workloads.module_of(case.workload).is_outdated(record, rows))

    def _measurement(self, executor: Executor) -> GroupMeasurement:
        """What measures one group after another, after the machine has been calibrated."""
        version = code.code_version()
        machine = self._calibration(executor)
        context = Context(self.config.protocol, self.environment, self.machine_key, machine, version, self.plan.scores)
        writer = Writer(self.store, self.journal, context, self.sweep, self._announce, self.now)
        attempts = Attempts(executor, self.config, self.journal, self.store.logs, writer.interrupted)
        producer = {"code": version, "meters": list(self.meters)}
        unfinished = Unfinished(self.store, self.machine_key, producer, writer.save)
        timing = Timing(self.config, self._recipe_of, attempts, writer, unfinished, self._announce)
        return GroupMeasurement(
            self.config,
            self.plan,
            self._recipe_of,
            self.meters,
            attempts,
            writer,
            unfinished,
            timing if self.timed else None,
            self._announce,
        )

    def _calibration(self, executor: Executor) -> dict[str, Any]:
        """What the machine could do; an empty table where the sweep does not ask."""
        if not self.calibrated:
            return {}
        calibrator = Calibrator(executor, self.store, self.journal, self._announce)
        return calibrator.current(self.machine_key, self.config.device.name, threads(self.config))
