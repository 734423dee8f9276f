"""The mirror as a listener: records go to MLflow as they are written, and a server that is away loses nothing.

Measuring waits for it, because nothing may run beside what is timed; so it gets a small share of the time. What it does
not get to is on disk, and goes over at the end of the sweep.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from bench.canonical import OWN_NETWORKS, digest
from bench.config.overrides import as_word
from bench.config.schema import Config
from bench.plan.plan import Plan
from bench.store.records import CorruptRecord, Record, Store
from bench.sweep.events import Event, GroupFinished, Recorded, Started

#: Share of a sweep's time that measuring may wait for the mirror, and seconds that it may wait in any case.
SHARE, FREE_S = 0.05, 20.0


class MirrorListener:
    """Mirrors each record; does nothing when tracking is switched off.

    Args:
        config: of the sweep.
        mirror: a `bench.tracking.mirror.Mirror`, or None.
        suite: what is measured.
        clock: seconds that only grow; replaced in tests.
    """

    def __init__(
        self, config: Config, mirror: Any | None, suite: str = "", clock: Callable[[], float] = time.monotonic
    ):
        self._config, self._mirror, self._suite, self._clock = config, mirror, suite, clock
        self._begun = self._opened = False
        self._count = 0
        self._began, self._spent = clock(), 0.0
        self._waiting: deque[str] = deque()  # names of files
        self.problems: list[str] = []

    def __call__(self, event: Event) -> None:
        """Mirror what an event says, and what waits, as far as the share goes."""
        if isinstance(event, Started):
            self.started(event.cases, event.present)
        elif isinstance(event, Recorded):
            self.recorded(event.record)
        elif isinstance(event, GroupFinished):
            self._catch_up()

    def started(self, cases: int, present: int) -> None:
        """Begin the sweep's run; told only once the results folder is ours, so a refused driver leaves no trace.

        Where every case is present MLflow is not opened before it is known that there is something for it.
        """
        self._begun, self._count = True, cases
        if present < cases:
            self._open()

    def _open(self) -> None:
        if self._mirror is not None and not self._opened:
            self._opened = True
            self._mirror.start_sweep(self._suite, self._config.model_dump(mode="json"), self._count)

    def recorded(self, record: Record) -> None:
        """Mirror one record, now or when there is time for it; a failure is noted, never raised."""
        if self._mirror is None:
            return
        self._open()
        if self._waiting or not self._affordable():
            self._waiting += [path.name for path in self._store.attempts(*_keys(record))[-1:]]
            self._catch_up()
        else:
            self._timed(record)

    def _catch_up(self) -> None:
        while self._waiting and self._affordable():
            with suppress(CorruptRecord):  # what was damaged since is told by the next sweep
                self._timed(self._store.read_again(self._waiting.popleft()))

    def _timed(self, record: Record) -> None:
        assert self._mirror is not None
        started = self._clock()
        self._mirror.log_record(record)
        self._spent += self._clock() - started

    def _affordable(self) -> bool:
        return self._spent <= max(FREE_S, SHARE * (self._clock() - self._began - self._spent))

    @cached_property
    def _store(self) -> Store:
        return Store(self._config.paths.results)

    def refresh(self, page: Path | None) -> None:
        """Have the mirror show what there is so far: the chart view, and the report's first page if there is one."""
        if self._mirror is not None and self._begun:
            self._mirror.refresh(page)

    def close(self, page: Path | None, *, interrupted: bool = False) -> None:
        """Mirror what an earlier sweep could not, add the page, end the parent run; no-op if no sweep began.

        Where nothing was measured, and all of it is there already, MLflow is not opened.
        """
        if self._mirror is None or not self._begun:
            return
        report = _mark(page)
        if not self._opened and self._mirror.is_settled(self._store, self._suite, report):
            return
        self._open()
        for record in self._mirror.pending(self._store):
            self._mirror.log_record(record)
        self._mirror.finish(page, interrupted=interrupted, report=report)
        self.problems += self._mirror.problems

    def hint(self) -> str:
        """How to see the mirror."""
        if self._mirror is None:
            return "not mirrored (tracking=off)"
        if self._config.tracking.uri and self._config.tracking.uri.startswith("http"):
            return str(self._mirror.link())
        own = self._suite == OWN_NETWORKS and self._config.model
        chosen = as_word("model", own) if own else f"suite={self._suite}" if self._suite else ""
        return f"python -m bench job=ui {chosen}".rstrip()


def _mark(page: Path | None) -> str | None:
    """What changes with every build of the report and stays where it is kept; empty without one, None if unknown."""
    from reports.fresh import FILE

    if page is None:
        return ""
    try:
        return digest((page.parent / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _keys(record: Record) -> tuple[str, str]:
    return record["case_key"], record["machine_key"]


def experiment_of(config: Config, suite: str) -> str:
    """The experiment of a suite: the configured one, which has every suite, else one of its own."""
    from bench.tracking.mlflow_view import view_key  # imports no MLflow

    return config.tracking.experiment or view_key(suite)


def tracking_uri(config: Config) -> str:
    """Where the mirror goes: the configured address, else SQLite in the tracking folder."""
    if config.tracking.uri:
        return config.tracking.uri
    from bench.tracking.database import address_of  # imports no MLflow

    return address_of((Path(config.tracking.folder) / "mlflow.db").resolve())


#: Quantities that a page derives of a row and what it is compared with -> the metric's name in MLflow.
_DERIVED = {
    "mac_ratio": "compute/mac_ratio",
    "realised_gain": "latency/realised_gain",
    "own_share": "latency/own_share_percent",
}


def derived(store: Store, record: Record) -> dict[str, float]:
    """What the pages derive of a record and of the one that it is compared with, by its name in MLflow.

    Without that one, or where a page shows a dash, there is no such metric.
    """
    from reports.rows import rows_of

    if record["case_key"] == record["baseline_key"]:
        return {}
    try:
        other = store.latest(record["baseline_key"], record["machine_key"])
    except CorruptRecord:
        return {}
    if other is None:
        return {}
    rows = [row for row in rows_of([other, record], []) if row.case_key == record["case_key"]]
    values = {name: row.value(cell) for row in rows for cell, name in _DERIVED.items()}
    return {name: value for name, value in values.items() if value is not None}


def open_mirror(config: Config, made: Plan) -> MirrorListener:
    """A listener that mirrors to the configured place; MLflow is imported only here."""
    if not config.tracking.enabled:
        return MirrorListener(config, None)
    from bench.tracking.mirror import Mirror

    folder = Path(config.tracking.folder)
    mirror = Mirror(
        tracking_uri(config),
        experiment_of(config, made.suite.name),
        artifact_root=folder / "artifacts",
        results_root=Path(config.paths.results),
        suite=None if config.tracking.experiment else made.suite.name,
        derive=partial(derived, Store(config.paths.results)),
    )
    return MirrorListener(config, mirror, made.suite.name)
