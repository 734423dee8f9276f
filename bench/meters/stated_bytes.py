"""Bytes that a subject states of itself, each by a convention of its own: never compared with what is measured.

`module.engine_peak_bytes` is what an engine of a microcontroller would need for its maps, by a formula;
`module.kept_bytes` is all that a continual learner keeps from one task to the next.
"""

from __future__ import annotations

import math
from typing import Any

from bench.errors import UsageError
from bench.reading import Provenance, Reading, reading

#: Attribute and metric -> where its value is from, and its convention.
STATED: dict[str, tuple[Provenance, str]] = {
    "engine_peak_bytes": ("modelled", "by the subject's formula of an int8 engine; nothing of it was run"),
    "kept_bytes": ("counted", "storages that survive a task, as the subject names them"),
}


def readings(module: Any) -> list[Reading]:
    """A reading for each kind of bytes that the module states; none where it states none.

    Raises:
        UsageError: a value that is no number of bytes.
    """
    found = []
    for name, (provenance, note) in STATED.items():
        value = getattr(module, name, None)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise UsageError(f"{name} of {type(module).__name__} is {value!r}, not a number of bytes from 0 on")
        found.append(reading(name, float(value), provenance, method_note=note))
    return found
