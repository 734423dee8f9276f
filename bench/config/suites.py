"""Suite files as data: read, checked key by key, and put into the composed configuration only after Hydra is done.

Hydra gives meaning to what a configuration holds: a defaults list composes other files, `hydra.callbacks` names code to
run, `hydra.job.env_set` sets variables, `${oc.env:NAME}` reads them. Which of these, depends on its version. So Hydra
learns of a suite the names of its keys and grids, and nothing that the file says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.config.schema import Suite, explain
from bench.errors import UsageError, did_you_mean
from bench.foreign_text import escape_controls

Content = dict[str, Any]

#: A grid that the command line can name; the pattern keeps Hydra's own signs out of keys.
GRID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def read_suite(file: Path) -> Content:
    """What a suite file says, with its name; the folder's where the file has none.

    Raises:
        UsageError: it is no suite; the message names the file and the key.
    """
    from bench.config.yaml_file import read_yaml

    content = read_yaml(file)
    content = {**content, "name": content.get("name", file.parent.name)}
    _check_keys(content, file)
    for text in _texts(content):
        if "${" in text:
            raise UsageError(
                f'{file}: "{escape_controls(text)[:60]}" holds ${{, and nothing is interpolated in a suite file: write '
                "the value out"
            )
    try:
        Suite.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{file}: {explain(error, ('suite',))}") from error
    for grid in content["grids"]:
        if not GRID.fullmatch(grid):
            raise UsageError(
                f'{file}: the grid "{escape_controls(grid)[:60]}" is to be named with letters, digits, _ and -'
            )
    return content


def _check_keys(content: Content, file: Path) -> None:
    """Raise UsageError unless every key of the file is one of a suite's."""
    for key in content:
        if key == "defaults":
            raise UsageError(f"{file}: a suite file has no defaults list: it is data, and nothing is composed from it")
        if key not in Suite.model_fields:
            raise UsageError(
                f'{file}: unknown key "{escape_controls(key)[:60]}"; {did_you_mean(key, Suite.model_fields)}'
            )


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _texts(item)


def skeleton(content: Content) -> Content:
    """What Hydra may know of a suite, so that its keys can be overridden: their names and those of its grids."""
    grids = dict.fromkeys(content["grids"])
    return {**dict.fromkeys(Suite.model_fields), "name": content["name"], "grids": grids}


def filled(tree: Content, known: Mapping[str, Content], choice: Any = None) -> Content:
    """The composed tree with what the suite's file says wherever the command line says nothing.

    Args:
        tree: plain data, composed.
        known: of `read_suites`.
        choice: the name of the suite that was chosen; where it is no text, the one of the tree's `suite.name` is.

    Raises:
        UsageError: no suite was chosen.
    """
    suite = tree.get("suite")
    if not isinstance(suite, dict):
        raise UsageError(f"suite={suite!r} is none; name one with suite=...; {did_you_mean('', known)}")
    chosen = choice if isinstance(choice, str) else str(suite.get("name"))
    defined = known.get(chosen)
    if defined is None:
        return tree
    merged = {name: defined.get(name) if value is None else value for name, value in suite.items()}
    if isinstance(suite.get("grids"), dict):
        merged["grids"] = {
            name: defined["grids"].get(name) if value is None else value for name, value in suite["grids"].items()
        }
    return {**tree, "suite": {name: value for name, value in merged.items() if value is not None or _may_be_null(name)}}


def _may_be_null(key: str) -> bool:
    """Whether a suite without this key is one with null there."""
    return key not in Suite.model_fields or Suite.model_fields[key].default is None
