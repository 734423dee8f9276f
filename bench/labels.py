"""Labels of a row: what its subject says of how it ran. They belong to the row, not to the case's key.

`execution` decides what a row may claim and what it may be ranked with; `kernel` says which kernel runs a sparse or
structured network. A subject says them as attributes of its module, `module.execution = "simulated"`; a method sets
them on the module that it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.errors import UsageError, did_you_mean

REAL, SIMULATED, MODELLED = "real", "simulated", "modelled"
#: Low-bit networks that run as they claim, by what their products are executed in.
REAL_INT, REAL_FP8, DEQUANT = "real-int", "real-fp8", "dequant"

#: Per label its values with their meaning.
LABELS: dict[str, dict[str, str]] = {
    "execution": {
        REAL: "what is timed computes what the row is about",
        REAL_INT: "packed whole numbers, multiplied as whole numbers: it claims bytes, time and quality",
        REAL_FP8: "8-bit floats, multiplied in units for 8-bit floats",
        DEQUANT: "packed codes in memory, unpacked and multiplied as floats: it claims bytes, time and quality",
        SIMULATED: (
            "what is timed imitates it (rounded values in floats, zeros that are multiplied): it claims no speed"
        ),
        MODELLED: "nothing was run: a cost model or another row's numbers",
    },
    "kernel": {
        "mask": "zeros in a dense kernel",
        "slim": "a smaller dense network",
        "csr": "rows of stored values (torch's CSR)",
        "bsr": "stored blocks (torch's BSR)",
        "gather": "kept columns gathered, then a dense product",
        "semi24": "2 of 4 values stored, in a GPU's own units",
        "lscd": "stored sparse, unpacked tile by tile, then a dense product",
        "runtime": "a sparse kernel of an outside runtime",
    },
}
#: The value of a label that a subject does not say; None where the label then has no meaning.
DEFAULTS: dict[str, str | None] = {"execution": REAL, "kernel": None}

#: Why a row of another execution has no part in a claim of speed.
NO_SPEED = {
    SIMULATED: "the execution is simulated: its time is the cost of the simulation, which claims no speed",
    MODELLED: "the execution is modelled: nothing was timed",
}


def labels_of(module: Any) -> dict[str, str | None]:
    """What a module says of itself, by label, defaults filled in.

    Raises:
        UsageError: a value that the label does not have; the message names the nearest.
    """
    found = {}
    for label, values in LABELS.items():
        value = getattr(module, label, None)
        if value is None:
            value = DEFAULTS[label]
        elif not isinstance(value, str) or value not in values:
            raise UsageError(f'{label} "{value}" of {type(module).__name__}: {did_you_mean(str(value), values)}')
        found[label] = value
    return found


def label_of(record: Mapping[str, Any], label: str) -> str | None:
    """A label of a record; the default in one that was written before there were labels."""
    value = (record.get("labels") or {}).get(label)
    return DEFAULTS[label] if value is None else str(value)
