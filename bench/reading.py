"""One reading: one metric of one case with its unit, interval, provenance and note."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from bench.metrics import METRICS

Provenance = Literal["measured", "counted", "modelled", "estimated", "published", "unavailable"]
Status = Literal["ok", "oom", "timeout", "crashed", "unsupported", "invalid", "contaminated", "interrupted"]

PROVENANCES: tuple[str, ...] = get_args(Provenance)
STATUSES: tuple[str, ...] = get_args(Status)

#: Columns of the tidy table, in order; one row per reading.
COLUMNS: tuple[str, ...] = (
    "case_key", "suite", "model", "method", "setting", "baseline_key", "device", "dtype", "batch", "resolution",
    "task", "metric", "value", "unit", "ci_low", "ci_high", "n", "statistic", "provenance", "method_note", "status",
    "error", "protocol", "code_version", "machine_key", "started_at",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """A value in the metric's unit (`bench.metrics`) with its interval; or no value and the reason in `method_note`.

    `n` is the number of independent replicates behind the value; counted values have none and no interval.
    """

    metric: str
    value: float | None
    unit: str
    provenance: Provenance
    ci_low: float | None = None
    ci_high: float | None = None
    n: int | None = None
    statistic: str = ""
    method_note: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is not defined in bench.metrics")
        if self.unit != METRICS[self.metric].unit:
            raise ValueError(f"{self.metric} is in {METRICS[self.metric].unit!r}, not {self.unit!r}")
        if (self.value is None) != (self.provenance == "unavailable"):
            raise ValueError(f"{self.metric}: a missing value is 'unavailable' and the other way round")
        if self.value is None and not self.method_note:
            raise ValueError(f"{self.metric}: an unavailable value needs its reason in method_note")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric}: {self.value} is not a number to report; make it unavailable")

    def as_dict(self) -> dict[str, Any]:
        """The reading as plain JSON types."""
        return asdict(self)


def reading(metric: str, value: float, provenance: Provenance, **rest: Any) -> Reading:
    """A reading in the metric's own unit; `rest` are further fields of `Reading`."""
    return Reading(metric=metric, value=float(value), unit=METRICS[metric].unit, provenance=provenance, **rest)


def unavailable(metric: str, reason: str) -> Reading:
    """A reading without a value that says why."""
    return Reading(metric, None, METRICS[metric].unit, "unavailable", method_note=reason)
