"""Which rows may be ranked together: equal conditions make a group, and a group says how it differs from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.host.identity import machine_class
from reports.rows import Row


@dataclass(frozen=True)
class Axis:
    """A condition that must be equal before two rows may stand in one ranking."""

    key: str
    title: str
    read: Callable[[Row], Any]
    show: Callable[[Any], str] = str


def _pixels(value: Any) -> str:
    return "input as given" if value is None else f"{value} px"


def _protocol(row: Row) -> str:
    protocol = row.record.get("protocol") or {}
    return f"{protocol.get('name', 'unnamed')} v{protocol.get('version', '?')} ({str(protocol.get('hash', ''))[:6]})"


def machine_title(record: dict[str, Any]) -> str:
    """The machine in a few words: the first GPU or the CPU's model, else the machine's key."""
    environment = record.get("environment") or {}
    gpus = environment.get("gpus") or []
    on_gpu = str((record.get("case") or {}).get("device", "cpu")) != "cpu"
    name = (gpus[0].get("name") if on_gpu and gpus else None) or (environment.get("cpu") or {}).get("model")
    return str(name or f"machine {record['machine_key'][:8]}")


def machine_line(record: dict[str, Any]) -> str:
    """The hardware of a record in one line: processor, cores, memory, GPUs."""
    return machine_class(record.get("environment") or {})


AXES: tuple[Axis, ...] = (
    Axis("machine", "machine", lambda row: (row.machine_key, machine_title(row.record)), lambda value: value[1]),
    Axis("device", "device", lambda row: row.case.device),
    Axis("dtype", "dtype", lambda row: row.case.dtype),
    Axis("batch", "batch", lambda row: row.case.batch, lambda value: f"batch {value}"),
    Axis("resolution", "resolution", lambda row: row.case.resolution, _pixels),
    Axis("task", "task", lambda row: row.case.task, lambda value: "no task" if value == "none" else f"task {value}"),
    Axis("threads", "threads", lambda row: row.case.threads, lambda n: f"{n} thread" + ("" if n == 1 else "s")),
    Axis("compile", "compilation", lambda row: row.case.compile, lambda value: f"compile {value}"),
    Axis("cuda_graphs", "CUDA graphs", lambda row: row.case.cuda_graphs, lambda on: f"CUDA graphs {'on' if on else 'off'}"),
    Axis("memory_format", "memory format", lambda row: row.case.memory_format),
    Axis("protocol", "protocol", _protocol, lambda value: f"protocol {value}"),
)  # fmt: skip

#: Said only when they are not the usual value or differ between groups.
_QUIET = {"threads", "compile", "cuda_graphs", "memory_format"}


@dataclass(frozen=True)
class Group:
    """Rows of equal conditions: `parts` are all conditions in words, `differs` those in which groups are unequal."""

    index: int
    title: str
    parts: dict[str, str]
    differs: tuple[str, ...]
    machine: str
    size: int
    noise_floor: tuple[float, float] | None


def group(rows: list[Row]) -> list[Group]:
    """The groups of `rows`, largest first; every row's `group` is set to the index of its own."""
    members: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        members.setdefault(tuple(axis.read(row) for axis in AXES), []).append(row)
    keys = sorted(members, key=lambda key: (-len(members[key]), tuple(str(part) for part in key)))
    varying = {axis.key for place, axis in enumerate(AXES) if len({key[place] for key in keys}) > 1}
    groups = []
    for index, key in enumerate(keys):
        for row in members[key]:
            row.group = index
        groups.append(_describe(index, key, members[key], varying))
    return groups


def _describe(index: int, key: tuple[Any, ...], rows: list[Row], varying: set[str]) -> Group:
    parts = {axis.key: axis.show(value) for axis, value in zip(AXES, key, strict=True)}
    said = [text for name, text in parts.items() if name in varying or name not in _QUIET]
    return Group(
        index=index,
        title=" · ".join(said),
        parts=parts,
        differs=tuple(parts[axis.key] for axis in AXES if axis.key in varying),
        machine=machine_line(rows[0].record),
        size=len(rows),
        noise_floor=_noise_floor(rows),
    )


def _noise_floor(rows: list[Row]) -> tuple[float, float] | None:
    """The widest A/A interval among the rows' timing groups, None where no twin was timed."""
    floors = [row.record.get("timing", {}).get("noise_floor") or {} for row in rows]
    lows = [floor["low"] for floor in floors if floor.get("low") is not None]
    highs = [floor["high"] for floor in floors if floor.get("high") is not None]
    return (min(lows), max(highs)) if lows and highs else None
