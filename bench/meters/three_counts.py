"""Dense and non-zero products beside the executed ones, for subjects that name their kernel (`bench.labels`).

Masked zeros in a dense kernel are executed in full, so dense and executed are equal there and only the non-zero count
falls; a sparse layout executes what it stores, and the trace knows the dense size too. What the trace cannot know, the
subject declares: `module.macs_dense` and `module.macs_nonzero`, MACs per sample, a number or a mapping by part; or, on
a layer anywhere inside, `weight_counts`, its weights `dense`, `nonzero` and `executed`, by whose ratios the products of
that layer are scaled: so a kernel of one's own, and a mask on the meta device, are known layer by layer.

The backward of a training step has two more products for each of a layer's forward: one gives the gradient of its
weight, the other that of its input. A trace sees zeros of stored weights there and no more. A layer that trains under a
mask says in `weight_counts` for how many weights a gradient is wanted (`trained`), and through how many the gradient
of its input flows where these are not zeros that are stored (`returned`): products of the others are not non-zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from bench.meters.count_summary import is_below, method_paths
from bench.meters.macs_count import MacsCount
from bench.reading import Reading, reading, unavailable

NAMES = ("macs_dense", "macs_nonzero")
#: Kernels whose operators the trace counts with their dense size: what is there is multiplied, or stored in torch's
#: layouts.
TRACED = ("mask", "slim", "csr", "bsr", "semi24")
DECLARE = "declare it as module.{name}"
#: What a layer that trains under a mask tells beside its weights, and the parts of a run that have a backward.
OF_GRADIENTS = ("trained", "returned")
STEP, BACKWARD = "step", "backward"


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
        else _traced(name, count, module, kernel, part, batch)
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


def _traced(name: str, count: MacsCount, module: Any, kernel: str | None, part: str, batch: int) -> Reading:
    """One of the counts from the trace, or why it cannot be known from there."""
    scaled = _layers_told(module)
    if kernel not in TRACED and not scaled:
        kind = "no kernel is named" if kernel is None else f"the trace cannot see into a {kernel} kernel"
        return unavailable(name, f"{kind}; {DECLARE.format(name=name)}")
    if name == "macs_nonzero" and (why := _hidden(count, kernel, part, scaled)):
        return unavailable(name, f"{why}; {DECLARE.format(name=name)}, or measure the case")
    charged = method_paths(module)
    own = [record for record in count.records if not is_below(record.path, charged)]
    if name == "macs_dense":
        value = sum((_of_layer(record, scaled, "dense", record.dense_macs) for record in own), Fraction(0))
        note = "every operator at the size of its dense operands"
    else:
        seen = ((r, float(r.macs if r.nonzero_macs is None else r.nonzero_macs)) for r in own)
        value = sum((_of_layer(record, scaled, "nonzero", found) for record, found in seen), Fraction(0))
        value -= _without_gradient(own, scaled) if part == STEP else 0
        note = "MACs x share of non-zero weights, operator by operator; products without a weight in full"
        note += "; stored entries of a sparse layout count as non-zero" if kernel in ("csr", "bsr", "semi24") else ""
    lead = "at least; " if count.at_least else ""
    return reading(name, float(value / batch), "counted", method_note=lead + note)


def _hidden(count: MacsCount, kernel: str | None, part: str, scaled: Mapping[str, Mapping[str, int]]) -> str:
    """Why non-zero products cannot be told from dense ones; empty where they can."""
    on_meta = count.device == "meta"
    if on_meta and kernel in ("mask", "slim") and not scaled:
        return "weights have no values on the meta device, so zeros cannot be seen"
    if not any(name in counts for counts in scaled.values() for name in OF_GRADIENTS):
        return ""
    if part == BACKWARD:
        return "which products of a backward are gradients of masked weights is known of a whole step alone"
    if on_meta and part == STEP:
        return "weights have no values on the meta device, so a backward's zeros cannot be seen"
    return ""


def _without_gradient(records: Sequence[Any], layers: Mapping[str, Mapping[str, int]]) -> Fraction:
    """Products of a step's backward that make gradients of masked weights, or pass through them unseen."""
    found = Fraction(0)
    for path, counts in layers.items():
        made = sum(Fraction(record.macs) for record in records if is_below(record.path, [path]))
        found += sum(made * (1 - _share(counts, name)) for name in OF_GRADIENTS if name in counts)
    return found


def _layers_told(module: Any) -> dict[str, Mapping[str, int]]:
    """Path -> `weight_counts` of the layers that tell them."""
    told = ((path, getattr(part, "weight_counts", None)) for path, part in module.named_modules())
    return {path: counts for path, counts in told if isinstance(counts, Mapping)}


def _of_layer(record: Any, layers: Mapping[str, Mapping[str, int]], what: str, traced: float) -> Fraction:
    """Products of an operator at its layer's dense or non-zero weights; as traced outside such layers."""
    path = next((path for path in layers if is_below(record.path, [path])), None)
    if path is None or not record.macs:
        return Fraction(traced)
    counts = layers[path]
    return Fraction(record.macs) * _share(counts, what) if counts["executed"] else Fraction(0)


def _share(counts: Mapping[str, int], what: str) -> Fraction:
    """One of a layer's counts over those that are executed, exact, so that whole products stay whole numbers."""
    return Fraction(counts[what]) / Fraction(counts["executed"])
