"""A workload of a user's own: several inferences in a row."""

from bench.workloads.workload import BATCH, Part, ShapeAxis, Workload

WORKLOAD = Workload("turns", unit="sample", parts=("turns",), axes=(BATCH, ShapeAxis("turns", 2)))


def make_parts(subject, shape):
    """All turns as one call."""
    import torch

    def call():
        return [subject.module.infer(torch.ones(1, 4)) for _ in range(shape["turns"])]

    return [Part("turns", call, units=float(shape["turns"]))]
