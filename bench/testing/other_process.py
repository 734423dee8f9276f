"""Runs a subject in another process, which gets it by cloudpickle, as a sweep's workers do; one process for all."""

from __future__ import annotations

import atexit
import importlib
import os
import pickle
import struct
import subprocess
import sys
from functools import cache
from typing import IO, Any

_LENGTH = struct.Struct("<Q")


def run_elsewhere(built: Any, module: str | None = None) -> list[Any]:
    """The tensors that one whole run gives in another process.

    Args:
        built: a `bench.worker.subject.Subject`.
        module: of its builder, which is imported there first, as it is by a worker: what it prepares is then prepared.

    Raises:
        RuntimeError: it cannot be handed over, or fails there; with what it said.
    """
    import cloudpickle

    process = _process()
    assert process.stdin is not None and process.stdout is not None
    data = pickle.dumps((module, cloudpickle.dumps(built)))
    try:
        _send(process.stdin, data)
        failed, answer = pickle.loads(_receive(process.stdout))  # from our own child
    except (OSError, EOFError) as error:
        _process.cache_clear()  # the next subject gets a process of its own
        raise RuntimeError(f"the other process has ended with code {process.wait()}") from error
    if failed:
        raise RuntimeError(f"in another process: {answer}")
    return list(answer)


@cache
def _process() -> subprocess.Popen[bytes]:
    """The other process, started when first needed and ended with this one."""
    path = os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))
    process = subprocess.Popen(
        [sys.executable, "-c", "from bench.testing.other_process import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    atexit.register(process.kill)
    return process


def _send(stream: IO[bytes], data: bytes) -> None:
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    """The next message.

    Raises:
        EOFError: the other side is gone.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return stream.read(_LENGTH.unpack(head)[0])


def _answer(data: bytes) -> tuple[bool, Any]:
    """Whether it failed, and the tensors or what went wrong."""
    import cloudpickle

    from bench.testing.trial import run

    module, built = pickle.loads(data)  # from our own parent
    try:
        if module is not None:
            importlib.import_module(module)
        return False, run(cloudpickle.loads(built))
    except Exception as error:
        return True, f"{type(error).__name__}: {error}"


def main() -> None:
    """Answer until the other side closes; what a subject prints goes to standard error, for the answers' sake."""
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        head = sys.stdin.buffer.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return
        data = sys.stdin.buffer.read(_LENGTH.unpack(head)[0])
        _send(answers, pickle.dumps(_answer(data)))
