"""One of several instances of a module that run at once: `python -m bench.worker.instance`, told by lines of its input.

The first line is the task as JSON, answered with `ready` once the module is loaded and warm; each further line is a
moment (seconds of the monotonic clock) to start at and a length, answered with the runs that began in between.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

#: Runs before the first that counts, and the least time that they take together.
WARMUP_RUNS, WARMUP_S = 3, 0.5


def serve(lines: Any, answer: Any) -> None:
    """Load the module of the task, and run it whenever a line says from when and for how long.

    Args:
        lines: of text, the task first.
        answer: is given each answer as a line of text.
    """
    task = json.loads(next(lines))
    if task["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, task["cores"])
    import torch

    from bench.meters import handed_over

    torch.set_num_threads(task["threads"])
    handed_over.apply_settings(task["pickle"])
    module, args, kwargs = handed_over.read(task["pickle"])
    wait = torch.cuda.synchronize if task["device"].startswith("cuda") else lambda: None
    with handed_over.evaluating(module), torch.inference_mode():

        def run() -> None:
            module(*args, **kwargs)
            wait()

        _warm_up(run)
        answer("ready")
        for line in lines:
            start, seconds = json.loads(line)
            answer(json.dumps(_window(run, start, seconds)))


def _warm_up(run: Any) -> None:
    begin = time.perf_counter()
    for turn in range(10_000):
        if turn >= WARMUP_RUNS and time.perf_counter() - begin >= WARMUP_S:
            return
        run()


def _window(run: Any, start: float, seconds: float) -> list[list[float]]:
    """Start and end of each run, from the moment `start` until `seconds` later; the last one may end after that."""
    time.sleep(max(0.0, start - time.monotonic()))
    found = []
    while (begin := time.monotonic()) < start + seconds:
        run()
        found.append([begin, time.monotonic()])
    return found


def main() -> None:
    """Answer on what was the standard output; what the module prints goes to the error output."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(text: str) -> None:
        out.write(text + "\n")
        out.flush()

    serve(iter(sys.stdin), answer)


if __name__ == "__main__":
    main()
