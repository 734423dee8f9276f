"""Work done in a fork of this process: whatever becomes of it, this process keeps its state and its output."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from json import dumps, loads  # taken before a worker's code could put others in their place
from typing import IO, Any

import torch

#: How much of what a dying fork printed is kept as its reason.
_LAST_WORDS = 300


class ApartError(Exception):
    """The work has no result; the message says why."""


def can_fork() -> bool:
    """Whether a fork of this process can go on computing: on Linux; elsewhere system libraries do not survive one."""
    return sys.platform == "linux"


def run_apart(work: Callable[[], Any], *, timeout_s: float) -> Any:
    """What the work returns (plain JSON types), computed in a fork with one thread that sees this process as it is now.

    Args:
        work: called in the fork; what it changes or prints stays there.
        timeout_s: after which the fork is killed: a lock that another thread holds at the fork is never released there.

    Raises:
        ApartError: the work raised, took too long, or ended the process that it ran in.
    """
    with tempfile.TemporaryFile() as words:
        reading, writing = os.pipe()
        pid = _fork()
        if pid == 0:
            os.close(reading)
            _child(work, writing, words)
        os.close(writing)
        try:
            answer = _answer(reading, time.monotonic() + timeout_s)
        finally:
            os.close(reading)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        if answer is None:
            raise ApartError(f"it took longer than {timeout_s:.0f} s")
        return _unwrapped(answer, status, words)


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that threads do not come along is known: see `run_apart`
        return os.fork()


def _child(work: Callable[[], Any], writing: int, words: IO[bytes]) -> None:
    """In the fork: do the work, tell the answer, and leave without running anything of the parent's."""
    try:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
        torch.set_num_threads(1)  # the pool's threads do not come along
        try:
            answer = {"result": work()}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(dumps(answer).encode())
    finally:
        os._exit(0)


def _answer(reading: int, deadline: float) -> bytes | None:
    """All that the fork wrote; None if it did not finish in time."""
    parts = list[bytes]()
    while True:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(reading, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _unwrapped(answer: bytes, status: int, words: IO[bytes]) -> Any:
    """The result in an answer; a fork that died half-way has none, and the reason is in its last words."""
    try:
        outcome = loads(answer)
    except ValueError:
        code = os.waitstatus_to_exitcode(status)
        last = _last_words(words)
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        raise ApartError(f"its process {how}" + (f": {last}" if last else "")) from None
    if "error" in outcome:
        raise ApartError(outcome["error"])
    return outcome["result"]


def _last_words(words: IO[bytes]) -> str:
    """What a dying process said of itself: the message of a C++ exception, else the end of its output."""
    words.seek(0)
    text = words.read().decode(errors="replace").strip()
    _, found, message = text.rpartition("what():")
    return message.strip().splitlines()[0][:_LAST_WORDS] if found and message.strip() else text[-_LAST_WORDS:]
