"""The mirror in MLflow: one parent run per sweep, one child per case; records stay the truth.

The only module that imports MLflow, and only when a mirror is opened. A tracking server that is away costs seconds,
never a record: what could not be mirrored stays pending and goes over when the server is back.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import socket
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from bench.canonical import digest
from bench.errors import UsageError
from bench.host.personal import redacted
from bench.store.journal import Journal
from bench.store.records import Record, Store, seal
from bench.tracking.mlflow_view import VIEW_LIMIT, VIEW_TAG, view_key, view_state, view_url
from bench.tracking.single_page import one_page
from bench.tracking.tracked_run import (
    CASE_KIND,
    KIND,
    SUPERSEDED_KIND,
    SWEEP_KIND,
    TrackedRun,
    cut,
    describe,
    identity,
)

LEDGER = "mirrored.jsonl"
UI_HOST, UI_PORT = "127.0.0.1", 5000
PARAMS_PER_REQUEST = 100

#: The kind of experiment whose page shows runs and charts.
PAGE_KIND = ("mlflow.experimentKind", "custom_model_development")

#: MLflow's words for "the data is wrong": another try would not help, and the server is not away.
REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "REQUEST_LIMIT_EXCEEDED"})
#: A database that is damaged, locked or full; MLflow calls that a bad request as well.
DATABASE_BROKEN = re.compile(r"\b(DatabaseError|OperationalError)\)")
RETRY_AFTER_S = 30.0
PROBE_TIMEOUT_S = 2.0
SITE_FILES, SITE_BYTES = 500, 100 * 2**20

#: Set before MLflow is imported; a user's own values win, except that nothing ever reports home.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

#: Two processes and 0.5 GB instead of eleven and 2.1 GB.
SERVER_SETTINGS = {**NO_TELEMETRY, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class Mirror:
    """A copy of records in MLflow; every method returns soon and none raises because of MLflow.

    Args:
        uri: `sqlite:///file`, `http(s)://server` or a database address that MLflow takes.
        experiment: the experiment's name; made if it is not there.
        artifact_root: where artifacts go; ignored for a server, which decides itself.
        results_root: the results folder; a ledger of what has been mirrored is kept in it.
        clock: seconds that only grow; replaced in tests.

    Raises:
        UsageError: the address is none that MLflow takes.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        artifact_root: Path | str,
        results_root: Path | str,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.uri = check_uri(uri)
        self.experiment = experiment
        self._complaints: list[str] = []
        self._outage: str | None = None
        self._artifact_root = Path(artifact_root)
        self._results_root = Path(results_root)
        self._ledger = Journal(self._results_root / LEDGER)
        self._clock = clock
        self._retry_at = float("-inf")
        self._client: Any = None
        self._experiment_id: str | None = None
        self._destination = ""
        self._done: set[str] = set()
        self._parent: str | None = None
        self._sweep: tuple[str, dict[str, Any], int] | None = None
        self._seen = ("", "")

    # -- what the driver calls ----------------------------------------------------------------------------------

    @property
    def problems(self) -> list[str]:
        """What the user should know: an outage that still lasts, records that MLflow would not take."""
        return [*([self._outage] if self._outage else []), *self._complaints]

    def start_sweep(self, suite: str, config: dict[str, Any], cases: int) -> None:
        """Begin a sweep: end what a killed driver left running; the parent run is made with its first case.

        Args:
            suite: the suite's name.
            config: the composed configuration, plain JSON types.
            cases: how many cases the sweep has, present ones included.
        """
        self._sweep, self._parent = (suite, config, cases), None
        with self._guard("starting the sweep"):
            self._connect()
            self._end_stale_parents()

    def log_record(self, record: Record) -> None:
        """Mirror one record, unless it is there already; while MLflow is away the record stays pending."""
        try:
            run = self._described(record)
        except (KeyError, TypeError, ValueError) as error:
            self._complain(f"record {record.get('record_key')} cannot be mirrored: {error!r}")
            return
        self._seen = (run.tags.get("machine_key", ""), run.tags.get("protocol_hash", ""))
        with self._guard(f"mirroring {run.name}"):
            self._connect()
            if identity(record) not in self._done:
                run_id = self._log_case(run)
                self._remember(record, run_id)

    def _described(self, record: Record) -> TrackedRun:
        """The run that mirrors a record; where others read it too, without folders and names, but found by the same hash."""
        if self.uri.startswith("sqlite"):
            return describe(record)
        run = describe(redacted(record if "content_hash" in record else seal(record)))
        return replace(run, tags={**run.tags, "content_hash": identity(record)})

    def pending(self, store: Store) -> list[Record]:
        """The readable records of a results folder that this place does not have; asks a server that was away anew."""
        self._retry_at = float("-inf")
        with self._guard("looking for what is to be mirrored"):
            self._connect()
        return [record for record in store.iterate([]) if identity(record) not in self._done]

    def finish(self, site_index: Path | None = None, *, interrupted: bool = False) -> None:
        """End the sweep's run with the report as its artifact; without new cases the last sweep's run gets it.

        Args:
            site_index: the report's first page; its folder is uploaded whole, or as one archive if it is large.
            interrupted: the sweep was stopped before its end.
        """
        with self._guard("ending the sweep"):
            self._connect()
            parent = self._parent or self._last_parent() or self._make_parent()
            if site_index is not None:
                self._log_site(parent, Path(site_index))
            if self._parent is not None:
                self._client.set_terminated(parent, "KILLED" if interrupted else "FINISHED")
            self._leave_view()

    def link(self, base: str | None = None) -> str:
        """The address that opens the sweep's cases as charts, all on one level; only the server's page while away.

        Args:
            base: where the interface is served; default the server, or this machine's port 5000 for a database.
        """
        base = (base or front(self.uri)).rstrip("/")
        with self._guard("making the link"):
            self._connect()
            suite = self._sweep[0] if self._sweep else ""
            key = view_key(suite) if suite and self._has_view(suite) else None
            return view_url(base, self._experiment_id, self._case_filter(), key)
        return base

    # -- reaching MLflow ----------------------------------------------------------------------------------------

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        """Keep MLflow's failures from the driver; one that is not about the data starts a rest before the next try."""
        try:
            yield
        except _Away:
            return
        except Exception as error:
            if getattr(error, "error_code", None) in REFUSALS and not DATABASE_BROKEN.search(str(error)):
                self._complain(f"MLflow refused {doing}: {_first_line(error)}")
                return
            self._client, self._retry_at = None, self._clock() + RETRY_AFTER_S
            self._outage = (
                f"MLflow at {display(self.uri)} failed while {doing} ({_first_line(error)}); every record is kept in "
                f"{self._results_root} and the next run mirrors what is missing"
            )

    def _complain(self, text: str) -> None:
        if text not in self._complaints:
            self._complaints.append(text)

    def _connect(self) -> None:
        """Have a client and an experiment.

        Raises:
            _Away: MLflow failed a moment ago.
            Exception: whatever MLflow raises where it cannot be reached.
        """
        if self._clock() < self._retry_at:
            raise _Away
        if self._client is not None:
            return
        _check_reachable(self.uri)
        client = _client(self.uri)
        experiment = self._find_experiment(client)
        self._experiment_id = experiment.experiment_id
        self._destination = digest([display(self.uri), experiment.experiment_id, experiment.creation_time])
        self._done = {
            entry["content_hash"]
            for entry in self._ledger.read().events("mirrored")
            if entry.get("destination") == self._destination and "content_hash" in entry
        }
        self._client, self._outage = client, None

    def _find_experiment(self, client: Any) -> Any:
        """The experiment by its name, made or brought back if need be, and marked so that its page shows runs."""
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            place = None if self.uri.startswith("http") else self._artifact_place()
            with suppress(Exception):  # another driver may be making it at this moment; what counts is that it is there
                client.create_experiment(self.experiment, artifact_location=place)
            found = client.get_experiment_by_name(self.experiment)
            if found is None:
                raise RuntimeError(f"experiment {self.experiment!r} could not be made")
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        if found.tags.get(PAGE_KIND[0]) != PAGE_KIND[1]:
            client.set_experiment_tag(found.experiment_id, *PAGE_KIND)
        self._check_place(str(found.artifact_location))
        return found

    def _check_place(self, location: str) -> None:
        """Say so if an embedded database was moved: MLflow keeps writing artifacts where the experiment was made."""
        if self.uri.startswith("sqlite") and location.startswith("file://") and location != self._artifact_place():
            self._complain(
                f"MLflow keeps artifacts of {self.experiment!r} in {location.removeprefix('file://')}, where it was made; "
                f"to have them in {self._artifact_root}, move the database away: the next run mirrors everything anew"
            )

    def _artifact_place(self) -> str:
        return (self._artifact_root.resolve() / re.sub(r"[^\w.-]", "_", self.experiment)).as_uri()

    def _search(self, *conditions: str, newest: int = 1000) -> list[Any]:
        """Runs of the experiment that meet every condition, newest first."""
        return list(
            self._client.search_runs(
                [self._experiment_id],
                filter_string=" and ".join(conditions),
                max_results=newest,
                order_by=["attributes.start_time DESC"],
            )
        )

    # -- cases --------------------------------------------------------------------------------------------------

    def _log_case(self, run: TrackedRun) -> str:
        """Bring one case over and give the run's id; a run that a killed driver left half written is completed."""
        run_id = None
        for old in self._search(f"tags.record_key = '{run.tags['record_key']}'"):
            if old.data.tags.get("content_hash") != run.tags["content_hash"]:
                self._client.set_tag(old.info.run_id, KIND, SUPERSEDED_KIND)
            elif old.info.status != "RUNNING":
                return str(old.info.run_id)
            else:
                run_id = old.info.run_id
        run_id = run_id or self._create(run)
        self._log_data(run_id, run)
        self._log_files(run_id, run.files)
        self._client.set_terminated(run_id, run.status, end_time=run.ended_ms)
        return str(run_id)

    def _create(self, run: TrackedRun) -> Any:
        parent = self._parent or self._make_parent()
        tags = {**run.tags, "mlflow.parentRunId": parent}
        created = self._client.create_run(self._experiment_id, start_time=run.started_ms, tags=tags, run_name=run.name)
        return created.info.run_id

    def _log_data(self, run_id: str, run: TrackedRun) -> None:
        """All numbers and params in one request; the fixed time stamp makes a repetition change nothing."""
        from mlflow.entities import Metric, Param

        metrics = [Metric(name, value, run.started_ms or 0, 0) for name, value in run.metrics.items()]
        params = [Param(name, value) for name, value in run.params.items()]
        self._client.log_batch(run_id, metrics=metrics, params=params[:PARAMS_PER_REQUEST])

    def _log_files(self, run_id: str, files: dict[str, str], folder: str | None = None) -> None:
        with tempfile.TemporaryDirectory(prefix="waterline-") as place:
            for name, text in files.items():
                (Path(place) / name).write_text(text, encoding="utf-8")
            self._client.log_artifacts(run_id, place, folder)

    def _remember(self, record: Record, run_id: str) -> None:
        """Note in the ledger that a record is there; without the note it would only be looked for again."""
        self._done.add(identity(record))
        self._ledger.append(
            "mirrored",
            destination=self._destination,
            record_key=record["record_key"],
            content_hash=identity(record),
            run_id=run_id,
        )

    # -- sweeps -------------------------------------------------------------------------------------------------

    def _make_parent(self) -> str:
        """Make the run of this sweep: its configuration as params and file, who drives it, and what to look at."""
        suite, config, cases = self._sweep or ("records", {}, 0)
        moment = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        tags = {
            KIND: SWEEP_KIND,
            "suite": suite,
            "cases": str(cases),
            "driver": _driver(),
            "mlflow.source.name": f"waterline-bench suite={suite}",
            "mlflow.source.type": "LOCAL",
            "mlflow.note.content": (
                f"A sweep of suite {suite}: {cases} cases, one child run each. "
                "The report's first page is the artifact `report.html`; the whole report is the folder `site`."
            ),
        }
        created = self._client.create_run(self._experiment_id, tags=tags, run_name=f"sweep {suite} · {moment}")
        self._parent = str(created.info.run_id)
        from mlflow.entities import Param

        shown = without_folders(config)
        params = [Param(name, cut(str(value), 500)) for name, value in _flat(shown)][:PARAMS_PER_REQUEST]
        self._client.log_batch(self._parent, params=params)
        self._log_files(self._parent, {"config.json": json.dumps(shown, indent=1, sort_keys=True)})
        return self._parent

    def _last_parent(self) -> str | None:
        suite = self._sweep[0] if self._sweep else "records"
        found = self._search(f"tags.`{KIND}` = '{SWEEP_KIND}'", f"tags.suite = '{suite}'", newest=1)
        return str(found[0].info.run_id) if found else None

    def _end_stale_parents(self) -> None:
        """Mark as killed what a driver of this host that is no more left running."""
        for run in self._search(f"tags.`{KIND}` = '{SWEEP_KIND}'", "attributes.status = 'RUNNING'"):
            if _is_dead(run.data.tags.get("driver", "")):
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _log_site(self, parent: str, index: Path) -> None:
        """The report's first page as one file that MLflow can show, and its folder, as one archive if it is large."""
        page = one_page(index)
        if page is not None:
            self._log_files(parent, {"report.html": page})
        files = [path for path in index.parent.rglob("*") if path.is_file()]
        if len(files) <= SITE_FILES and sum(path.stat().st_size for path in files) <= SITE_BYTES:
            self._client.log_artifacts(parent, str(index.parent), "site")
            return
        with tempfile.TemporaryDirectory(prefix="waterline-") as place:
            archive = Path(place) / "site.zip"
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
                for path in sorted(files):
                    made.write(path, path.relative_to(index.parent))
            self._client.log_artifact(parent, str(archive))

    # -- the view -----------------------------------------------------------------------------------------------

    def _case_filter(self) -> str:
        """The cases that belong on one chart: this suite's, on this machine, under this protocol."""
        conditions = [f"tags.`{KIND}` = '{CASE_KIND}'"]
        if self._sweep:
            conditions.append(f"tags.suite = '{self._sweep[0]}'")
        machine, protocol = self._seen
        conditions += [f"tags.machine_key = '{machine}'"] if machine else []
        conditions += [f"tags.protocol_hash = '{protocol}'"] if protocol else []
        return " and ".join(conditions)

    def _leave_view(self) -> None:
        """Leave the chart view of this suite where the link finds it, if this sweep brought something to see."""
        if self._sweep is None or self._parent is None:
            return
        names = {name for run in self._search(self._case_filter(), newest=100) for name in run.data.metrics}
        state = view_state(self._case_filter(), names)
        if names and len(state) <= VIEW_LIMIT:
            self._client.set_experiment_tag(self._experiment_id, VIEW_TAG + view_key(self._sweep[0]), state)

    def _has_view(self, suite: str) -> bool:
        return VIEW_TAG + view_key(suite) in self._client.get_experiment(self._experiment_id).tags


