"""Numbers that a subject states of itself, each by a convention of its own: never compared with what is measured.

A module has them as attributes or properties of these names; None is no statement, and neither is a ratio to noise that
is infinite because a rounding changed nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bench.errors import UsageError
from bench.metrics import METRICS
from bench.reading import Provenance, Reading, reading


@dataclass(frozen=True)
class Statement:
    """Where a stated number is from and its convention; `signed` where it may be below 0."""

    provenance: Provenance
    note: str
    signed: bool = False


#: Attribute and metric -> what its value is.
STATED: dict[str, Statement] = {
    "engine_peak_bytes": Statement("modelled", "by the subject's formula of an int8 engine; nothing of it was run"),
    "promised_saved_bytes": Statement("modelled", "by the subject's formula, of one sample; nothing of it was run"),
    "im2row_bytes": Statement("counted", "rows of the layer that has most, by its shape, of one sample"),
    "kept_bytes": Statement("counted", "storages that survive a task, as the subject names them"),
    "weight_sqnr_db": Statement("measured", "float weights against what is multiplied, over all rounded layers", True),
    "activation_sqnr_db": Statement("measured", "inputs of all rounded layers, on what calibrated them", True),
    "product_sqnr_db": Statement("measured", "float product of the same numbers against that of the format", True),
    "gradient_sqnr_db": Statement("measured", "gradients of all weights of one batch against those of fp32", True),
    "rebuilding_error": Statement("measured", "of a chain's states, on the network's own example inputs"),
    "zero_share": Statement("measured", "of the inputs of all rounded layers, on what calibrated them"),
    "forgetting": Statement("measured", "by the accuracies after each task, on held-out samples", True),
}  # fmt: skip


def readings(module: Any) -> list[Reading]:
    """A reading for each number that the module states; none where it states none.

    Raises:
        UsageError: a value that is no number, or below 0 or infinite where that cannot be.
    """
    found = []
    for name, told in STATED.items():
        value = getattr(module, name, None)
        if value is None or (told.signed and value in (math.inf, -math.inf)):
            continue
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not known or (value < 0 and not told.signed):
            what = f"a number of {METRICS[name].unit}{'' if told.signed else ' from 0 on'}"
            raise UsageError(f"{name} of {type(module).__name__} is {value!r}, not {what}")
        found.append(reading(name, float(value), told.provenance, method_note=told.note))
    return found
