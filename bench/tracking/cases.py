"""Cases in MLflow: one child run each, brought over once; a ledger beside the records says which are there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import ResultsError
from bench.host.personal import redacted
from bench.store.journal import Journal
from bench.store.records import Record, Store, seal
from bench.store.stored import Stored
from bench.tracking.connection import Connection
from bench.tracking.tracked_run import FOLDED, KIND, SUPERSEDED_KIND, TrackedRun, describe, identity

LEDGER = "mirrored.jsonl"
PARAMS_PER_REQUEST, METRICS_PER_REQUEST = 100, 1000
#: Params of a case that say which network it is.
MODEL_PARAMS = ("model", "model_settings", "method", "setting", "dtype", "backend", "task", "seed")
Derive = Callable[[Record], Mapping[str, float]]


class Cases:
    """The case runs of an experiment, and the ledger of what has been mirrored where.

    Args:
        connection: to MLflow.
        results_root: the results folder, which keeps the ledger.
        parent: gives the id of the sweep's run, made if need be.
        derive: gives metrics that follow from a record and the one that it is compared with.
        suite: whose records belong here; default every suite's.
    """

    def __init__(
        self,
        connection: Connection,
        results_root: Path,
        parent: Callable[[], str],
        derive: Derive | None = None,
        suite: str | None = None,
    ):
        self._connection, self._parent, self._derive, self._suite = connection, parent, derive, suite
        self._ledger = Journal(results_root / LEDGER)
        self._done: set[str] = set()
        self._done_at: str | None = None
        self.seen = ("", "")  # machine key and protocol hash of the latest record

    def log(self, record: Record) -> None:
        """Mirror one record, unless it is there already; while MLflow is away the record stays pending."""
        try:
            run = run_at(self._connection.uri, record, self._derive(record) if self._derive else None)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            self._connection.complain(f"record {record.get('record_key')} cannot be mirrored: {error!r}")
            return
        self.seen = (run.tags.get("machine_key", ""), run.tags.get("protocol_hash", ""))
        with self._connection.guard(f"mirroring {run.name}"):
            self._connect()
            if identity(record) not in self._done:
                run_id = self._log_case(run)
                self._remember(record, run_id)

    def pending(self, store: Store) -> Sequence[Record]:
        """The readable records of a results folder that this place does not have; asks a server that was away again."""
        self._connection.retry_now()
        with self._connection.guard("looking for what is to be mirrored"):
            self._connect()
        missing = {name: head for name, head in store.heads([]).items() if head.content_hash not in self._done}
        return Stored(store, [name for name, head in missing.items() if self._suite in (None, head.suite)])

    def is_settled(self, store: Store, suite: str, report: str | None) -> bool:
        """Whether an earlier sweep of the suite ended here with every record and this report, told without MLflow.

        Args:
            store: of the results folder.
            suite: whose sweep it is.
            report: what tells the report from others; empty for none, None where that is not known.
        """
        place = self._connection.known_destination()
        if not place or not self._has_ended(place, suite, report):
            return False
        there = self._mirrored(place)
        return all(head.content_hash in there for head in store.heads([]).values() if self._suite in (None, head.suite))

    def has_ended(self, suite: str, report: str | None) -> bool:
        """Whether a sweep of the suite ended with this report at the place that is connected, and none began since."""
        place = self._connection.destination
        return bool(place) and self._has_ended(place, suite, report)

    def end(self, suite: str, report: str | None) -> None:
        """Note in the ledger that a sweep ended, and with which report; without the note it is only told again."""
        with suppress(ResultsError):
            self._ledger.append("ended", destination=self._connection.destination, suite=suite, report=report)

    def _has_ended(self, place: str, suite: str, report: str | None) -> bool:
        last: Any = None
        for entry in self._ledger.read().entries:
            if entry.get("destination") == place:
                if entry["event"] == "mirrored":  # of a sweep that may not have come to its end
                    last = None
                elif entry["event"] == "ended" and entry.get("suite") == suite:
                    last = entry.get("report")
        return last is not None and report is not None and report in ("", last)

    def _mirrored(self, place: str) -> set[str]:
        """Content hashes of the records that are there, as the ledger says."""
        return {
            str(entry["content_hash"])
            for entry in self._ledger.read().events("mirrored")
            if entry.get("destination") == place and "content_hash" in entry
        }

    def _connect(self) -> None:
        """Have a connection, and what the ledger says of the place that it leads to."""
        self._connection.connect()
        place = self._connection.destination
        if self._done_at == place:
            return
        self._done = self._mirrored(place)
        self._done_at = place

    def _log_case(self, run: TrackedRun) -> str:
        """Bring one case over and give the run's id; a run that a killed driver left half written is completed."""
        run_id = None
        for old in self._connection.search(f"tags.record_key = '{run.tags['record_key']}'"):
            if old.data.tags.get("content_hash") != run.tags["content_hash"]:
                self._connection.client.set_tag(old.info.run_id, KIND, SUPERSEDED_KIND)
            elif old.info.status != "RUNNING":
                return str(old.info.run_id)
            else:
                run_id = old.info.run_id
        new = run_id is None
        run_id = str(run_id or self._create(run))
        self._log_data(run_id, run, new)
        log_files(self._connection, run_id, run.files)
        self._connection.client.set_terminated(run_id, run.status, end_time=run.ended_ms)
        return run_id

    def _create(self, run: TrackedRun) -> Any:
        parent = self._parent()
        tags = {**run.tags, "mlflow.parentRunId": parent}
        created = self._connection.client.create_run(
            self._connection.experiment_id, start_time=run.started_ms, tags=tags, run_name=run.name
        )
        return created.info.run_id

    def _log_data(self, run_id: str, run: TrackedRun, new: bool) -> None:
        """All numbers, params and data; the fixed time stamps make a repetition change nothing."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        model_id = self._model_of(run_id, run, new)
        metrics = [
            Metric(name, value, run.started_ms or 0, 0, model_id=None if name.split("/")[0] in FOLDED else model_id)
            for name, value in run.metrics.items()
        ]
        metrics += [Metric(p.name, p.value, p.moment_ms or run.started_ms or 0, p.step) for p in run.points]
        params = [Param(name, value) for name, value in run.params.items()]
        client = self._connection.client
        client.log_batch(run_id, metrics=metrics[:METRICS_PER_REQUEST], params=params[:PARAMS_PER_REQUEST])
        for start in range(METRICS_PER_REQUEST, len(metrics), METRICS_PER_REQUEST):
            client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])
        if run.data is not None:
            data = Dataset(run.data.name, run.data.digest, "local", run.data.about)
            client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "evaluation")])])

    def _model_of(self, run_id: str, run: TrackedRun, new: bool) -> str | None:
        """The id of the logged model of a case that has numbers, made with its settings if there is none yet."""
        from mlflow.entities import LoggedModelOutput

        if not run.metrics:
            return None
        client = self._connection.client
        outputs = None if new else client.get_run(run_id).outputs
        if outputs is not None and outputs.model_outputs:
            return str(outputs.model_outputs[0].model_id)
        made = client.create_logged_model(
            self._connection.experiment_id,
            name=re.sub(r"[^\w() =,-]", "_", run.name),
            source_run_id=run_id,
            params={name: run.params[name] for name in MODEL_PARAMS if name in run.params},
            model_type="subject",
        )
        client.finalize_logged_model(made.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
        return str(made.model_id)

    def _remember(self, record: Record, run_id: str) -> None:
        """Note in the ledger that a record is there; without the note it would only be looked for again."""
        self._done.add(identity(record))
        self._ledger.append(
            "mirrored",
            destination=self._connection.destination,
            record_key=record["record_key"],
            content_hash=identity(record),
            run_id=run_id,
        )


def run_at(uri: str, record: Record, derived: Mapping[str, float] | None = None) -> TrackedRun:
    """The run that mirrors a record at an address, with the metrics that follow from it and another.

    Where others read it too, it is without folders and names, but found by the same hash.
    """
    if uri.startswith("sqlite"):
        return describe(record, derived)
    run = describe(redacted(record if "content_hash" in record else seal(record)), derived)
    return replace(run, tags={**run.tags, "content_hash": identity(record)})


def log_files(connection: Connection, run_id: str, files: dict[str, str], folder: str | None = None) -> None:
    """Add texts to a run as artifacts.

    Args:
        connection: to MLflow.
        run_id: of the run.
        files: text by path within the folder.
        folder: of the run's artifacts; default their root.
    """
    with tempfile.TemporaryDirectory(prefix="waterline-") as place:
        for name, text in files.items():
            path = Path(place) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        connection.client.log_artifacts(run_id, place, folder)
