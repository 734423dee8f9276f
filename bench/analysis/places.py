"""Where rows were measured: classes of machines, and the device of a machine that ran the case.

A class is the label that a pool gave its machines (`pool.json`), else their make: processor, cores, memory and GPUs in
one line. Machines of one class may differ in software, and so in their key; rows of two keys are never ranked together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.host.identity import machine_class, machine_make
from bench.store.records import Record


@dataclass(frozen=True)
class Place:
    """A class of machines and the kind of device of it that computed.

    Attributes:
        key: tells places apart.
        title: in a few words: the label, else the GPU's or the processor's name.
        line: the hardware in one line, of its newest record.
        label: of a pool; empty without one.
        device: `cpu` or `cuda`.
        machines: keys of its machines.
        software: what differs most often between places of one hardware, of its newest record: name and version.
    """

    key: str
    title: str
    line: str
    label: str
    device: str
    machines: tuple[str, ...]
    software: tuple[tuple[str, str], ...]


def places(records: Iterable[Record], labels: Mapping[str, str]) -> dict[str, Place]:
    """The places of the records by their key.

    Args:
        records: of any machines.
        labels: of machines by their key, as `bench.store.classes.by_machine` gives them.
    """
    members: dict[str, list[Record]] = {}
    for record in records:
        members.setdefault(place_key(record, labels), []).append(record)
    titles = _titles({key: _title(own, labels) for key, own in members.items()})
    return {key: _place(key, titles[key], own, labels) for key, own in sorted(members.items(), key=lambda it: it[0])}


def place_key(record: Record, labels: Mapping[str, str]) -> str:
    """The class of the record's machine and the kind of its device."""
    label = labels.get(str(record["machine_key"]), "")
    name = f"label {label}" if label else machine_class(record.get("environment") or {})
    return f"{name} | {device_of(record)} | {part_of(record)}"


def part_of(record: Record) -> str:
    """How many processors of the machine the row could use, where that is not all: a pinned slot is another machine."""
    cpu = (record.get("environment") or {}).get("cpu") or {}
    usable, there = cpu.get("usable_cores"), cpu.get("logical_cores")
    return f"{usable} of {there} processors" if usable and there and usable < there else ""


def device_of(record: Record) -> str:
    """The kind of device that computed: `cpu` or `cuda`, whichever of several boards it was."""
    return str((record.get("case") or {}).get("device", "cpu")).partition(":")[0]


def _place(key: str, title: str, own: Sequence[Record], labels: Mapping[str, str]) -> Place:
    newest = max(own, key=lambda record: str(record["started_at"]))
    return Place(
        key,
        title,
        machine_class(newest.get("environment") or {}),
        labels.get(str(newest["machine_key"]), ""),
        device_of(newest),
        tuple(sorted({str(record["machine_key"]) for record in own})),
        _software(newest),
    )


def _title(own: Sequence[Record], labels: Mapping[str, str]) -> str:
    newest = max(own, key=lambda record: str(record["started_at"]))
    label = labels.get(str(newest["machine_key"]), "")
    if label:
        return label if device_of(newest) == "cpu" else f"{label} ({device_of(newest)})"
    named = machine_make(newest) or f"machine {str(newest['machine_key'])[:8]}"
    return ", ".join(filter(None, [named, part_of(newest)]))


def _titles(short: Mapping[str, str]) -> dict[str, str]:
    """The titles, numbered where two places would have one."""
    taken = list(short.values())
    seen: dict[str, int] = {}
    found = {}
    for key in sorted(short):
        title = short[key]
        seen[title] = seen.get(title, 0) + 1
        found[key] = title if taken.count(title) == 1 else f"{title} ({seen[title]})"
    return found


def _software(record: Record) -> tuple[tuple[str, str], ...]:
    environment, code = record.get("environment") or {}, record.get("code") or {}
    packages: Mapping[str, Any] = environment.get("packages") or {}
    commit = str(code.get("commit") or "")[:12]
    known = {
        "instrument": " ".join(filter(None, [str(code.get("version") or ""), commit])),
        "Python": str(environment.get("python") or ""),
        "torch": str(packages.get("torch") or ""),
    }
    return tuple((name, value or "unknown") for name, value in known.items())
