"""One process of `perf.redraws`: a network timed in stretches beside the reference product, with redraws between.

`python -m perf.redrawn ORDER` (the order as JSON) is such a process started plainly; it prints what it took as JSON.
Everything else is as in a timing process of a sweep: allocator pinned, heap shifted if wanted, one thread, collector
off, forward and product by turns. The product is made once in a process: nothing is drawn anew for it but by a process.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.meters.allocator import pin_allocator_for_timing
from bench.meters.latency import Runner as Timed
from bench.meters.latency import Samples, collector_off, interleave, take_sample
from bench.worker.invocation import reference_gemm
from bench.worker.isolation import shift_heap
from perf.reference_networks import REFERENCES

PAGE = mmap.PAGESIZE
#: Seconds of `pause`.
PAUSE_S = 3.0
#: Rounds of warm-up before a stretch at least.
WARM_UPS = 5
#: Bytes between tensors that are put into memory of their own.
APART = 64
#: Every mapping of this process, with what kind of pages hold it.
SMAPS = Path("/proc/self/smaps")
#: Of the bits of an entry of /proc/self/pagemap, those that number the frame.
FRAME = (1 << 55) - 1


@dataclass(frozen=True)
class Order:
    """What one process does.

    Attributes:
        network: a name of `perf.reference_networks`.
        redraw: what is drawn anew before each stretch but the first; a name of `REDRAWS`.
        stretches: how many.
        rounds: of forward and product in each.
        warm_up_s: seconds of both before each, and `WARM_UPS` rounds at least.
        seed: of everything drawn.
        shifted: whether the heap is shifted before anything is built.
    """

    network: str
    redraw: str = "nothing"
    stretches: int = 1
    rounds: int = 30
    warm_up_s: float = 0.3
    seed: int = 0
    shifted: bool = True


class Process:
    """A network that has been built, and what has been drawn for it."""

    def __init__(self, order: Order):
        self.order, self.chance = order, random.Random(order.seed)
        self.reference = next(item for item in REFERENCES if item.name == order.network)
        self.memory: Memory | None = None
        self.module: torch.nn.Module | None = None
        self.cores = sorted(os.sched_getaffinity(0))
        self.build()

    def build(self) -> None:
        """Build the network and its inputs, after the earlier one is gone."""
        self.module = None
        torch.manual_seed(0)
        self.module = self.reference.build().eval()
        self.inputs = self.reference.inputs()

    def step(self) -> Any:
        """One forward."""
        assert self.module is not None
        return self.module(*self.inputs)

    def move(self, huge: bool) -> None:
        """Put the weights into memory of their own, or give that memory other pages at the same addresses."""
        assert self.module is not None
        if self.memory is None:
            self.memory = Memory(self.module, huge)
        else:
            self.memory.give_other_pages(self.chance)


def _shift(process: Process) -> None:
    shift_heap(process.chance.randrange(2**32))
    process.build()


def _other_core(process: Process) -> None:
    os.sched_setaffinity(0, {process.chance.choice(process.cores)})


#: What is done before a stretch; what needs a fresh process is not among it.
REDRAWS: dict[str, Callable[[Process], None]] = {
    "nothing": lambda process: None,
    "pause": lambda process: time.sleep(PAUSE_S),
    "build": Process.build,
    "shifted heap": _shift,
    "pages": lambda process: process.move(huge=False),
    "huge pages": lambda process: process.move(huge=True),
    "core": _other_core,
}
#: What is done before the first stretch as well, because it moves the weights or the thread away from where they were.
BEFORE_THE_FIRST = {"pages", "huge pages", "core"}


class Memory:
    """Memory of its own for the dense weights of a network: private, anonymous, with huge pages or without.

    Args:
        module: whose parameters and buffers move there.
        huge: whether the kernel is asked for huge pages, or for none.
    """

    def __init__(self, module: torch.nn.Module, huge: bool):
        tensors = [*module.parameters(), *module.buffers()]
        dense = [one for one in tensors if one.layout == torch.strided and one.numel()]
        places, size = [], 0
        for one in dense:
            places.append(size)
            size += -(-one.numel() * one.element_size() // APART) * APART
        self.map = _private(size)
        self.map.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
        for one, place in zip(dense, places, strict=True):
            new = torch.frombuffer(self.map, dtype=one.dtype, count=one.numel(), offset=place).view(one.shape)
            one.data = new.copy_(one.detach())
        self.address = torch.frombuffer(self.map, dtype=torch.uint8).data_ptr()
        self.moved: float | None = None

    def give_other_pages(self, chance: random.Random) -> None:
        """Give the pages back and take others, while a block of random size holds those that were given back."""
        content, before = self.map[:], self.frames()
        self.map.madvise(mmap.MADV_DONTNEED)
        holder = _private(len(self.map) + chance.randrange(len(self.map)))
        holder[::PAGE] = bytes(len(range(0, len(holder), PAGE)))
        self.map[:] = content
        holder.close()
        after = self.frames()
        self.moved = None if before is None or after is None else float(np.mean(before != after))

    def frames(self) -> np.ndarray | None:
        """Numbers of the page frames that hold this memory (those of the virtual machine); None where untold."""
        try:
            with open("/proc/self/pagemap", "rb", buffering=0) as file:
                file.seek(self.address // PAGE * 8)
                entries = np.frombuffer(file.read(-(-len(self.map) // PAGE) * 8), dtype=np.uint64)
        except OSError:
            return None
        found = entries & np.uint64(FRAME)
        return found if found.any() else None  # without the right to see them they are all zero

    def in_huge_pages(self) -> float | None:
        """Share of this memory that huge pages hold; None where the kernel does not tell."""
        try:
            lines = SMAPS.read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        inside = False
        for line in lines:
            first = line.split(maxsplit=1)[0]
            if "-" in first:  # a mapping begins; a neighbour of the same kind may have joined it
                low, high = (int(end, 16) for end in first.split("-"))
                inside = low <= self.address < high
            elif inside and first == "AnonHugePages:":
                return min(1.0, int(line.split()[1]) * 1024 / len(self.map))
        return None


def _private(size: int) -> mmap.mmap:
    return mmap.mmap(-1, max(size, PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def core() -> int | None:
    """The core that this thread is on; None where the C library does not tell."""
    try:
        return int(ctypes.CDLL(None).sched_getcpu())
    except (OSError, AttributeError):
        return None


def stretches(order: Order) -> list[dict[str, Any]]:
    """Raw samples of every stretch of one process, with the times of its warm-up and what is known of its memory."""
    pin_allocator_for_timing()
    if order.shifted:
        shift_heap(order.seed)
    torch.set_num_threads(1)
    found = []
    with torch.no_grad(), _cores_put_back():
        process, product = Process(order), reference_gemm("cpu")
        for number in range(order.stretches):
            if number or order.redraw in BEFORE_THE_FIRST:
                REDRAWS[order.redraw](process)
            found.append(_stretch(process, product, order.seed + number))
    return found


@contextmanager
def _cores_put_back() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _stretch(process: Process, product: Timed, seed: int) -> dict[str, Any]:
    """Warm-up, then rounds of forward and product in an order reshuffled each round, by the sweeps' own loop."""
    order, forward = process.order, Timed("forward", process.step)
    warm = {runner.name: Samples(1) for runner in (forward, product)}
    taken = {runner.name: Samples(1) for runner in (forward, product)}
    start, first = time.perf_counter(), core()
    with collector_off():
        while len(warm["forward"].latency_ms) < WARM_UPS or time.perf_counter() - start < order.warm_up_s:
            for runner in (forward, product):
                take_sample(runner, warm[runner.name])
    interleave((forward, product), taken, order.rounds, seed)
    weights = next(process.module.parameters(), None) if process.module is not None else None
    return {
        "at": time.time(),
        "forward_ms": taken["forward"].latency_ms,
        "product_ms": taken[product.name].latency_ms,
        "warm_up_ms": warm["forward"].latency_ms,
        "preempted": sum(taken["forward"].preempted),
        "cores": [first, core()],
        "address": weights.data_ptr() if weights is not None and weights.layout == torch.strided else None,
        "frames_moved": process.memory.moved if process.memory is not None else None,
        "in_huge_pages": process.memory.in_huge_pages() if process.memory is not None else None,
    }


def as_json(order: Order) -> str:
    """An order for the command line."""
    return json.dumps(asdict(order))


if __name__ == "__main__":
    print(json.dumps(stretches(Order(**json.loads(sys.argv[1])))))
