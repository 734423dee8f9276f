"""Several processes that work together, each on cores of its own: one unit, which is measured and repeated as a whole.

Each is a fork of the process that built the subject, so that all of them serve the same weights without loading them
again. Their clock is the monotonic clock of the host, which is one for all of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

#: Seconds until the common beginning, once all of them are there: more than it takes to wake them.
HEAD_START = 0.05


class ServersFailed(RuntimeError):
    """A process of the unit raised, died or took too long; the message says which and why."""


def check(count: int, device: str, threads: int) -> None:
    """Raise NotImplementedError unless so many processes can each have a core of this machine.

    Args:
        count: of processes.
        device: of the subject.
        threads: that the case gives to a run.
    """
    if count == 1:
        return
    check_forks(
        f"servers={count}", count, device, threads,
        they="several servers", noun="server", off_cpu=f"a fork cannot use {device}; several servers run on a CPU",
    )  # fmt: skip


def check_forks(
    setting: str, processes: int, device: str, threads: int, *, they: str, noun: str, off_cpu: str, beside: str = ""
) -> None:
    """Raise NotImplementedError unless so many forks can each have a core of this machine.

    Args:
        setting: what asks for them, as it is typed.
        processes: that run at once, this one included where it works as well.
        device: of the subject.
        threads: that the case gives to a run.
        they: the forks in words.
        noun: one of them.
        off_cpu: why another device than the CPU will not do.
        beside: what else needs a core, in words.
    """
    here = len(cores())
    if sys.platform != "linux":
        raise NotImplementedError(f"{setting}: {they} are forks, which go on computing on Linux alone")
    if device != "cpu":
        raise NotImplementedError(f"{setting}: {off_cpu}")
    if threads != 1:
        raise NotImplementedError(f"{setting}: each {noun} has one thread; set device.threads=1, not {threads}")
    if processes > here:
        raise NotImplementedError(f"{setting}: this process may use {here} cores; each {noun} needs its own{beside}")


def together(
    count: int,
    work: Callable[[int, Callable[[], int]], Any],
    *,
    timeout_s: float,
    settle: Callable[[], Any] | None = None,
) -> list[Any]:
    """What `work(server, begin)` gives in so many processes, in order; each calls `begin` once, when it is ready.

    `begin()` waits for the others and returns the moment, in nanoseconds of the monotonic clock, at which all begin.

    Args:
        count: of processes.
        work: runs in each of them with one thread; what it gives must be picklable.
        timeout_s: after which those that still run are killed.
        settle: run by each before it is ready: a run that is not kept, so that its pages are its own.

    Raises:
        ServersFailed: one of them raised, died or took too long.
    """
    import multiprocessing

    context = multiprocessing.get_context("fork")
    start = _Start(context.Barrier(count), context.Value("q", 0), timeout_s)
    pipes, processes = [], []
    for server in range(count):
        reading, writing = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(server, writing, work, start, settle), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that threads do not come along is known: each has one
            process.start()
        writing.close()
        pipes.append(reading)
        processes.append(process)
    try:
        return _answers(pipes, time.monotonic() + timeout_s)
    finally:
        for process in processes:
            with contextlib.suppress(Exception):
                process.kill()
            process.join()


@dataclass(frozen=True)
class _Start:
    """Where processes wait for each other, and the moment at which all of them begin."""

    barrier: Any
    moment: Any
    timeout_s: float

    def __call__(self) -> int:
        """The moment, once all are there."""
        if self.barrier.wait(self.timeout_s) == 0:
            self.moment.value = time.perf_counter_ns() + int(HEAD_START * 1e9)
        self.barrier.wait(self.timeout_s)
        return int(self.moment.value)


def _serve(
    server: int,
    pipe: connection.Connection,
    work: Callable[[int, Callable[[], int]], Any],
    start: _Start,
    settle: Callable[[], Any] | None,
) -> None:
    """In the fork: do the work on a core of its own, tell the answer, and leave."""
    try:
        own = cores()
        alone(own[server % len(own)])
        if settle is not None:
            settle()
        answer: tuple[str, Any] = ("done", work(server, start))
    except BaseException as error:  # whatever it is, the others must not wait for this one
        start.barrier.abort()
        traceback.print_exc()
        answer = ("failed", f"{type(error).__name__}: {error}")
    pipe.send(answer)
    os._exit(0)  # without running what the parent registered for its own end


def _answers(pipes: list[connection.Connection], deadline: float) -> list[Any]:
    """What every process sent; the first cause of a failure, not the others that waited for it in vain."""
    answers, failures = list[Any](), list[str]()
    for server, pipe in enumerate(pipes):
        try:
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                raise ServersFailed(f"server {server} of {len(pipes)} did not end in time")
            kind, answer = pipe.recv()
        except EOFError:
            kind, answer = "failed", "its process died"
        if kind == "failed":
            failures.append(f"server {server} of {len(pipes)}: {answer}")
        answers.append(answer)
    if failures:
        told = [text for text in failures if "BrokenBarrierError" not in text] or failures
        raise ServersFailed(told[0])
    return answers


def alone(core: int) -> None:
    """This process on one core with one thread."""
    import torch

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)


def cores() -> list[int]:
    """The cores that this process may use, in order."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
