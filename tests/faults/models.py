"""Models that crash, hang, exhaust memory, or lie; each is a builder that the bench is given by its dotted path."""

import itertools
import os
import signal
import sys
import time
import weakref

import torch
from torch import nn


class Small(nn.Module):
    """A network that does something harmless, and what it is told on its n-th forward.

    It counts its forwards where nobody can put the number back.
    """

    resolution = 8

    def __init__(self, misdeed=None, at_forward=0):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)
        forwards = itertools.count(1)
        self.misdeed, self.is_due = misdeed, lambda: next(forwards) > at_forward

    def forward(self, images):
        if self.misdeed is not None and self.is_due():
            return self.misdeed(self.layer(images))
        return self.layer(images).mean((2, 3))


def healthy(*, width: int = 4):
    model = Small()
    model.layer = nn.Conv2d(3, width, 3)
    return model


def _segfault(_output):
    import ctypes

    ctypes.string_at(0)


def segfault():
    return Small(_segfault)


def abort():
    return Small(lambda _output: os.abort())


def killed():
    return Small(lambda _output: os.kill(os.getpid(), signal.SIGKILL))


def hang():
    return Small(lambda _output: time.sleep(3600))


def stubborn_hang():
    def misdeed(_output):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)

    return Small(misdeed)


def build_error():
    raise RuntimeError("no such layer in this network")


def forward_error():
    def misdeed(_output):
        raise RuntimeError("shapes do not fit")

    return Small(misdeed)


def unsupported():
    def misdeed(_output):
        raise NotImplementedError("no kernel for this device")

    return Small(misdeed)


def eats_memory():
    def misdeed(_output):
        return torch.cat([torch.zeros(2**38) for _ in range(4)])

    return Small(misdeed)


def _device_full(_output=None):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def device_full_at_build():
    _device_full()


def device_full_at_forward():
    return Small(_device_full)


def eats_pages():
    """Fills memory page by page, as far as the kernel lets it: no allocation fails."""

    def misdeed(output):
        kept = []
        while not output.is_meta:
            kept.append(bytearray(os.urandom(2**20)) * 16)
        return output.mean((2, 3))

    return Small(misdeed)


def nan_output():
    return Small(lambda output: output.mean((2, 3)) * float("nan"))


def wrong_value():
    def refuse(output):
        raise ValueError("a value that the model does not take")

    return Small(refuse)


def changing_output():
    return Small(lambda output: output.mean((2, 3)) + torch.rand(()))


CROWD: weakref.WeakSet = weakref.WeakSet()


def crowded(*, limit: int):
    """Finds no memory while more than so many networks of this kind are in its process."""

    def misdeed(output):
        if len(CROWD) > limit and not output.is_meta:
            raise MemoryError(f"no room for {len(CROWD)}")
        return output.mean((2, 3))

    model = Small(misdeed)
    if not model.layer.weight.is_meta:
        CROWD.add(model)
    return model


def loud():
    """Prints a gigabyte in its first forward, half by Python and half past it, as C code would."""
    block = b"x" * (2**20 - 1) + b"\n"
    left = [512]

    def misdeed(output):
        for _ in range(left[0]):
            os.write(1, block)
            sys.stdout.write(block.decode())
        left[0] = 0
        sys.stdout.flush()
        return output.mean((2, 3))

    return Small(misdeed)


def exits_quietly():
    return Small(lambda _output: os._exit(0))


def forks_children():
    """Leaves a child behind that would run for an hour."""

    def misdeed(output):
        if os.fork() == 0:
            os.setsid()
            time.sleep(3600)
            os._exit(0)
        return output.mean((2, 3))

    return Small(misdeed, at_forward=1)


def changes_state():
    """Changes threads, seeds and global torch state."""
    torch.set_num_threads(7)
    torch.manual_seed(12345)
    torch.set_default_dtype(torch.float64)
    return Small().float()


def breaks_in_company():
    """Runs alone a few times and breaks later, as in a timed group."""

    def misdeed(_output):
        os.kill(os.getpid(), signal.SIGSEGV)

    return Small(misdeed, at_forward=60)


def changes_threads_in_forward():
    """Takes more threads in every forward than it was given."""

    def misdeed(output):
        torch.set_num_threads(3)
        return output.mean((2, 3))

    return Small(misdeed)


def tells_its_state(*, marks: str):
    """Writes into a file what it is run under: threads, default type, and the sum of its weights."""
    model = Small()

    def misdeed(output):
        with open(marks, "a") as file:
            file.write(f"{torch.get_num_threads()} {torch.get_default_dtype()} {model.layer.weight.sum().item():.9f}\n")
        return output.mean((2, 3))

    if model.layer.weight.is_meta:
        return model
    model.misdeed = misdeed
    return model


def tells_its_environment(*, marks: str):
    """Writes into a file what a library would ask before it reports home."""

    def misdeed(output):
        with open(marks, "a") as file:
            file.write(f"DO_NOT_TRACK={os.environ.get('DO_NOT_TRACK')}\n")
        return output.mean((2, 3))

    return Small(misdeed)


def waits(*, mark: str):
    """Tells by a file that it runs, and then goes on for an hour; harmless on the meta device, as in a forecast."""

    def misdeed(output):
        if output.is_meta:
            return output.mean((2, 3))
        with open(mark, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(3600)

    return Small(misdeed)


def ends_by_a_signal_without_a_name():
    return Small(lambda _output: os.kill(os.getpid(), signal.SIGRTMIN + 3))


def _half_a_pair(_output):
    raise RuntimeError("half a pair \udc80, a bell \a and \x1b[2J")


def half_a_pair():
    return Small(_half_a_pair)


def _interrupts(_output):
    raise KeyboardInterrupt


def interrupts_itself():
    return Small(_interrupts)


class Wordless(Exception):
    """An error that fails to say what is wrong."""

    def __str__(self):
        raise ValueError("no words")


def _wordless(_output):
    raise Wordless


def without_words():
    return Small(_wordless)


def leaves_a_child(*, mark: str):
    """Starts a child in a session of its own, notes its process and waits."""

    def misdeed(_output):
        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork() == 0:  # and another, whose parent goes at once
                with open(mark, "a") as file:
                    file.write(f"{os.getpid()}\n")
                time.sleep(3600)
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(3600)

    return Small(misdeed)


class Sieve(Small):
    """Multiplies as many rows as its input has values above 0 in the first channel's first row."""

    def forward(self, images):
        rows = max(1, int((images[0, 0, 0] > 0).sum()))
        return self.layer(images).mean((2, 3)) + (images.new_ones(rows, 64) @ images.new_ones(64, 4)).mean(0)


def sieve():
    return Sieve()


def declared_sieve():
    model = Sieve()
    model.cost_follows_inputs = "the values that it is given"
    return model
