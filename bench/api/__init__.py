"""The instrument as a library: build a subject, measure any module, compare two, see its layers, load results.

Torch is imported by the functions that need it, so that `import bench` stays quick.
"""

from bench.api.batching import largest_batch
from bench.api.building import build
from bench.api.comparing import compare
from bench.api.measuring import measure, protocol_named
from bench.api.rules import counting_rule
from bench.api.side_by_side import instances
from bench.api.tables import across_machines, curves, layers, load
from bench.api.waterlines import waterline

__all__ = [
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
    "protocol_named",
    "waterline",
]
