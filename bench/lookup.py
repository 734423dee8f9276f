"""Look-ups by name in the tables of the rooms: an unknown name is an error that names the nearest."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType

from bench.errors import UsageError, no_such


def module_of(kind: str, name: str, table: Mapping[str, str]) -> ModuleType:
    """The module that a table holds under this name, or that a dotted path of one's own leads to.

    Args:
        kind: what the table is of, for the error: `workload`, `backend`, `executor`.
        name: a key of the table, or a dotted path.
        table: dotted paths of modules by name.

    Raises:
        UsageError: there is no such name, or the module cannot be imported.
    """
    if name not in table and "." not in name:
        raise UsageError(no_such(kind, name, table))
    path = table.get(name, name)
    if not all(part.isidentifier() for part in path.split(".")):
        raise UsageError(f'{kind} "{name}" is neither the name of one nor a dotted path to a module of your own')
    try:
        return importlib.import_module(path)
    except Exception as error:  # of whatever kind: the module is the user's
        raise UsageError(f'{kind} "{name}": the module cannot be imported: {type(error).__name__}: {error}') from error
