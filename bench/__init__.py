"""Waterline: efficiency benchmarks with a unit, an interval, a provenance and a definition for every number."""

from bench.api import (
    across_machines,
    build,
    compare,
    counting_rule,
    curves,
    instances,
    largest_batch,
    layers,
    load,
    measure,
    waterline,
)
from bench.version import __version__

#: What the library offers; `dir(bench)` shows this and not the files behind it.
__all__ = [
    "__version__",
    "across_machines",
    "build",
    "compare",
    "counting_rule",
    "curves",
    "instances",
    "largest_batch",
    "layers",
    "load",
    "measure",
    "waterline",
]


def __dir__() -> list[str]:
    return sorted(__all__)
