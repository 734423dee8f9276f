"""Which rows may be ranked together: equal conditions make a group, and a group says how it differs from the others.

The conditions are those of the table of axes, of the side that a row is compared with: rows that `against` names one
side for stand together, whatever their own model, backend or dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.config import axes
from bench.host.identity import machine_class, machine_make
from bench.labels import NO_SPEED, REAL, label_of
from reports.rows import Row
from reports.words import takes


@dataclass(frozen=True)
class Axis:
    """A condition that must be equal before two rows may stand in one ranking."""

    key: str
    title: str
    read: Callable[[Row], Any]
    show: Callable[[Any], str] = str


def _protocol(row: Row) -> str:
    protocol = row.record.get("protocol") or {}
    return f"{protocol.get('name', 'unnamed')} v{protocol.get('version', '?')} ({str(protocol.get('hash', ''))[:6]})"


def machine_title(record: dict[str, Any]) -> str:
    """The machine in a few words: the GPU that computed or the CPU's model, else the machine's key."""
    return machine_make(record) or f"machine {record['machine_key'][:8]}"


def machine_line(record: dict[str, Any]) -> str:
    """The hardware of a record in one line: processor, cores, memory, GPUs."""
    return machine_class(record.get("environment") or {})


def _axis(axis: axes.Axis) -> Axis:
    """A condition of the table of axes, read of the side that a row is compared with (`against`)."""
    return Axis(axis.name, axis.title, lambda row: getattr(row.side, axis.name), axis.show)


AXES: tuple[Axis, ...] = (
    Axis("machine", "machine", lambda row: (row.machine_key, machine_title(row.record)), lambda value: value[1]),
    Axis("suite", "suite", lambda row: row.case.suite),
    *(_axis(axis) for axis in axes.AXES if axis.condition),
    Axis(
        "execution",
        "execution",
        lambda row: str(label_of(row.record, "execution")),
        lambda value: f"{value}: claims no speed" if value in NO_SPEED else value,
    ),
    Axis("protocol", "protocol", _protocol, lambda value: f"protocol {value}"),
)


def conditions_of(row: Row) -> tuple[Any, ...]:
    """The row's value of every axis, in their order; read once."""
    if not row.conditions:
        row.conditions = tuple(axis.read(row) for axis in AXES)
    return row.conditions


def _said(axis: Axis, value: Any, row: Row) -> bool:
    """Whether a condition in which groups do not differ is worth a word: unusual in value, meaningful here."""
    if axis.key == "execution":
        return bool(value != REAL)
    if axis.key == "suite":
        return False
    known = axes.BY_NAME.get(axis.key)
    if known is None or not known.condition:
        return True
    if axis.key == "resolution" and not takes(row.case, axis.key):
        return False
    return not known.quiet or (value != known.default and not known.source)


@dataclass(frozen=True)
class Group:
    """Rows of equal conditions: `parts` are all conditions in words, `differs` those in which groups are unequal.

    `said` are those that are worth a word: what is not the usual value or differs between groups of one suite.
    """

    index: int
    suite: str
    title: str
    parts: dict[str, str]
    said: dict[str, str]
    differs: tuple[str, ...]
    machine: str
    size: int
    noise_floor: tuple[float, float] | None


def group(rows: list[Row]) -> list[Group]:
    """The groups of `rows`, suite by suite; every row's `group` is set to the index of its own.

    Inside a suite timed groups come first, then the largest.
    """
    by_suite: dict[str, list[Row]] = {}
    for row in rows:
        by_suite.setdefault(row.case.suite, []).append(row)
    groups: list[Group] = []
    for suite in sorted(by_suite):
        groups += _of_suite(suite, by_suite[suite], first=len(groups))
    return groups


def _of_suite(suite: str, rows: list[Row], first: int) -> list[Group]:
    """The groups of the rows of one suite, numbered from `first`."""
    members: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        members.setdefault(conditions_of(row), []).append(row)
    timed = {key: any(map(is_timed, found)) for key, found in members.items()}
    keys = sorted(members, key=lambda key: (not timed[key], -len(members[key]), tuple(str(part) for part in key)))
    varying = {axis.key for place, axis in enumerate(AXES) if len({key[place] for key in keys}) > 1}
    groups = []
    for index, key in enumerate(keys, first):
        for row in members[key]:
            row.group = index
        groups.append(_describe(index, suite, key, members[key], varying))
    return groups


def is_timed(row: Row) -> bool:
    """Whether processes were timed for a row; one of the protocol `counts` is counted only."""
    return bool((row.record.get("timing") or {}).get("invocations"))


def _describe(index: int, suite: str, key: tuple[Any, ...], rows: list[Row], varying: set[str]) -> Group:
    parts = {axis.key: axis.show(value) for axis, value in zip(AXES, key, strict=True)}
    said = {
        axis.key: parts[axis.key]
        for axis, value in zip(AXES, key, strict=True)
        if axis.key in varying or _said(axis, value, rows[0])
    }
    return Group(
        index=index,
        suite=suite,
        title=" · ".join(filter(None, said.values())),
        parts=parts,
        said=said,
        differs=tuple(filter(None, (parts[axis.key] for axis in AXES if axis.key in varying))),
        machine=machine_line(rows[0].record),
        size=len(rows),
        noise_floor=_noise_floor(rows),
    )


def _noise_floor(rows: list[Row]) -> tuple[float, float] | None:
    """The widest A/A interval among the rows' timing groups, None where no twin was timed."""
    floors = [(row.record.get("timing") or {}).get("noise_floor") or {} for row in rows]
    lows = [floor["low"] for floor in floors if floor.get("low") is not None]
    highs = [floor["high"] for floor in floors if floor.get("high") is not None]
    return (min(lows), max(highs)) if lows and highs else None
