"""Reaching MLflow: a client that is quiet and gives up soon, an experiment, and what happens while the server is away.

The only module that opens a client. A tracking server that is away costs seconds, never a record: what could not be
mirrored stays pending and goes over when the server is back.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.canonical import digest
from bench.errors import UsageError
from bench.tracking.database import check_database, check_served_database, experiment_in, make_database, path_of
from bench.tracking.deadline import Late, deadline
from bench.tracking.tracked_run import cut

#: The kind of experiment whose page shows runs and charts.
PAGE_KIND = ("mlflow.experimentKind", "custom_model_development")

#: MLflow's words for "the data is wrong": another try would not help, and the server is not away.
REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "REQUEST_LIMIT_EXCEEDED"})
#: A database that is damaged, locked or full; MLflow calls that a bad request as well.
DATABASE_BROKEN = re.compile(r"\b(DatabaseError|OperationalError)\)")
#: A server that keeps accounts, asked without one or with a wrong password.
NO_ACCOUNT = re.compile(r"error code 401\b|not authenticated|UNAUTHENTICATED")
RETRY_AFTER_S = 30.0
#: Seconds for a server to answer all that is asked at once, and for it to take the report; whatever it does meanwhile.
ANSWER_S, UPLOAD_S = 15.0, 120.0
#: Seconds for the embedded database, which makes its tables in them on a slow disk.
DATABASE_S = 120.0
PROBE_TIMEOUT_S = 2.0

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


class Away(Exception):
    """MLflow failed a moment ago; nothing to tell that has not been told."""


class Connection:
    """A client and an experiment, when they can be had; MLflow's failures stay here.

    Args:
        uri: `sqlite:///file`, `http(s)://server` or a database address that MLflow takes.
        experiment: the experiment's name; made if it is not there.
        artifact_root: where artifacts go; ignored for a server, which decides itself.
        results_root: the results folder, named where an outage is told.
        clock: seconds that only grow; replaced in tests.

    Raises:
        UsageError: the address is none that MLflow takes.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        artifact_root: Path,
        results_root: Path,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.uri = check_uri(uri)
        self.experiment = experiment
        self.client: Any = None
        self.experiment_id: str | None = None
        self.destination = ""
        self._artifact_root, self._results_root, self._clock = artifact_root, results_root, clock
        self._retry_at = float("-inf")
        self._complaints: list[str] = []
        self._outage: str | None = None
        self._failures = 0  # in a row: a server that never answers in time is asked less and less often

    @property
    def problems(self) -> list[str]:
        """What the user should know: an outage that still lasts, records that MLflow would not take."""
        return [*([self._outage] if self._outage else []), *self._complaints]

    def retry_now(self) -> None:
        """Let the next use ask MLflow again, also if it failed a moment ago."""
        self._retry_at = float("-inf")

    @contextmanager
    def guard(self, doing: str, seconds: float | None = None) -> Iterator[None]:
        """Keep MLflow's failures from the driver; one that is not about the data starts a rest before the next try.

        Args:
            doing: named where a failure is told.
            seconds: for all of it where a server is asked, default `ANSWER_S`; the embedded database has more.
        """
        import_mlflow()  # takes seconds by itself, which are no server's
        try:
            with deadline((seconds or ANSWER_S) if self.uri.startswith("http") else DATABASE_S):
                yield
        except Away:
            return
        except (Exception, Late) as error:
            if getattr(error, "error_code", None) in REFUSALS and not DATABASE_BROKEN.search(str(error)):
                self.complain(f"MLflow refused {doing}: {_first_line(error)}")
                return
            self.client, self._failures = None, self._failures + 1
            self._retry_at = self._clock() + RETRY_AFTER_S * 2 ** min(self._failures - 1, 5)
            self._outage = (
                f"MLflow at {display(self.uri)} failed while {doing} ({_first_line(error)}){_remedy(error)}; "
                f"every record is kept in {self._results_root} and the next run mirrors what is missing"
            )

    def complain(self, text: str) -> None:
        """Add something that the user should know, once."""
        if text not in self._complaints:
            self._complaints.append(text)

    def connect(self) -> None:
        """Have a client and an experiment.

        Raises:
            Away: MLflow failed a moment ago.
            Exception: whatever MLflow raises where it cannot be reached.
        """
        if self._clock() < self._retry_at:
            raise Away
        if self.client is not None:
            return
        check_reachable(self.uri)
        client = open_client(self.uri)
        experiment = self._find_experiment(client)
        self.experiment_id = experiment.experiment_id
        self.destination = self._destination(experiment.experiment_id, experiment.creation_time)
        self.client, self._outage, self._failures = client, None, 0

    def known_destination(self) -> str:
        """What `destination` would be, read from an embedded database without MLflow; empty where that is not known."""
        file = path_of(self.uri)
        found = None if file is None else experiment_in(file, self.experiment)
        return "" if found is None else self._destination(*found)

    def _destination(self, experiment_id: str, made_at: int) -> str:
        return digest([display(self.uri), experiment_id, made_at])

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
            self.complain(
                f"MLflow keeps artifacts of {self.experiment!r} in {location.removeprefix('file://')}, where it was "
                f"made; to have them in {self._artifact_root}, move the database away: the next run mirrors "
                "everything again"
            )

    def _artifact_place(self) -> str:
        return (self._artifact_root.resolve() / re.sub(r"[^\w.-]", "_", self.experiment)).as_uri()

    def search(self, *conditions: str, newest: int = 1000) -> list[Any]:
        """Runs of the experiment that meet every condition, newest first."""
        return list(
            self.client.search_runs(
                [self.experiment_id],
                filter_string=" and ".join(conditions),
                max_results=newest,
                order_by=["attributes.start_time DESC"],
            )
        )


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


def import_mlflow() -> Any:
    """MLflow's client class, imported quietly and with nothing reported home."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.update(NO_TELEMETRY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient


def open_client(uri: str) -> Any:
    """An MLflow client that is quiet, reports nothing home and gives up soon."""
    client = import_mlflow()
    file = path_of(uri)
    if file is not None:
        make_database(file, lambda beside: client(tracking_uri=beside, registry_uri=beside))
    return client(tracking_uri=uri, registry_uri=uri)


def check_reachable(uri: str) -> None:
    """Raise OSError, or a database driver's own error, unless a server listens or a database of this MLflow's is there.

    Within seconds, where MLflow would take minutes to say so; a file that is not there is none yet, and well.
    """
    file = path_of(uri)
    if file is not None:
        check_database(file)
    elif not uri.startswith("http"):
        check_served_database(uri)
    else:
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=PROBE_TIMEOUT_S).close()


def _remedy(error: BaseException) -> str:
    """What helps where the server asks for an account."""
    if not NO_ACCOUNT.search(str(error)):
        return ""
    return ": it asks for an account, set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return cut(display(text.splitlines()[0]), 600) if text else type(error).__name__
