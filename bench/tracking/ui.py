"""MLflow's interface: how to start it, and the address that shows an experiment's cases."""

from __future__ import annotations

import socket
import sys
from typing import Any

from bench.errors import UsageError
from bench.tracking.connection import (
    ANSWER_S,
    NO_TELEMETRY,
    check_reachable,
    check_uri,
    display,
    import_mlflow,
    open_client,
)
from bench.tracking.database import path_of
from bench.tracking.deadline import Late, deadline
from bench.tracking.mlflow_view import VIEW_TAG, view_key, view_url
from bench.tracking.tracked_run import CASE_KIND, KIND

UI_HOST, UI_PORT = "127.0.0.1", 5000

#: Two processes and 0.5 GB instead of eleven and 2.1 GB.
SERVER_SETTINGS = {**NO_TELEMETRY, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


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
        experiment: whose view the address opens; where it is not there, the newest of ours.
        suite: show only this suite's cases.
        port: where to listen; default 5000, or a free port if that is taken.

    Raises:
        UsageError: the address is none that MLflow takes, or the database cannot be opened as it is.
    """
    check_uri(uri)
    if uri.startswith("http"):
        return [], {}, _view_of(uri, experiment, suite, front(uri))
    _check_openable(uri)
    port = port or _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", UI_HOST, "--port", str(port)]
    return command, dict(SERVER_SETTINGS), _view_of(uri, experiment, suite, f"http://{UI_HOST}:{port}")


def _check_openable(uri: str) -> None:
    """Raise UsageError if MLflow would try a database in vain, or bring an old one up to date without being asked."""
    import_mlflow()
    try:
        with deadline(ANSWER_S):
            check_reachable(uri)
    except (Exception, Late) as error:
        raise UsageError(f"job=ui: {display(str(error))}") from error


def _view_of(uri: str, experiment: str, suite: str | None, base: str) -> str:
    """The link to an experiment's cases, or the front page if there is no such experiment yet."""
    database = path_of(uri)
    if database is not None and not database.exists():
        return base
    try:
        import_mlflow()
        with deadline(ANSWER_S):
            check_reachable(uri)
            found = _experiment(open_client(uri), experiment)
    except (Exception, Late):
        return base
    if found is None:
        return base
    # of a suite that left no view there is nothing to see
    possible = [suite, found.name.removeprefix(view_key(""))]
    known = next((name for name in possible if name and VIEW_TAG + view_key(name) in found.tags), None)
    conditions = [f"tags.`{KIND}` = '{CASE_KIND}'"] + ([f"tags.suite = '{known}'"] if known else [])
    key = view_key(known) if known else None
    return view_url(base, found.experiment_id, " and ".join(conditions), key)


def _experiment(client: Any, name: str) -> Any | None:
    """The experiment of that name, else the newest of ours; None where there is none."""
    ours = {
        "filter_string": f"name LIKE '{view_key('')[:-1]}%'",
        "order_by": ["last_update_time DESC"],
        "max_results": 1,
    }
    return client.get_experiment_by_name(name) or next(iter(client.search_experiments(**ours)), None)


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
