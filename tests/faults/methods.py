"""Methods for the fault models: harmless ones, and one that breaks only when it is timed."""

import itertools
import json
import os
import signal
import time

import torch
from torch import nn

from tests.faults.models import Small, _device_full


def same(model):
    return model


def narrow(model, *, width: int = 2):
    model.layer = nn.Conv2d(3, width, 3)
    return model


def healed(model):
    model.misdeed = None
    return model


def breaks_later(model):
    def misdeed(output):
        os.kill(os.getpid(), signal.SIGSEGV)
        return output

    broken = Small(misdeed, at_forward=40)
    broken.layer = model.layer
    return broken


def device_full_later(model):
    """Fills the device, but only after as many forwards as a probe and a warm-up make."""
    full = Small(_device_full, at_forward=20)
    full.layer = model.layer
    return full


def raises_later(model):
    def misdeed(output):
        raise RuntimeError("the cache of this layer is full")

    broken = Small(misdeed, at_forward=40)
    broken.layer = model.layer
    return broken


def rude(model):
    """Changes threads, seeds, default type and modes of torch while it is applied."""
    torch.set_num_threads(3)
    torch.manual_seed(99)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return model


def greedy_later(model):
    """Takes more threads in a forward, but only after as many as a probe makes."""

    def misdeed(output):
        torch.set_num_threads(3)
        return output.mean((2, 3))

    greedy = Small(misdeed, at_forward=12)
    greedy.layer = model.layer
    return greedy


def fatal(model, *, code: int = 1):
    """Ends the process in its first forward; `code` tells one such method from another."""

    def misdeed(output):
        os.kill(os.getpid(), signal.SIGSEGV)
        return output

    broken = Small(misdeed)
    broken.layer = model.layer
    return broken


def breaks_later_too(model):
    return breaks_later(model)


def stops_the_clock(model):
    time.perf_counter_ns = lambda: 0
    time.perf_counter = lambda: 0.0
    return model


def writes_other_json(model):
    json.dumps = lambda *_, **__: "{}"
    return model


class _Now(nn.Module):
    """The network, and NaN on some of its forwards, which it counts where nobody can put the number back."""

    resolution = 8

    def __init__(self, model, when):
        super().__init__()
        forwards = itertools.count(1)
        self.model, self.is_nan = model, lambda: when(next(forwards))

    def forward(self, images):
        output = self.model(images)
        return output * float("nan") if self.is_nan() else output


def nan_every_fifth(model):
    return _Now(model, lambda forward: forward > 12 and forward % 5 == 0)


def nan_later(model):
    return _Now(model, lambda forward: forward >= 30)


def hooks_every_module(model):
    torch.nn.modules.module.register_module_forward_pre_hook(lambda _module, _args: time.sleep(0.0005))
    torch.set_flush_denormal(True)
    return model
