"""Classes of machines: which machines have rows under which label of a pool, kept beside the records in `pool.json`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.store.foreign import CorruptRecord, read_json
from bench.store.records import write_json

FILE = "pool.json"
#: Labels as `executor.label` takes them, keys as machines have them; the empty label is that of a pool without one.
_LABEL, _KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,99})?"), re.compile(r"[A-Za-z0-9_-]{1,80}")

#: Label -> keys of machines.
Classes = dict[str, list[str]]


def read(root: Path) -> Classes:
    """The machines of a results folder by label; empty where no pool measured into it, or nothing readable says so."""
    try:
        value = read_json(root / FILE)
    except CorruptRecord:
        return {}
    return value if is_classes(value) else {}


def write(root: Path, classes: Mapping[str, Sequence[str]]) -> None:
    """Keep them.

    Raises:
        OSError: the file cannot be written.
    """
    write_json(root / FILE, {label: list(keys) for label, keys in classes.items()})


def is_classes(value: Any) -> bool:
    """Whether this has the shape that readers rely on, whoever made it."""
    return isinstance(value, dict) and all(
        _LABEL.fullmatch(label) and isinstance(keys, list) and all(map(_is_key, keys)) for label, keys in value.items()
    )


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def joined(several: Iterable[Classes]) -> Classes:
    """The machines of every label, each once, in the order in which they come."""
    found: Classes = {}
    for classes in several:
        for label, keys in classes.items():
            found[label] = list(dict.fromkeys([*found.get(label, []), *keys]))
    return found


def by_machine(classes: Classes) -> dict[str, str]:
    """Key of a machine -> its label; a machine under several has all, and one without a label none."""
    found: dict[str, list[str]] = {}
    for label, keys in classes.items():
        for key in keys if label else ():
            found.setdefault(key, []).append(label)
    return {key: ", ".join(sorted(labels)) for key, labels in found.items()}
