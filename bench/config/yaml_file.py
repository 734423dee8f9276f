"""A mapping from a YAML file, read quickly; every key once, and errors that name file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UsageError
from bench.foreign_files import read_regular

#: Bytes of a file that people write by hand.
MOST_BYTES = 4 * 2**20
#: Values that a file may unfold to.
MOST_VALUES = 100_000
#: Brackets, lists and mappings inside one another; the C reader calls itself for each and would overflow its stack.
MOST_NESTED = 200

_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # without libyaml PyYAML has only the slow one


class Loader(_Fast):
    """PyYAML's safe loader, in C where there is one, that refuses a key given twice in one mapping."""

    def construct_document(self, node: yaml.Node) -> Any:
        """The document's value; keys are looked at before merges (`<<`) put further ones beside them."""
        for mapping in _mappings(node):
            _check_keys(mapping)
        return super().construct_document(node)


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Every mapping of a document once, however many anchors refer to it."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _check_keys(mapping: yaml.MappingNode) -> None:
    """Raise ConstructorError unless every key of the mapping is given once."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name = (key.tag, key.value)
        line = key.start_mark.line + 1
        if name in lines:
            problem = f'the key "{key.value}" stands there twice, first in line {lines[name]}'
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        lines[name] = line


def read_yaml(file: Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises:
        UsageError: the file is not YAML, not a mapping, or gives a key twice; the message names file and line.
    """
    try:
        text = read_regular(file, MOST_BYTES).decode()
        _check_nesting(text, file)
        content = yaml.load(text, Loader)  # a subclass of the safe loader
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{file}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        # PyYAML lets these through: a date that is none, a tag that does not fit its value
        raise UsageError(f"{file}: a value in it is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{file}: must be a mapping of keys to values")
    _check_size(content, file)
    return content


def _check_nesting(text: str, file: Path) -> None:
    """Raise UsageError unless the document is nested to a depth that can be read."""
    depth = 0
    for event in yaml.parse(text, _Fast):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_NESTED:
            line = event.start_mark.line + 1
            raise UsageError(f"{file}, line {line}: nested more than {MOST_NESTED} deep; write it flatter")


def _check_size(content: Any, file: Path) -> None:
    """Raise UsageError if the file unfolds without end: its anchors refer to themselves or multiply."""
    waiting, seen = [content], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise UsageError(
                f"{file}: more than {MOST_VALUES} values, or an anchor that refers to itself; write it out"
            )
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value


def first_text(file: Path, key: str) -> str | None:
    """The plain value of a key of the outermost mapping, read no further than there; None where it is not to be had."""
    try:
        with file.open(encoding="utf-8") as stream:
            return _scan(yaml.parse(stream, _Fast), key)
    except (OSError, ValueError, yaml.YAMLError):
        return None  # who reads the whole file says what is wrong with it


def _scan(events: Iterator[Any], key: str) -> str | None:
    """The text behind the key: of the nodes right inside the outermost mapping every other one is a key."""
    depth, nodes, found = 0, 0, False
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.NodeEvent):
            if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
                return None
            if depth == 1 and found:
                return event.value if isinstance(event, yaml.ScalarEvent) else None
            if depth == 1:
                nodes += 1
                found = nodes % 2 == 1 and isinstance(event, yaml.ScalarEvent) and event.value == key
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
    return None


def names_under(file: Path, key: str) -> list[str]:
    """The keys of the mapping under a key of the outermost mapping, read no further than to its end; [] without one.

    What stands behind them is not looked at: who reads the whole file says what is wrong with it.
    """
    try:
        with file.open(encoding="utf-8") as stream:
            return list(_keys_under(yaml.parse(stream, _Fast), key))
    except (OSError, ValueError, yaml.YAMLError):
        return []


def _keys_under(events: Iterator[Any], key: str) -> Iterator[str]:
    """Every other node right inside the mapping that follows the key."""
    depth, outer, inner, inside = 0, 0, 0, False
    for event in events:
        ends = isinstance(event, yaml.CollectionEndEvent)
        depth -= ends
        if inside and ends and depth == 1:
            return
        if not isinstance(event, yaml.NodeEvent):
            continue
        scalar = isinstance(event, yaml.ScalarEvent)
        if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
            return
        if depth == 1:
            outer += 1
            is_key = outer % 2 == 1
            inside = inside or (is_key and scalar and event.value == key)
            if inside and not is_key and not isinstance(event, yaml.MappingStartEvent):
                return
        elif inside and depth == 2:
            inner += 1
            if inner % 2 == 1 and scalar and event.value != "<<":
                yield event.value
        depth += isinstance(event, yaml.CollectionStartEvent)
