"""The sweep: which cases are missing, in what order, each measured in fresh processes and written down once."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from bench.analysis import assemble
from bench.analysis.assemble import Context, Session
from bench.analysis.session import Invocation, decide
from bench.config.paths import PACKAGE
from bench.config.schema import Config
from bench.errors import BenchError, ResultsError
from bench.host import gpus, machine
from bench.plan.case import Case
from bench.plan.plan import Group, Plan
from bench.plan.recipe import Recipe, recipe_for
from bench.store.journal import Journal
from bench.store.lock import ResultsLock
from bench.store.records import CorruptRecord, Record, Store, is_present, read_calibration, write_json
from bench.sweep import calibration
from bench.sweep.unfinished import Unfinished, free_index, invocations
from bench.version import __version__
from bench.worker.client import Outcome, Workers, memory_limit

#: What a probe measures, in this order.
METERS = ("params", "macs", "memory", "facts", "quality", "energy")
#: A peak older than this is measured anew.
CALIBRATION_DAYS = 30
CALIBRATION_BUDGET_S = 8.0
#: Memory that a member needs beside its live tensors: library buffers and the allocator's slack.
MEMORY_OVERHEAD = 1.5
GO_ON = "interrupted; run the same command again to continue"


class Interrupted(BenchError):
    """Ctrl-C: what was measured is on disk."""

    exit_code = 130


class CircuitBroken(BenchError):
    """So many cases failed in a row that something outside them is wrong."""

    exit_code = 3


class Listener(Protocol):
    """What a sweep tells while it runs; the progress bar and the mirror are listeners."""

    def started(self, cases: int, present: int, seconds: float) -> None:
        """The sweep begins: cases in all, cases already there, estimated seconds."""

    def working(self, what: str) -> None:
        """What is being done now."""

    def advanced(self, seconds: float) -> None:
        """A part that was estimated at so many seconds is done."""

    def recorded(self, record: Record) -> None:
        """A record is on disk."""


@dataclass
class Silent:
    """A listener that does nothing."""

    def started(self, cases: int, present: int, seconds: float) -> None:
        """Nothing."""

    def working(self, what: str) -> None:
        """Nothing."""

    def advanced(self, seconds: float) -> None:
        """Nothing."""

    def recorded(self, record: Record) -> None:
        """Nothing."""


@dataclass
class Sweep:
    """What a sweep did: the records of its cases, new and old, and what was wrong."""

    records: list[Record] = field(default_factory=list)
    measured: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Record]:
        """Records of cases that did not end well."""
        return [record for record in self.records if record["status"] not in ("ok", "contaminated")]


def utc_now() -> str:
    """The present moment in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def code_version() -> dict[str, Any]:
    """Version of the instrument, with commit and state if it runs from a checkout."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return {"version": __version__, "commit": None, "dirty": None}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {"version": __version__, "commit": None, "dirty": None}
    return {"version": __version__, "commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()


def no_quality_reason(case: Case, config: Config, plan: Plan) -> str:
    """Why a case without a task has no accuracy."""
    native = plan.models[case.model].task
    if config.task_name == "none":
        return "no task was asked for (task=none)"
    if native is None or native == config.task_name:
        return f"the model is not made for the task {config.task_name}"
    return f"random weights of a model made for {native}: accuracy has no meaning; name weights with checkpoint=..."


class Runner:
    """Measures what is missing of a plan; one object per sweep.

    Args:
        config: the validated configuration.
        plan: what to measure.
        listener: told of every step.
        now: gives the time stamps; replaced in tests.
        recipes: what a worker is told about a case; default from plan and configuration.
        meters: what a probe measures.
        timed: whether cases are timed at all.
        calibrated: whether the machine's peaks are measured first.
    """

    def __init__(
        self, config: Config, plan: Plan, listener: Listener, *, now: Callable[[], str] = utc_now,
        recipes: Callable[[Case], Recipe] | None = None, meters: Sequence[str] = METERS, timed: bool = True,
        calibrated: bool = True,
    ):  # fmt: skip
        self.config, self.plan, self.listener, self.now = config, plan, listener, now
        self.meters, self.timed, self.calibrated = meters, timed, calibrated
        self._recipe = recipes or (lambda case: recipe_for(case, plan, config))
        self.store = Store(config.paths.results)
        self.journal = Journal(self.store.journal)
        self.sweep = Sweep()
        self.lost_in_a_row = 0
        self.environment = machine.environment(config.device.name)
        self.machine_key = machine.machine_key(self.environment)
        self.context: Context
        self.unfinished: Unfinished
        self.workers: Workers

    # -- the whole ----------------------------------------------------------------------------------------------

    def run(self, estimates: dict[str, float]) -> Sweep:
        """Measure every missing case.

        Args:
            estimates: seconds per group key, for the progress bar.

        Raises:
            ResultsError: the results folder is locked or not writable.
            Interrupted: Ctrl-C; everything finished is on disk.
            CircuitBroken: too many failures in a row.
        """
        with ResultsLock(self.store.root), self._workers():
            try:
                self._measure_missing(estimates)
            except KeyboardInterrupt:  # between two processes: no case was in hand
                self.journal.append("interrupted", cases=[])
                raise Interrupted(GO_ON) from None
        return self.sweep

    def _measure_missing(self, estimates: dict[str, float]) -> None:
        missing = {group.key: self._missing(group) for group in self.plan.groups}
        todo = [group for group in self.plan.groups if missing[group.key]]
        total = sum(estimates.get(group.key, 0.0) for group in todo)
        present = len(self.plan.cases) - sum(map(len, missing.values()))
        self.listener.started(len(self.plan.cases), present, total)
        self.journal.append("sweep_started", suite=self.plan.suite.name, cases=len(self.plan.cases), present=present)
        if todo:
            self._make_context()
        for group in todo:
            self._group(group, missing[group.key], estimates.get(group.key, 0.0))
        self.journal.append("sweep_ended", measured=self.sweep.measured, failed=len(self.sweep.failed))

    @contextmanager
    def _workers(self) -> Iterator[None]:
        timeouts = self.config.executor.timeouts_s.model_dump()
        with Workers(timeouts) as self.workers:
            yield

    def _missing(self, group: Group) -> list[Case]:
        missing = []
        for case in group.cases:
            try:
                record = self.store.latest(case.key, self.machine_key)
            except CorruptRecord as error:
                self.sweep.problems.append(str(error))
                continue
            if is_present(record, retry_failed=self.config.retry_failed):
                assert record is not None
                self.sweep.records.append(record)
            else:
                missing.append(case)
        return missing

    def _latest_readable(self, case: Case) -> Record | None:
        """The newest record of a case, or None; also if it is damaged, which `_missing` has told."""
        try:
            return self.store.latest(case.key, self.machine_key)
        except CorruptRecord:
            return None

    def _make_context(self) -> None:
        code = code_version()
        self.context = Context(
            protocol=self.config.protocol, environment=self.environment, machine_key=self.machine_key,
            machine=self._calibration() if self.calibrated else {}, code=code,
        )  # fmt: skip
        maker = {"code": code, "meters": list(self.meters)}
        self.unfinished = Unfinished(self.store, self.machine_key, maker, self._save)

    def _calibration(self) -> dict[str, Any]:
        """What the machine could do: measured once per machine, device and thread count, then read."""
        from bench.plan.plan import threads

        device, count = self.config.device.name, threads(self.config)
        path = self.store.calibration_path(self.machine_key, device, count)
        saved = self._saved_calibration(path)
        if saved is not None and not self._has_drifted(saved, device, count):
            return saved
        self.listener.working("calibrating: what this machine could do")
        with self._told("calibrate", ()):
            outcome = calibration.measure(self.workers, device, count, CALIBRATION_BUDGET_S, self._calibration_log)
        if not outcome.ok or outcome.result is None:
            assert outcome.error is not None
            return {"peaks": [], "bandwidth": None, "notes": [f"calibration failed: {outcome.error['message']}"]}
        made = {**outcome.result, "measured_at": time.time()}
        self._save(path, made)
        return made

    @property
    def _calibration_log(self) -> Path:
        return self.store.logs / "calibrate.log"

    def _saved_calibration(self, path: Path) -> dict[str, Any] | None:
        """An earlier calibration that is not too old; one that cannot be read can always be made again."""
        saved = read_calibration(path)
        measured_at = (saved or {}).get("measured_at")
        if not isinstance(measured_at, int | float):
            return None
        return saved if 0 <= time.time() - measured_at < CALIBRATION_DAYS * 86400 else None

    def _has_drifted(self, saved: dict[str, Any], device: str, threads: int) -> bool:
        """Whether the machine is no longer as it was calibrated, by a probe of a second."""
        self.listener.working("checking the calibration")
        with self._told("calibrate", ()):
            reason = calibration.drift(self.workers, saved, device, threads, self._calibration_log)
        if reason:
            self.journal.append("drifted", reason=reason)
        return bool(reason)

    # -- one group ----------------------------------------------------------------------------------------------

    def _group(self, group: Group, missing: Sequence[Case], estimate: float) -> None:
        if not self._prepare(group, missing):
            return
        share = estimate / (2 * max(1, len(missing)))
        probes: dict[str, dict[str, Any]] = {}
        for case in missing:
            self.listener.working(f"probe {case.label}")
            probe = self._probe(case)
            if probe is not None:
                probes[case.key] = probe
            self.listener.advanced(share)
        alive = [case for case in missing if case.key in probes]
        if not self.timed:
            for case in alive:
                self._record(assemble.finished(case, self.context, probes[case.key], None, self.now()))
            return
        for members in self._sessions_that_fit(group, alive, probes):
            self._time(group, members, probes, estimate / 2 * len(members) / max(1, len(alive)))

    def _prepare(self, group: Group, missing: Sequence[Case]) -> bool:
        """Train or check what the group's model and methods need; if the model's fails, its cases fail with that reason."""
        case = group.baseline
        if case.task == "none":
            return True
        self.listener.working(f"preparing {case.model} for {case.task}")
        started = self.now()
        learners = [self._recipe(member).as_dict() for member in missing if not member.is_baseline]
        spec = {"recipe": self._recipe(case).as_dict(), "learners": learners}
        outcome = self._attempt("prepare", spec, case.key, missing)
        self.journal.append(
            "prepared", model=case.model, task=case.task, status=outcome.status, seconds=outcome.seconds
        )
        if outcome.ok:
            return True
        for member in missing:
            self._fail(member, outcome, started)
        self._break_circuit(outcome)
        return False

    def _probe(self, case: Case) -> dict[str, Any] | None:
        """The probe's result, from disk if it is there; None after writing the record of a failure."""
        saved = self.unfinished.probe(case)
        if saved is not None:
            self._learn_torch(saved)
            return saved
        spec = {
            "recipe": self._recipe(case).as_dict(), "protocol": self.config.protocol.model_dump(),
            "meters": list(self.meters), "no_quality": no_quality_reason(case, self.config, self.plan),
        }  # fmt: skip
        started = self.now()
        outcome = self._attempt("probe", spec, case.key, [case])
        if outcome.ok:
            assert outcome.result is not None
            self.unfinished.keep_probe(case, outcome.result)
            self.journal.append("probed", case=case.key, seconds=outcome.seconds)
            self._learn_torch(outcome.result)
            return outcome.result
        self._fail(case, outcome, started)
        self._break_circuit(outcome)
        return None

    def _learn_torch(self, probe: dict[str, Any]) -> None:
        """Tell in the records how torch is built and what it picked, which only a process that has imported it knows."""
        if "torch" in probe:
            environment = {**self.context.environment, "torch": probe["torch"]}
            self.context = replace(self.context, environment=environment)

    def _attempt(self, kind: str, spec: dict[str, Any], name: str, in_hand: Sequence[Case]) -> Outcome:
        """Run a worker, again if the process itself was lost and retries are left; any that comes back ends a row of losses."""
        log = self.store.logs / f"{name}.{kind}.log"
        for attempt in range(self.config.executor.retries + 1):
            with self._told(kind, in_hand):
                outcome = self.workers.run(kind, spec, log=log, memory_limit_bytes=self._memory_limit())
            if outcome.ok or not outcome.worth_retrying:
                self.lost_in_a_row = 0
                return outcome
            self.journal.append("lost", kind=kind, name=name, attempt=attempt + 1, status=outcome.status)
        self.lost_in_a_row += 1
        return outcome

    @contextmanager
    def _told(self, phase: str, in_hand: Sequence[Case]) -> Iterator[None]:
        """Tell Ctrl-C and a disk without room for a worker's files as what they are; the cases in hand get their record."""
        try:
            yield
        except KeyboardInterrupt:
            self._interrupt(in_hand, phase)
            raise Interrupted(GO_ON) from None
        except OSError as error:
            raise ResultsError(
                f"{error.filename or 'the folder for temporary files'}: cannot be written ({error.strerror}); make "
                "room there or set TMPDIR, and run again: what was measured before is kept"
            ) from error

    def _memory_limit(self) -> int | None:
        return memory_limit(self.config.executor.memory_share) if self.config.device.name == "cpu" else None

    def _room(self) -> float | None:
        """Bytes that the members of an invocation may take together, where they live; None where nothing tells."""
        device = self.config.device.name
        if device == "cpu":
            return self._memory_limit()
        free = gpus.free_memory(device)
        return None if free is None else free * self.config.executor.memory_share

    def _interrupt(self, cases: Sequence[Case], phase: str) -> None:
        """Give the cases a record of the interruption, unless they have one that tells more."""
        error = {"phase": phase, "type": "KeyboardInterrupt", "message": "interrupted by the user", "log_tail": ""}
        for case in cases:
            if not is_present(self._latest_readable(case), retry_failed=False):
                moment = self.now()
                self._record(assemble.failed(case, self.context, "interrupted", error, moment, moment))
        self.journal.append("interrupted", cases=[case.key for case in cases])

    def _fail(self, case: Case, outcome: Outcome, started: str, probe: dict[str, Any] | None = None) -> None:
        assert outcome.error is not None
        self.journal.append("failed", case=case.key, status=outcome.status, phase=outcome.error["phase"])
        self._record(assemble.failed(case, self.context, outcome.status, outcome.error, started, self.now(), probe))

    def _break_circuit(self, outcome: Outcome) -> None:
        """Nothing, unless too many processes were lost in a row; called when the records of the last are written.

        Raises:
            CircuitBroken: they were.
        """
        assert outcome.error is not None
        if self.lost_in_a_row >= self.config.executor.breaker:
            raise CircuitBroken(
                f"{self.lost_in_a_row} cases in a row were lost ({outcome.status}: {outcome.error['message']}); "
                "the machine or the installation is at fault rather than the cases. Mend it and run again with "
                "retry_failed=true; what was measured is kept"
            )

    def _record(self, record: Record) -> None:
        before = self.store.latest(record["case_key"], self.machine_key)
        made = {**record, "supersedes": before["content_hash"] if before else None}
        path = self._write(made)
        sealed = self.store.read(path)
        facts = {"status": record["status"], "file": path.name, "content_hash": sealed["content_hash"]}
        self.journal.append("recorded", case=record["case_key"], **facts)
        self.sweep.records.append(sealed)
        self.sweep.measured += record["status"] != "interrupted"
        self.listener.recorded(sealed)

    def _write(self, record: Record) -> Path:
        with self._writing("the record"):
            return self.store.write(record)

    def _save(self, path: Path, value: Any) -> None:
        with self._writing(path.name):
            write_json(path, value)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Tell a disk that is full or read-only as what it is."""
        try:
            yield
        except OSError as error:
            raise ResultsError(
                f"{self.store.root}: {what} cannot be written ({error.strerror or error}); make room or make the folder "
                "writable and run again: what was measured before is kept"
            ) from error

    # -- timing -------------------------------------------------------------------------------------------------

    def _sessions_that_fit(
        self, group: Group, alive: Sequence[Case], probes: dict[str, dict[str, Any]]
    ) -> Iterator[list[Case]]:
        """The cases in parts that fit into memory together, each with the baseline and its twin."""
        if not alive:
            return
        sizes = {case.key: _peak(probes[case.key]) * MEMORY_OVERHEAD for case in alive}
        anchor = sizes.get(group.baseline.key, max(sizes.values()))
        room = (self._room() or float("inf")) - 2 * anchor
        part: list[Case] = []
        for case in alive:
            if part and sum(sizes[c.key] for c in part) + sizes[case.key] > room:
                yield part
                part = []
            part.append(case)
        yield part

    def _time(self, group: Group, members: list[Case], probes: dict[str, dict[str, Any]], estimate: float) -> None:
        """Time the members together, or in as many sessions as it takes, and write their records."""
        parts = [members]
        while parts:
            parts = [*self._timed(group, parts[0], probes, estimate), *parts[1:]]

    def _timed(
        self, group: Group, members: list[Case], probes: dict[str, dict[str, Any]], estimate: float
    ) -> list[list[Case]]:
        """Time the members in one session and write their records; the parts to time instead if an invocation broke."""
        anchor, is_baseline = self._anchor(group, members)
        session_id, folder = self.unfinished.session(group.key, anchor, members, self.now())
        share = estimate / self.config.protocol.latency.invocations
        outcome, done, reason = self._invocations(session_id, folder, anchor, members, share)
        if outcome is not None:
            return self._without_culprit(members, anchor, outcome, probes)
        session = Session(session_id, tuple(done), anchor.key, is_baseline, reason, anchor in members)
        for case in members:
            self._record(assemble.finished(case, self.context, probes[case.key], session, self.now()))
        return []

    def _anchor(self, group: Group, members: Sequence[Case]) -> tuple[Case, bool]:
        """What the session's members are compared with: the baseline unless it failed."""
        baseline = group.baseline
        if baseline in members:
            return baseline, True
        record = self._latest_readable(baseline)
        if record is None or record["status"] in ("ok", "contaminated"):
            return baseline, True
        return members[0], False

    def _invocations(
        self, session_id: str, folder: Path, anchor: Case, members: Sequence[Case], share: float
    ) -> tuple[Outcome | None, list[Invocation], str]:
        """Add processes until the protocol is satisfied; the outcome of the first that failed, if one did."""
        protocol = self.config.protocol.latency
        timed = [anchor, *(case for case in members if case != anchor)]
        done = invocations(folder, self.sweep.problems)
        while True:
            decision = decide(done, [case.key for case in timed], anchor.key, protocol)
            if decision.done:
                return None, done, decision.reason
            index = free_index([item["index"] for item in done])
            self.listener.working(f"timing {len(timed)} cases of {anchor.model} together, process {index + 1}")
            outcome = self._attempt("invocation", self._invocation_spec(session_id, index, timed), session_id, members)
            if not outcome.ok:
                return outcome, done, outcome.status
            assert outcome.result is not None
            self._save(folder / f"{index:02d}.json.gz", outcome.result)
            self.journal.append("timed", session=session_id, index=index, seconds=outcome.seconds)
            done.append(outcome.result)
            if index < protocol.invocations:
                self.listener.advanced(share)

    def _invocation_spec(self, session_id: str, index: int, timed: Sequence[Case]) -> dict[str, Any]:
        text = f"{session_id}/{index}/{self.config.seed}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        return {
            "recipes": [self._recipe(case).as_dict() for case in timed], "session": session_id, "index": index,
            "protocol": self.config.protocol.model_dump(), "seed": seed,
        }  # fmt: skip

    def _without_culprit(
        self, members: list[Case], anchor: Case, outcome: Outcome, probes: dict[str, dict[str, Any]]
    ) -> list[list[Case]]:
        """What is to be timed instead: the members without those that broke the invocation, which get their failed record.

        Memory that ran out in company says nothing of the member that happened to ask for it last: if each runs alone,
        the two halves are timed as sessions of their own.
        """
        assert outcome.error is not None
        company = outcome if members == [anchor] else _in_company(outcome)
        crowded = outcome.status == "oom" and len(members) > 1
        named = [case for case in members if case.key == outcome.error.get("case") and not crowded]
        broken = dict.fromkeys(named, company if outcome.status == "oom" else outcome)
        if not broken and len(members) > 1:
            broken = self._broken_alone(members)
        if not broken and crowded:
            self.journal.append("split", cases=[case.key for case in members])
            half = len(members) // 2
            return [members[:half], members[half:]]
        if not broken:  # unknown: none of them can be timed in this company
            broken = dict.fromkeys(members, company)
        for case, how in broken.items():
            self._fail(case, how, probes[case.key]["started_at"], probes[case.key])
        self._break_circuit(outcome)
        rest = [case for case in members if case not in broken]
        return [rest] if rest else []

    def _broken_alone(self, members: Sequence[Case]) -> dict[Case, Outcome]:
        """The members that break also when each is timed by itself, and how: while all run in turn, who it was is lost."""
        self.listener.working(f"looking for what broke the timing of {len(members)} cases")
        tried = {}
        for case in members:
            spec = self._invocation_spec(f"alone-{case.key}", 0, [case])
            tried[case] = self._attempt("invocation", spec, f"{case.key}.alone", [case])
        return {case: outcome for case, outcome in tried.items() if not outcome.ok}


def _peak(probe: dict[str, Any]) -> float:
    values = [row["value"] for row in probe["readings"] if row["metric"] == "peak_memory_bytes"]
    return values[0] if values and values[0] is not None else 0.0


def _in_company(outcome: Outcome) -> Outcome:
    """The outcome, saying that it was seen beside other cases only."""
    error = {**(outcome.error or {})}
    return replace(outcome, error={**error, "message": f"timed beside its baseline and others: {error['message']}"})
