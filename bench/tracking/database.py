"""Databases, looked at before MLflow opens them: it would try a broken one ten times and change an old one unasked."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Callable, Set
from contextlib import closing, suppress
from functools import cache
from importlib.metadata import version
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
    """Raise OSError within seconds unless the file is a whole database of this MLflow's, or is not there."""
    if not os.path.lexists(file):
        return
    if not file.is_file():
        raise OSError(f"{file} is no regular file; move it away")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=PATIENCE_S)) as database:
            tables = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
            marked = "alembic_version" in tables
            found = {row[0] for row in database.execute("select version_num from alembic_version")} if marked else set()
    except sqlite3.Error as error:
        raise OSError(f"{file} cannot be opened as a database ({error}); if that lasts, move it away") from error
    if tables and not found:
        raise OSError(f"{file} was left half made, by a disk that was full or a kill; move it away")
    check_schema(found, f"{SQLITE}{file}")


def experiment_in(file: Path, name: str) -> tuple[str, int] | None:
    """Id and time of making (ms since 1970) of an experiment in an embedded database, read without MLflow.

    None where there is no such database, or no such experiment that is not deleted.
    """
    asked = "select experiment_id, creation_time from experiments where name = ? and lifecycle_stage = 'active'"
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=PATIENCE_S)) as database,
    ):
        rows = database.execute(asked, (name,)).fetchall()
        return (str(rows[0][0]), rows[0][1]) if len(rows) == 1 else None
    return None


def check_served_database(uri: str) -> None:
    """Raise OSError if a database behind an address such as `postgresql://...` has another schema than MLflow here.

    Raises:
        OSError: see above.
        Exception: whatever its driver raises where it cannot be reached.
    """
    import sqlalchemy
    from alembic.migration import MigrationContext

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    try:
        with engine.connect() as opened:
            check_schema(set(MigrationContext.configure(opened).get_current_heads()), uri)
    finally:
        engine.dispose()


def check_schema(found: Set[str], uri: str) -> None:
    """Raise OSError unless a database has the schema of the MLflow that is installed; one without any is new.

    MLflow would bring an older one up to date by itself as soon as it opens it, and the MLflow that made it, or a
    server that runs on it, could not read it any more: that is for its owner to decide.

    Args:
        found: its revisions, as alembic keeps them.
        uri: its address.
    """
    if not found:
        return
    known, heads = _revisions()
    if found == heads:
        return
    shown = re.sub(r"//[^/@]*@", "//", uri)
    here = f"MLflow {version('mlflow')}, which is installed"
    if found <= known:
        raise OSError(
            f"{shown} was made by an older MLflow than {here}, and is left as it is: back it up and run "
            f"`mlflow db upgrade {shlex.quote(shown)}`, name another with tracking.uri=..., or say tracking=off"
        )
    raise OSError(
        f"{shown} was made by a newer MLflow than {here}: bring MLflow up to date, name another database with "
        "tracking.uri=..., or say tracking=off"
    )


@cache
def _revisions() -> tuple[Set[str], Set[str]]:
    """Every revision of the schema that MLflow here knows, and the newest."""
    import mlflow
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return {script.revision for script in scripts.walk_revisions()}, set(scripts.get_heads())


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
