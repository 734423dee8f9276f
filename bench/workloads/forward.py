"""`forward`: one forward of a batch."""

from __future__ import annotations

from bench.workloads.workload import BATCH, RESOLUTION, Built, Part, Shape, Workload

WORKLOAD = Workload(
    "forward", unit="sample", parts=("forward",), axes=(BATCH, RESOLUTION), title="one forward of a batch"
)


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The forward, on the example inputs."""
    module, args, kwargs = subject.module, subject.args, subject.kwargs
    return [Part("forward", lambda: module(*args, **kwargs), units=float(shape["batch"]))]
