"""Dense and non-zero products beside the executed ones, for subjects that name their kernel (`bench.labels`).

Masked zeros in a dense kernel are executed in full, so dense and executed are equal there and only the non-zero count
falls; a sparse layout executes what it stores, and the trace knows the dense size too. What the trace cannot know, the
subject declares: `module.macs_dense` and `module.macs_nonzero`, MACs per sample, a number or a mapping by part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.meters.count_summary import is_below, method_paths
from bench.meters.macs_count import MacsCount
from bench.reading import Reading, reading, unavailable

NAMES = ("macs_dense", "macs_nonzero")
#: Kernels whose operators the trace counts with their dense size: what is there is multiplied, or stored in torch's
#: layouts.
TRACED = ("mask", "slim", "csr", "bsr", "semi24")
DECLARE = "declare it as module.{name}"


def readings(count: MacsCount, module: Any, kernel: str | None, part: str, batch: int) -> list[Reading]:
    """`macs_dense` and `macs_nonzero` of one part, per sample; empty without a kernel or a declaration.

    Args:
        count: of the part's whole batch.
        module: the subject's, which may declare the counts.
        kernel: its label.
        part: of the workload.
        batch: samples that the count is of.
    """
    counts = {name: declared(module, name, part) for name in NAMES}
    if kernel is None and not any(value is not None for value in counts.values()):
        return []
    return [
        reading(name, value, "counted", method_note="declared by the subject")
        if (value := counts[name]) is not None
        else _traced(name, count, module, kernel, batch)
        for name in NAMES
    ]


def declared(module: Any, name: str, part: str) -> float | None:
    """What a module declares under this name, for this part where it tells parts apart; None where it does not."""
    value = getattr(module, name, None)
    if isinstance(value, Mapping):
        value = value.get(part)
    if value is None or callable(value):
        return None
    return float(value)


def _traced(name: str, count: MacsCount, module: Any, kernel: str | None, batch: int) -> Reading:
    """One of the counts from the trace, or why it cannot be known from there."""
    if kernel not in TRACED:
        kind = "no kernel is named" if kernel is None else f"the trace cannot see into a {kernel} kernel"
        return unavailable(name, f"{kind}; {DECLARE.format(name=name)}")
    if name == "macs_nonzero" and count.device == "meta" and kernel in ("mask", "slim"):
        why = "weights have no values on the meta device, so zeros cannot be seen"
        return unavailable(name, f"{why}; {DECLARE.format(name=name)}, or measure the case")
    charged = method_paths(module)
    own = [record for record in count.records if not is_below(record.path, charged)]
    if name == "macs_dense":
        value = float(sum(record.dense_macs for record in own))
        note = "every operator at the size of its dense operands"
    else:
        value = sum(record.macs if record.nonzero_macs is None else record.nonzero_macs for record in own)
        note = "MACs x share of non-zero weights, operator by operator; products without a weight in full"
        note += "; stored entries of a sparse layout count as non-zero" if kernel in ("csr", "bsr", "semi24") else ""
    lead = "at least; " if count.at_least else ""
    return reading(name, value / batch, "counted", method_note=lead + note)
