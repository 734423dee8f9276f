"""What one run is: a workload turns a built subject into named parts; one file a workload and one line here.

Names, units, axes and parts are read without torch; torch is imported inside functions only.
"""

from __future__ import annotations

from types import ModuleType

from bench import lookup
from bench.errors import UsageError
from bench.metrics import METRICS, rate_of
from bench.workloads.workload import Workload

FORWARD, GENERATE, OPERATOR = "forward", "generate", "operator"

#: Workload -> the module that holds it; a dotted path to a module of one's own is taken as well.
WORKLOADS: dict[str, str] = {
    "forward": "bench.workloads.forward",
    "training_step": "bench.workloads.training_step",
    "generate": "bench.workloads.generate",
    "sample": "bench.workloads.sample",
    "stream": "bench.workloads.stream",
    "pipeline": "bench.workloads.pipeline",
    "split": "bench.workloads.split",
    "operator": "bench.workloads.operator",
    "prediction": "bench.workloads.prediction",
}


def is_own(name: str) -> bool:
    """Whether a workload is a module of the user's own: imported where it is planned, never by reading its name."""
    return name not in WORKLOADS and "." in name


def module_of(name: str) -> ModuleType:
    """The module of a workload: `WORKLOAD`, `make_parts`, and where it has them `facts` and `derive`.

    Raises:
        UsageError: there is no such workload, or its module holds none.
    """
    module = lookup.module_of("workload", name, WORKLOADS)
    if not isinstance(getattr(module, "WORKLOAD", None), Workload):
        raise UsageError(f'workload "{name}": the module {module.__name__} has no WORKLOAD')
    rate = rate_of(module.WORKLOAD.unit)
    if rate not in METRICS:
        known = ("sample", "token", "image", "step", "request", "call", "network")
        units = [unit for unit in known if rate_of(unit) in METRICS]
        raise UsageError(
            f'workload "{name}": its unit "{module.WORKLOAD.unit}" needs the metric {rate}, which bench/metrics '
            f"does not have; units there: {', '.join(units)}"
        )
    return module


def find(name: str) -> Workload:
    """What a workload is called, counted in and shaped by.

    Raises:
        UsageError: there is no such workload.
    """
    found: Workload = module_of(name).WORKLOAD
    return found
