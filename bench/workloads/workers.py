"""Processes that pre-process ahead of the one that runs the network, and what handing their arrays over costs.

Each worker is a fork of this process on a core of its own, takes every n-th request, does what one request alone needs
and puts the tensor into a ring of shared memory; this process takes the tensors in order of the requests and does the
rest. A closed loop: no worker waits for an arrival, only for a free slot.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.errors import UsageError
from bench.workloads.servers import ServersFailed, alone, check_forks, cores
from bench.workloads.shared_ring import PATIENCE, Ring, RingStuck

#: Tensors that may wait for this process, of each worker.
SLOTS = 2
#: Answers of a run at least: the first ones find tensors that were made before it began, and are not kept.
LEAST = 8
#: Seconds after which it is looked whether a worker that gives nothing still works.
POLL = 0.5


@dataclass(frozen=True)
class HandedOver:
    """One run: answers per second, and mean milliseconds that a tensor's way into shared memory and out of it took."""

    rate: float
    write_ms: float
    read_ms: float
    bytes: int

    @property
    def ms(self) -> float:
        """Both, in milliseconds."""
        return self.write_ms + self.read_ms


def check(count: int, device: str, threads: int, servers: int) -> None:
    """Raise unless so many processes can each have a core of this machine, beside the one that runs the network.

    Raises:
        UsageError: there are several servers as well.
        NotImplementedError: not on this machine.
    """
    if count == 0:
        return
    if servers > 1:
        raise UsageError(f"workers={count}: they work ahead of one server; set servers=1")
    check_forks(
        f"workers={count}", count + 1, device, threads,
        they="workers", noun="worker", off_cpu=f"what they make stays on the CPU, and the case is on {device}",
        beside=" beside the network's",
    )  # fmt: skip


def run(
    prepared: Callable[[int], Any],
    answer: Callable[[list[Any]], Any],
    count: int,
    *,
    seconds: float,
    most: int = 1,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> HandedOver:
    """One closed loop of about so many seconds.

    Args:
        prepared: the tensor that request i comes to, in a worker.
        answer: does the rest for some of them, here.
        count: of workers.
        seconds: of the run.
        most: tensors that are answered at once.
        clock: nanoseconds.

    Raises:
        UsageError: a request comes to something that is no tensor, or to tensors of several shapes.
        ServersFailed: a worker raised or died.
    """
    like = prepared(0)
    _check_tensor(like)
    size = like.numel() * like.element_size()
    rings = [Ring(size, SLOTS) for _ in range(count)]
    with _staff(prepared, rings, like) as staff, _on_a_core_of_its_own():
        given = _Given(rings, like, staff, clock)
        unkept = 2 * SLOTS * count
        for _ in range(-(-unkept // most)):
            answer([given.next() for _ in range(most)])
        given.forget()
        begin, answered = clock(), 0
        while answered < max(LEAST, most) or clock() - begin < seconds * 1e9:
            answer([given.next() for _ in range(most)])
            answered += most
        spent = clock() - begin
    return HandedOver(1e9 * answered / spent, given.write_ms, given.read_ms, size)


def _check_tensor(value: Any) -> None:
    import torch

    if not isinstance(value, torch.Tensor):
        raise UsageError(
            f"workers hand over a tensor a request, and this pipeline makes a {type(value).__name__} of it"
        )


class _Given:
    """Tensors in order of the requests, one from each worker in turn, and what reading them took."""

    def __init__(self, rings: list[Ring], like: Any, staff: _Staff, clock: Callable[[], int]):
        self._rings, self._like, self._staff, self._clock = rings, like, staff, clock
        self._index = self._kept = self._spent = 0
        self._before = staff.written()

    def next(self) -> Any:
        """The next one; raise ServersFailed where its worker has failed."""
        import torch

        like, place = self._like, self._index % len(self._rings)
        self._await(place)
        start = self._clock()
        flat = self._rings[place].take(lambda view: torch.frombuffer(bytearray(view), dtype=like.dtype))
        value = flat.reshape(like.shape)
        self._spent += self._clock() - start
        self._index, self._kept = self._index + 1, self._kept + 1
        return value

    def _await(self, place: int) -> None:
        """Back once a worker has filled a slot; raise ServersFailed where it never will."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._rings[place].await_full(POLL)
            except RingStuck as error:
                why = self._staff.why(place)
                if why or time.monotonic() > until:
                    raise ServersFailed(why or str(error)) from error

    def forget(self) -> None:
        """What was read until now is not kept."""
        self._kept = self._spent = 0
        self._before = self._staff.written()

    @property
    def read_ms(self) -> float:
        """Mean milliseconds of reading a tensor."""
        return self._spent / 1e6 / max(1, self._kept)

    @property
    def write_ms(self) -> float:
        """Mean milliseconds of writing one, over those that workers have written meanwhile."""
        count, spent = (now - then for now, then in zip(self._staff.written(), self._before, strict=True))
        return spent / 1e6 / max(1, count)


class _Staff:
    """The workers' processes, and what they have written so far."""

    def __init__(self, processes: list[Any], pipes: list[Any], books: list[Any]):
        self.processes, self._pipes, self._books = processes, pipes, books

    def written(self) -> tuple[int, int]:
        """Tensors and nanoseconds of writing them, over all workers."""
        return sum(book[0] for book in self._books), sum(book[1] for book in self._books)

    def why(self, place: int) -> str:
        """Why a worker has failed; empty where it has not."""
        name = f"worker {place + 1} of {len(self.processes)}"
        try:
            if self._pipes[place].poll(0):
                return f"{name}: {self._pipes[place].recv()}"
        except EOFError:
            return f"{name}: its process died"
        return ""


@contextmanager
def _staff(prepared: Callable[[int], Any], rings: list[Ring], like: Any) -> Iterator[_Staff]:
    """Workers that fill the rings until the block ends."""
    import multiprocessing
    import warnings

    context = multiprocessing.get_context("fork")
    pipes, processes, books = [], [], []
    own = cores()
    try:
        for place, ring in enumerate(rings):
            reading, writing = context.Pipe(duplex=False)
            book = context.RawArray("q", 2)
            given = (place, len(rings), own[1 + place], ring, book, prepared, like, writing)
            process = context.Process(target=_work, args=given, daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that threads do not come along is known: each has one
                process.start()
            writing.close()
            pipes.append(reading)
            books.append(book)
            processes.append(process)
        yield _Staff(processes, pipes, books)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _work(
    place: int, count: int, core: int, ring: Ring, book: Any, prepared: Callable[[int], Any], like: Any, pipe: Any
) -> None:
    """In the fork: prepare every `count`-th request on a core of its own, until this process is ended."""
    try:
        alone(core)
        index = place
        while True:
            value = prepared(index).contiguous()
            if value.shape != like.shape or value.dtype != like.dtype:
                raise ValueError(
                    f"request {index} comes to {tuple(value.shape)}, request 0 to {tuple(like.shape)}: workers hand "
                    "over tensors of one shape"
                )
            ring.await_free()
            start = time.perf_counter_ns()
            ring.put(memoryview(value.numpy()).cast("B"))
            book[1] += time.perf_counter_ns() - start
            book[0] += 1
            index += count
    except BaseException as error:  # whatever it is, the other end has to know
        pipe.send(f"{type(error).__name__}: {error}")
    os._exit(1)


@contextmanager
def _on_a_core_of_its_own() -> Iterator[None]:
    """This process on its first core, which no worker has, until the block ends."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
