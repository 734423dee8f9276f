"""The embedded database: looked at before MLflow opens it, which would try ten times, and never left half made."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.errors import UsageError

SQLITE = "sqlite:///"
#: Seconds to wait for another process that is writing.
PATIENCE_S = 2.0
#: Signs that an address cannot hold in a path: the database would be made elsewhere, or not at all.
SIGNS = "?#%"


def path_of(uri: str) -> Path | None:
    """The file of an embedded database; None for any other address."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def address_of(file: Path) -> str:
    """The address of an embedded database.

    Raises:
        UsageError: the path has a sign that no address can hold.
    """
    odd = next((sign for sign in str(file) if sign in SIGNS), None)
    if odd is not None:
        raise UsageError(
            f'tracking.folder: MLflow takes no database in {file.parent}, because of the "{odd}" in that path; '
            "name another folder, or say tracking=off"
        )
    return f"{SQLITE}{file}"


def check_database(file: Path) -> None:
    """Raise OSError within seconds unless the file is a whole database of MLflow's, or is not there."""
    if not os.path.lexists(file):
        return
    if not file.is_file():
        raise OSError(f"{file} is no regular file; move it away")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=PATIENCE_S)) as database:
            tables = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
            unfinished = bool(tables) and (
                "alembic_version" not in tables or not database.execute("select 1 from alembic_version").fetchone()
            )
    except sqlite3.Error as error:
        raise OSError(f"{file} cannot be opened as a database ({error}); if that lasts, move it away") from error
    if unfinished:
        raise OSError(f"{file} was left half made, by a disk that was full or a kill; move it away")


def make_database(file: Path, open_client: Callable[[str], Any]) -> None:
    """Make the database beside and give it its name when it is whole; nothing if there is one.

    Args:
        file: where it is to be.
        open_client: opens MLflow at an address.
    """
    if os.path.lexists(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        client = open_client(f"{SQLITE}{beside}")
        client.get_experiment_by_name("Default")  # the first question makes all tables
        _let_go(client)
        check_database(beside)
        with suppress(FileExistsError):  # another driver was quicker, and its database is as good
            os.link(beside, file)
    finally:
        for left in file.parent.glob(f"{beside.name}*"):
            left.unlink(missing_ok=True)


def _let_go(client: Any) -> None:
    """Close the connections to a file that is about to lose its name."""
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    engine = getattr(store, "engine", None)
    if engine is not None:
        engine.dispose()
