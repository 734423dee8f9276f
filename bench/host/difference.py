"""What differs between two environments, as readable text."""

from __future__ import annotations

import re
from typing import Any

from bench.host.environment import Environment


def difference(a: Environment, b: Environment) -> list[tuple[str, str, str]]:
    """What differs between two environments: (what, in `a`, in `b`) as readable text, in a stable order.

    Lists of words are compared as sets, so that only the words that differ are shown. Reasons and private parts are
    not compared, nor how torch is built where only one side asked a process that had imported it.
    """
    ignored = {"torch"} if ("torch" in a) != ("torch" in b) else set()
    left, right = (_flatten({key: value for key, value in env.items() if key not in ignored}) for env in (a, b))
    rows = []
    for name in sorted(left.keys() | right.keys(), key=_order):
        one, two = left.get(name), right.get(name)
        if one == two:
            continue
        if _is_word_list(one) and _is_word_list(two):
            one, two = _set_difference(one, two), _set_difference(two, one)
            if not one and not two:
                continue
        rows.append((name, _display(one, name in left), _display(two, name in right)))
    return rows


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names; lists of mappings are numbered, other lists stay whole."""
    if isinstance(value, dict):
        items = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
        items = [(key, item) for key, item in items if key.split(".")[-1] not in ("unreadable", "private", "uuid")]
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = [(f"{name}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {name: value}
    return {key: leaf for inner, item in items for key, leaf in _flatten(item, inner).items()}


def _set_difference(words: Any, others: Any) -> list[str]:
    return sorted(set(words) - set(others))


def _is_word_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _order(name: str) -> tuple[int, str]:
    """Hardware first, then limits, then software: the likelier cause of a difference stands higher."""
    first = ("cpu", "gpus", "memory_bytes", "limits", "hypervisor", "container", "frequency", "memory", "gpu_driver",
             "os", "kernel", "distribution", "libc", "python", "torch", "packages", "variables")  # fmt: skip
    head = re.split(r"[.\[]", name)[0]
    return (first.index(head) if head in first else len(first), name)


def _display(value: Any, recorded: bool) -> str:
    if not recorded:
        return "not recorded"
    if value is None:
        return "unknown"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none of these"
    return str(value)
