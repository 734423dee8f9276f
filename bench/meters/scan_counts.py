"""Products of selective scans beside all others, and the bytes that their orders move.

Published counts of scan networks differ by what they say of the scan, so the two are told apart. A module that runs a
recurrence says `counts_as = "macs_scan"`; what is multiplied below it is states that are read. A module whose orders
move a map offers `moves(shape) -> bytes`, per sample, of one call on an input of a shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bench.meters.count_summary import is_below
from bench.meters.macs_count import MacsCount
from bench.reading import Reading, reading, unavailable

NAMES = ("macs_products", "macs_scan", "scan_outputs", "moved_bytes")


def readings(count: MacsCount, module: Any, batch: int) -> list[Reading]:
    """`NAMES` of one part, per sample; empty for networks without scans.

    Args:
        count: of the part's whole batch.
        module: the subject's.
        batch: samples that the count is of.
    """
    scans = {path: part for path, part in module.named_modules() if getattr(part, "counts_as", None) == "macs_scan"}
    if not scans:
        return []
    if any(getattr(part, "kernel", None) == "runtime" for part in scans.values()):
        why = "the trace cannot see into a fused scan; the same network with scan=parallel has the same counts"
        return [unavailable(name, why) for name in NAMES[:3]]
    if any(record.phase != "forward" and record.macs for record in count.records):
        why = "the products of a backward are not told apart by scans: read the part `forward`"
        return [unavailable(name, why) for name in NAMES]
    states = sum(record.macs for record in count.records if is_below(record.path, list(scans)))
    found = [
        reading("macs_products", (count.macs - states) / batch, "counted", method_note="all but the scans"),
        reading("macs_scan", states / batch, "counted", method_note=f"states read by {len(scans)} modules"),
        reading("scan_outputs", _outputs(count, scans) / batch, "counted", method_note="of scans with states"),
    ]
    moving = {path: part.moves for path, part in module.named_modules() if callable(getattr(part, "moves", None))}
    if moving:
        visits = [(count.visits[path], moves) for path, moves in moving.items() if path in count.visits]
        moved = sum(visit.calls * moves(visit.input_shapes[0]) for visit, moves in visits)
        note = "gathers and the ways back in float32, 16 K D L a layer, as the layers declare for their maps"
        found.append(reading("moved_bytes", moved, "counted", method_note=note))
    return found


def _outputs(count: MacsCount, scans: Iterable[str]) -> int:
    """Elements that the scans put out; a control without states is no scan."""
    visits = [count.visits[path] for path in scans if path in count.visits]
    read = {record.path for record in count.records if record.macs}
    return sum(visit.calls * math.prod(visit.output_shapes[0]) for visit in visits if visit.path in read)
