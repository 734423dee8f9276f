"""Methods for the fault models: harmless ones, and one that breaks only when it is timed."""

import os
import signal

from torch import nn

from tests.faults.models import Small


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
