"""What the machine could do, measured in a fresh process."""

from __future__ import annotations

from typing import Any

from bench.meters import peaks
from bench.worker import cuda
from bench.worker.child import Phase


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """The `machine` part of a record: peak arithmetic rates, bandwidth, launch overhead, idle power.

    With `earlier` in the spec, an earlier calibration, only whether the machine has drifted from it: `{"drift":
    reason}`.
    """
    phase.enter("measure")
    cuda.select(spec["device"])
    if spec.get("earlier"):
        return {"drift": peaks.drifted(spec["earlier"], peaks.quick_probe(spec["device"], spec["threads"]))}
    return peaks.measure_peaks(spec["device"], spec["threads"], spec["budget_s"])
