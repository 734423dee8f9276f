"""A workload whose unit no metric counts."""

from bench.workloads.workload import Workload

WORKLOAD = Workload("tests.workloads.turns", unit="turn", parts=("turn",))
