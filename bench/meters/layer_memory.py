"""Who holds the memory of a run: live bytes layer by layer, and their course over the run's operators.

Everything here is computed from a trace of `bench.meters.live` after the run. A layer's bytes are those of storages
that its own operators made, as long as they are alive: also where another layer reads them, or autograd keeps them.
What was there before the run (weights, buffers, inputs) belongs to no layer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.meters.live import Category, Event, Trace

#: What a layer's row of `bench.layers` holds of its memory.
COLUMNS = ("live_peak_bytes", "held_at_peak_bytes", "saved_bytes")
#: Points of the course that are kept; each stands for as many operators and holds the largest of their sums.
POINTS = 240


@dataclass(frozen=True)
class LayerBytes:
    """The memory of one layer in one run.

    Attributes:
        module_path: of the layer; empty for operators outside every named module.
        live_peak_bytes: the largest sum of all live bytes, weights and inputs included, while the layer's own operators
            ran: a run cannot fit where one of these does not.
        held_at_peak_bytes: bytes that the layer's operators made and that were alive at the peak of the whole run; with
            what was there before, these add up to the peak.
        saved_bytes: bytes that its operators made in the forward and that were alive when the backward began; None in a
            run without a backward.
    """

    module_path: str
    live_peak_bytes: int
    held_at_peak_bytes: int
    saved_bytes: int | None

    def as_row(self) -> dict[str, Any]:
        """The row as plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Course:
    """Live bytes over the operators of a run: `live_bytes[i]` is the largest sum up to operator `operators[i]`.

    `module_paths[i]` is the layer in which it was reached. Points stand for equally many operators each.
    """

    operators: tuple[int, ...]
    live_bytes: tuple[int, ...]
    module_paths: tuple[str, ...]


def by_layer(trace: Trace, resident: Mapping[Category, int]) -> tuple[LayerBytes, ...]:
    """A row for each layer whose own operators ran, in order of first execution.

    Args:
        trace: of one run.
        resident: bytes of what was alive all the time, by category.
    """
    sums, peak = _sums(trace, sum(resident.values()))
    live_peak: dict[str, int] = {}
    for (_, path), (_, largest) in zip(trace.operators, sums, strict=True):
        live_peak[path] = max(live_peak.get(path, 0), largest)
    held = _held_after(trace, peak)
    saved = None if trace.backward_at is None else _held_after(trace, _end_of(trace.events, trace.backward_at - 1))
    return tuple(
        LayerBytes(path, largest, held[path], None if saved is None else saved[path])
        for path, largest in live_peak.items()
    )


def course(trace: Trace, resident: Mapping[Category, int], points: int = POINTS) -> Course:
    """The live bytes over the run, in at most `points` points."""
    sums, _ = _sums(trace, sum(resident.values()))
    size = max(1, -(-len(sums) // points))
    ends, largest, paths = [], [], []
    for start in range(0, len(sums), size):
        part = range(start, min(start + size, len(sums)))
        top = max(part, key=lambda index: sums[index][1])
        ends.append(part[-1])
        largest.append(sums[top][1])
        paths.append(trace.operators[top][1])
    return Course(tuple(ends), tuple(largest), tuple(paths))


def joined(rows: Iterable[dict[str, Any]], memory: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a layer table with the columns of memory; None where the memory of a layer was not taken."""
    known = {row["module_path"]: row for row in memory}
    return [{**row, **{name: known.get(row["module_path"], {}).get(name) for name in COLUMNS}} for row in rows]


def _sums(trace: Trace, resident: int) -> tuple[list[tuple[int, int]], int]:
    """Of every operator the sum of live bytes after it and the largest while it ran; and the event of the peak.

    The event of the peak is the number of events that had happened when the largest sum was reached first.
    """
    of_operator: dict[int, list[tuple[int, Event]]] = defaultdict(list)
    for place, event in enumerate(trace.events):
        of_operator[event.operator].append((place, event))
    total, best, at = resident, resident, 0
    found = []
    for operator in range(-1, len(trace.operators)):
        largest = total
        for place, event in of_operator[operator]:
            total += event.size
            largest = max(largest, total)
            if total > best:
                best, at = total, place + 1
        if operator >= 0:
            found.append((total, largest))
    return found, at


def _end_of(events: Sequence[Event], operator: int) -> int:
    """How many events had happened when this operator and what followed from it was over."""
    return sum(1 for event in events if event.operator <= operator)


def _held_after(trace: Trace, events: int) -> Counter[str]:
    """Live bytes by the layer that made them, after so many events."""
    maker: dict[int, str] = {}
    held: Counter[str] = Counter()
    for event in trace.events[:events]:
        made_here = trace.operators[event.operator][1] if event.operator >= 0 else None
        path = maker.setdefault(event.storage, made_here) if made_here is not None else maker.get(event.storage)
        if path is not None:
            held[path] += event.size
    return held
