"""The mirror as a listener: records go to MLflow as they are written, and a server that is away loses nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from bench.config.schema import Config
from bench.plan.plan import Plan
from bench.store.records import CorruptRecord, Record, Store
from bench.sweep.events import Event, Recorded, Started


class MirrorListener:
    """Mirrors each record; does nothing when tracking is switched off."""

    def __init__(self, config: Config, mirror: Any | None, suite: str = ""):
        self._config, self._mirror, self._suite = config, mirror, suite
        self._begun = False
        self.problems: list[str] = []

    def __call__(self, event: Event) -> None:
        """Mirror what an event says."""
        if isinstance(event, Started):
            self.started(event.cases)
        elif isinstance(event, Recorded):
            self.recorded(event.record)

    def started(self, cases: int) -> None:
        """Begin the sweep's run; told only once the results folder is ours, so a refused driver leaves no trace."""
        if self._mirror is not None:
            self._mirror.start_sweep(self._suite, self._config.model_dump(mode="json"), cases)
        self._begun = True

    def recorded(self, record: Record) -> None:
        """Mirror one record; a failure is noted, never raised."""
        if self._mirror is not None:
            self._mirror.log_record(record)

    def refresh(self, page: Path | None) -> None:
        """Have the mirror show what there is so far: the chart view, and the report's first page if there is one."""
        if self._mirror is not None and self._begun:
            self._mirror.refresh(page)

    def close(self, page: Path | None, *, interrupted: bool = False) -> None:
        """Mirror what an earlier sweep could not, add the page, end the parent run; no-op if no sweep began."""
        if self._mirror is None or not self._begun:
            return
        store = Store(self._config.paths.results)
        for record in self._mirror.pending(store):
            self._mirror.log_record(record)
        self._mirror.finish(page, interrupted=interrupted)
        self.problems += self._mirror.problems

    def hint(self) -> str:
        """How to see the mirror."""
        if self._mirror is None:
            return "not mirrored (tracking=off)"
        if self._config.tracking.uri and self._config.tracking.uri.startswith("http"):
            return str(self._mirror.link())
        return "python -m bench job=ui"


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
        config.tracking.experiment,
        artifact_root=folder / "artifacts",
        results_root=Path(config.paths.results),
        derive=partial(derived, Store(config.paths.results)),
    )
    return MirrorListener(config, mirror, made.suite.name)
