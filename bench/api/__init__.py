"""The instrument as a library: build a subject, measure any module, see its layers, load results.

Torch is imported by the functions that need it, so that `import bench` stays quick.
"""

from bench.api.batching import largest_batch
from bench.api.building import build
from bench.api.instances import instances
from bench.api.measuring import measure, protocol_named
from bench.api.tables import curves, layers, load
from bench.meters.own_rules import counting_rule

__all__ = [
    "build",
    "counting_rule",
    "curves",
    "instances",
    "largest_batch",
    "layers",
    "load",
    "measure",
    "protocol_named",
]