class _Away(Exception):
    """MLflow failed a moment ago; nothing to tell that has not been told."""


def check_uri(uri: str) -> str:
    """The address, if MLflow can keep runs there.

    Raises:
        UsageError: it is a folder or something else that MLflow does not take.
    """
    if not re.match(r"^(https?|sqlite|postgresql(\+\w+)?|mysql(\+\w+)?)://", uri):
        raise UsageError(
            f"tracking.uri={uri!r} is no address that MLflow takes; use sqlite:///path/mlflow.db, http://host:port "
            "or leave it out for the embedded database"
        )
    return uri


def display(uri: str) -> str:
    """The address without user name and password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def front(uri: str) -> str:
    """Where the interface of an address is served."""
    return display(uri) if uri.startswith("http") else f"http://{UI_HOST}:{UI_PORT}"


def ui_command(
    uri: str, *, experiment: str = "waterline", suite: str | None = None, port: int | None = None
) -> tuple[list[str], dict[str, str], str]:
    """How to start MLflow's interface: command, what to add to the environment, and the address to open.

    The command is empty where the address is a server that runs already. The server listens on this machine alone.

    Args:
        uri: the mirror's address.
        experiment: whose view the address opens.
        suite: show only this suite's cases.
        port: where to listen; default 5000, or a free port if that is taken.
    """
    check_uri(uri)
    if uri.startswith("http"):
        return [], {}, _view_of(uri, experiment, suite, front(uri))
    port = port or _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", UI_HOST, "--port", str(port)]
    return command, dict(SERVER_SETTINGS), _view_of(uri, experiment, suite, f"http://{UI_HOST}:{port}")


def _view_of(uri: str, experiment: str, suite: str | None, base: str) -> str:
    """The link to an experiment's cases, or the front page if there is no such experiment yet."""
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if database is not None and not database.exists():
        return base
    try:
        _check_reachable(uri)
        found = _client(uri).get_experiment_by_name(experiment)
    except Exception:
        return base
    if found is None:
        return base
    conditions = [f"tags.`{KIND}` = '{CASE_KIND}'"] + ([f"tags.suite = '{suite}'"] if suite else [])
    key = view_key(suite) if suite and VIEW_TAG + view_key(suite) in found.tags else None
    return view_url(base, found.experiment_id, " and ".join(conditions), key)


