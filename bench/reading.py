"""One reading: one metric of one case with its unit, interval, provenance and note."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from bench.metrics import METRICS

Provenance = Literal["measured", "counted", "modelled", "estimated", "published", "unavailable"]
Status = Literal["ok", "oom", "timeout", "crashed", "unsupported", "invalid", "contaminated", "interrupted", "unstable"]

PROVENANCES: tuple[str, ...] = get_args(Provenance)
STATUSES: tuple[str, ...] = get_args(Status)

#: Columns of the tidy table, in order; one row per reading.
COLUMNS: tuple[str, ...] = (
    "case_key", "suite", "model", "method", "setting", "baseline_key", "device", "dtype", "batch", "resolution",
    "workload", "shape", "backend", "task", "metric", "part", "value", "unit", "ci_low", "ci_high", "n", "statistic",
    "provenance", "method_note",
    "status", "error", "protocol", "code_version", "machine_key", "started_at",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """A value in the metric's unit (`bench.metrics`) with its interval; or no value and the reason in `method_note`.

    `n` is the number of independent replicates behind the value; counted values have none and no interval. `part` is
    the part of the workload that was measured, empty for what belongs to the subject as a whole (its parameters, its
    score).
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
    part: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What a reading is found by: two of one key in a record are an error."""
        return self.metric, self.part

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


def unavailable(metric: str, reason: str, part: str = "") -> Reading:
    """A reading without a value that says why."""
    return Reading(metric, None, METRICS[metric].unit, "unavailable", method_note=reason, part=part)


@dataclass(frozen=True)
class Curve:
    """A quantity over an index (layer, step, token, rate): drawn, stored once in the record, never averaged silently.

    Attributes:
        metric: in the metrics table; the values are in its unit.
        index: what the values run over, singular: `step`, `context`, `layer`.
        at: the index of each value, ascending or in order of execution.
        values: as many as `at`; None where there is none.
        provenance: as of a reading.
        part: as of a reading.
        note: how it was taken.
    """

    metric: str
    index: str
    at: Sequence[float | int | str]
    values: Sequence[float | None]
    provenance: Provenance
    part: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is not defined in bench.metrics")
        if len(self.at) != len(self.values) or not self.values:
            raise ValueError(f"curve of {self.metric}: {len(self.at)} places and {len(self.values)} values")
        if any(value is not None and not math.isfinite(value) for value in self.values):
            raise ValueError(f"curve of {self.metric}: a value is not a number to report; make it None")

    def as_dict(self) -> dict[str, Any]:
        """The curve as plain JSON types."""
        return {**asdict(self), "at": list(self.at), "values": list(self.values), "unit": METRICS[self.metric].unit}
