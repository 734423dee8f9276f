"""One run of a case as a trace that Perfetto and Chrome open: its layers in order, inside the modules they belong to.

The format is Chrome's trace events (JSON): complete events ("X") with microseconds. Layers are laid end to end in the
order of execution: their times come from a pass of its own with hooks, so that gaps between them are not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from bench.plan.case import Case
from bench.store.records import Record

NOTE = "layers laid end to end; times are medians of a separate pass with hooks, in which gaps are not seen"
Event = dict[str, Any]


def trace_of(record: Record) -> dict[str, Any] | None:
    """The trace of a record's timed layers, with the time outside of them at the end; None where none was timed."""
    timed = [row for row in record.get("layers") or [] if row.get("time_ms")]
    if not timed:
        return None
    label = Case.from_dict(record["case"]).label
    placed, clock = [], 0.0
    for row in timed:
        length = 1e3 * float(row["time_ms"])
        placed.append((_path(row), clock, length, row))
        clock += length
    events = [*_names(label), *_slices(placed, 0)]
    rest = (record.get("layers_info") or {}).get("unexplained_ms")
    if rest and rest > 0:
        events.append(_slice("outside the layers", clock, 1e3 * float(rest), {}))
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"case": label, "note": NOTE}}


Placed = tuple[tuple[str, ...], float, float, dict[str, Any]]


def _path(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get("module_path") or row.get("name") or "?").split("."))


def _names(label: str) -> list[Event]:
    return [
        {"ph": "M", "pid": 1, "tid": 1, "name": "process_name", "args": {"name": label}},
        {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "layers"}},
    ]


def _slices(placed: Sequence[Placed], depth: int) -> Iterator[Event]:
    """A slice for each layer, and around neighbours of one module a slice of that module."""
    for prefix, group in groupby(placed, key=lambda item: item[0][: depth + 1]):
        own = list(group)
        deeper = [item for item in own if len(item[0]) > depth + 1]
        if len(own) > 1 or deeper:
            start, end = own[0][1], own[-1][1] + own[-1][2]
            yield _slice(".".join(prefix), start, end - start, {})
        if deeper and len(deeper) == len(own):
            yield from _slices(own, depth + 1)
            continue
        for path, start, length, row in own:
            yield _slice(f"{'.'.join(path)} ({row.get('op') or 'layer'})", start, length, _arguments(row))


def _arguments(row: dict[str, Any]) -> dict[str, Any]:
    named = {"MACs": "macs", "bytes read": "read_bytes", "bytes written": "write_bytes", "dtype": "dtype"}
    return {title: row[key] for title, key in named.items() if row.get(key)}


def _slice(name: str, start: float, length: float, arguments: dict[str, Any]) -> Event:
    begin, end = round(start, 3), round(start + length, 3)  # ends are rounded, so that no slice reaches out of its own
    event = {"ph": "X", "pid": 1, "tid": 1, "name": name, "ts": begin, "dur": round(end - begin, 3)}
    return {**event, "args": arguments} if arguments else event
