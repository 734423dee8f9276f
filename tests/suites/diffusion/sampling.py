"""Small samplers with weights that tell things apart, run step by step and counted."""

import torch

from bench.meters import macs
from suites.common.dit import dit
from suites.common.unet import unet
from suites.common.video_dit import video_dit
from tests.suites.conftest import spread


def small_dit(**changes):
    torch.manual_seed(0)
    return spread(dit(**{"width": 16, "heads": 2, "depth": 2, "patch": 1, "resolution": 8, **changes}))


def small_unet(**changes):
    torch.manual_seed(0)
    return spread(unet(**{"width": 8, "heads": 2, "resolution": 8, **changes}))


def small_video(**changes):
    torch.manual_seed(0)
    return spread(video_dit(**{"width": 16, "heads": 4, "depth": 2, "frames": 6, **changes}))


@torch.no_grad()
def images(model, batch=2, seed=0, **shape):
    """The images of one run."""
    plan = model.plan({"steps": 6, **shape})
    state = model.start(model.example_noise(batch, seed), model.example_cond(batch))
    for index in range(len(plan)):
        state = model.step(index, state)
    return model.finish(state)


class _Step(torch.nn.Module):
    def __init__(self, model, index, state):
        super().__init__()
        self.model, self.index, self.state = model, index, state

    def forward(self, x):
        return self.model.step(self.index, self.state)["x"]


@torch.no_grad()
def traced(model, batch=2, **shape):
    """MACs per image of every step as planned, and as the operator trace counts them."""
    plan = model.plan({"steps": 6, **shape})
    noise = model.example_noise(batch, 0)
    state, found = model.start(noise, model.example_cond(batch)), []
    for index in range(len(plan)):
        step = _Step(model, index, state)
        count = macs.count(step, (noise,), {}, second_count=False, inspect_values=False)
        found.append((count.macs + count.method_macs) / batch)
        state = model.step(index, state)
    return [step["macs"] for step in plan], found
