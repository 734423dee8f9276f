"""A workload from outside the package whose parts last as long as the subject says, and networks for it."""

import time

import torch
from torch import nn

from bench.reading import Curve, reading
from bench.workloads.workload import BATCH, Facts, Part, ShapeAxis, Workload, require

WORKLOAD = Workload(
    "tests.workloads.naps",
    unit="sample",
    parts=("both", "short", "long"),
    axes=(BATCH, ShapeAxis("times", 1, 1, 10, doc="how often each is done")),
    title="a short nap and a long one",
)


class Naps(nn.Module):
    """Sleeps, multiplies once in each part, and counts its runs: what one run changes has to be put back."""

    def __init__(self, short_ms, long_ms, width=8):
        super().__init__()
        self.first, self.second = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.short_ms, self.long_ms = short_ms, long_ms
        self.register_buffer("runs", torch.zeros(1))

    def short(self, x):
        assert self.runs.item() == 0.0, "the last run was not put back"
        self.runs += 1
        time.sleep(self.short_ms / 1e3)
        return self.first(x)

    def long(self, x):
        time.sleep(self.long_ms / 1e3)
        return self.second(x)

    def example_inputs(self, batch):
        return torch.ones(batch, self.first.in_features)


def naps(short_ms: float = 2.0, long_ms: float = 6.0):
    """Naps of known lengths."""
    return Naps(short_ms, long_ms)


def longer():
    """Twice as long in the second part alone."""
    return Naps(2.0, 12.0)


def wide():
    """The same naps with a second layer of twice the products."""
    return Naps(2.0, 6.0, width=16)


def make_parts(subject, shape):
    require(subject.module, "naps", "short", "long")
    module, (x,) = subject.module, subject.args

    def put_back():
        module.runs.zero_()

    def both():
        module.short(x)
        return module.long(x)

    return [
        Part("both", both, units=shape["batch"], reset=put_back),
        Part("short", lambda: module.short(x), units=shape["batch"], reset=put_back),
        Part("long", lambda: module.long(x), units=shape["batch"]),
    ]


def facts(subject, shape, parts):
    curve = Curve("latency_ms", "step", [0, 1], [subject.module.short_ms, subject.module.long_ms], "modelled", "both")
    return Facts(curves=[curve], details={"times": shape["times"]})


def derive(shape, value):
    long, whole = value("latency_ms", "long"), value("latency_ms", "both")
    if long is None or whole is None:
        return []
    return [reading("first_inference_ms", 1.0, "modelled"), reading("compile_ms", whole.value - long.value, "modelled")]
