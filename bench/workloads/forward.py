"""`forward`: one forward of a batch.

The subject's module may offer `needed_share(*inputs)`: per cent of the executed products that its answer rests on,
where a product is padded and computes for slots that nobody asked for.
"""

from __future__ import annotations

from bench.reading import reading
from bench.workloads.workload import BATCH, RESOLUTION, Built, Facts, Part, Shape, Workload, ask

WORKLOAD = Workload(
    "forward", unit="sample", parts=("forward",), axes=(BATCH, RESOLUTION), title="one forward of a batch"
)


def make_parts(subject: Built, shape: Shape) -> list[Part]:
    """The forward, on the example inputs."""
    module, args, kwargs = subject.module, subject.args, subject.kwargs
    return [Part("forward", lambda: module(*args, **kwargs), units=float(shape["batch"]))]


def facts(subject: Built, shape: Shape, parts: list[Part]) -> Facts:
    """What of its products the answer rests on, of a module that knows it; where there are shapes alone nobody does."""
    share = None if subject.device == "meta" else ask(subject.module, "needed_share", *subject.args)
    if share is None:
        return Facts()
    return Facts([reading("needed_share", share, "counted", part="forward", method_note="the module's own account")])