def _free_port() -> int:
    """Port 5000, or one that is free."""
    for port in (UI_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind((UI_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RuntimeError("no free port")


def _client(uri: str) -> Any:
    """An MLflow client that is quiet, reports nothing home and gives up soon."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.update(NO_TELEMETRY)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _check_reachable(uri: str) -> None:
    """Fail within two seconds where nothing listens, which MLflow would take far longer to say.

    Raises:
        OSError: nothing listens there.
    """
    if uri.startswith("http"):
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=PROBE_TIMEOUT_S).close()


def _host() -> str:
    """A token of this host that does not tell its name."""
    return digest(platform.node())


def _driver() -> str:
    """This process, so that another can tell whether it still lives."""
    process = psutil.Process()
    return f"{_host()}:{process.pid}:{process.create_time():.0f}"


def _is_dead(driver: str) -> bool:
    """Whether a driver of this host has ended; drivers of other hosts are taken to live."""
    host, _, process = driver.partition(":")
    pid, _, born = process.partition(":")
    if host != _host() or not pid.isdigit() or not born.isdigit():
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - int(born)) > 2
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def without_folders(value: Any) -> Any:
    """Configuration without the folders of this machine: of an absolute path only its last part stays."""
    if isinstance(value, dict):
        return {name: without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and re.match(r"^(/|~|[A-Za-z]:\\|\w+:///)", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return display(value) if isinstance(value, str) else value


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif name:
        yield re.sub(r"[^\w./ -]", "_", name), value


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return cut(display(text.splitlines()[0]), 300) if text else type(error).__name__
