"""What a method cost beforehand, as readings: from `module.method_cost`, which `bench.costs` writes."""

from __future__ import annotations

import math
from typing import Any

from bench.errors import UsageError, did_you_mean
from bench.reading import Reading, reading, unavailable

#: Keys of `module.method_cost` by the metric that they give.
FIELDS = {
    "method_seconds": "seconds",
    "method_forwards": "forwards",
    "method_backwards": "backwards",
    "method_peak_bytes": "peak_bytes",
    "method_samples": "samples",
    "method_macs_run": "macs",
}
#: Few methods count their products: where they do not, there is no reading rather than one without a value.
_OPTIONAL = "method_macs_run"
#: The rest is counted.
_MEASURED = ("method_seconds", "method_peak_bytes")
NOT_TOLD = "the method reports its cost, but not this"


def readings(module: Any) -> list[Reading]:
    """Five readings where the method reports its cost, six where it counts its products; none where it does not.

    Raises:
        UsageError: a key that no metric has, or a value that is no count.
    """
    cost = getattr(module, "method_cost", None)
    if cost is None:
        return []
    reported = dict(cost)
    note = str(reported.pop("note", ""))
    for name, value in reported.items():
        if name not in FIELDS.values():
            raise UsageError(f'method_cost: "{name}" is not reported; {did_you_mean(str(name), FIELDS.values())}')
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not _sound(value)):
            raise UsageError(f"method_cost: {name} is {value!r}, not a number from 0 on")
    return [
        _reading(metric, reported.get(name), note)
        for metric, name in FIELDS.items()
        if metric != _OPTIONAL or reported.get(name) is not None
    ]


def _reading(metric: str, value: float | None, note: str) -> Reading:
    if value is None:
        return unavailable(metric, note or NOT_TOLD)
    if metric in _MEASURED:
        return reading(metric, value, "measured", n=1, method_note=note)
    return reading(metric, value, "counted", method_note=note)


def _sound(value: float) -> bool:
    return math.isfinite(value) and value >= 0
