"""A process with torch imported and nothing else done, from which every worker is forked.

Importing torch takes one to two seconds; a fork of a process that has it takes a few milliseconds. The server touches
neither CUDA nor threads, so that a fork is as good as a fresh start (docs/protocol.md has the measurement).

Protocol: one JSON object a line. In: `{"spec": path, "log": path}`, at last `{"end": true}`. Out: first
`{"ready": {...}}`, then per job `{"pid": n}` and, when it has ended, `{"ended": wait status, "user_s", "system_s",
"max_resident_bytes"}`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from bench.config.paths import extend_import_path
from bench.worker import isolation
from bench.worker.scratch import HELD, is_abandoned

#: The request of a driver that ends in order.
END = {"end": True}
#: For so long a driver that is being killed may hold its folder.
GOING_S = 5.0


def _say(message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # a driver that is gone is told by the end of our input
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def _preload() -> dict[str, Any]:
    """Import what every worker needs, so that none pays for it; what it cost and whether it started threads."""
    start = time.perf_counter()
    import torch

    from bench.backends.openvino import silence_telemetry
    from bench.meters import layers  # noqa: F401
    from bench.worker import invocation, probe  # noqa: F401

    silence_telemetry()

    threads = len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").is_dir() else None
    started = torch.cuda.is_initialized()  # looks, and unlike is_available() starts nothing
    return {"import_s": time.perf_counter() - start, "threads": threads, "cuda": started, "torch": torch.__version__}


def _become_worker(request: dict[str, Any]) -> None:
    """In the fork: run the job and leave without returning to the server's loop."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        isolation.die_with_parent()
        isolation.volunteer_for_oom()
        isolation.redirect_output(Path(request["log"]))
        gc.enable()
        from bench.worker import child

        code = child.run(Path(request["spec"]))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _leave(scratch: Path | None) -> None:
    """End every child, whatever session it has put itself into, and with a driver that is no more its folder.

    Where the driver was killed we may be told before it is gone.

    Args:
        scratch: the driver's folder; None where the driver has told us to end and removes it itself.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of our input and the signal come together: once is enough
    isolation.end_children()
    with contextlib.suppress(OSError):
        if scratch is not None and is_abandoned(scratch / HELD, wait_s=GOING_S):
            shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


_DRIVER = os.getppid()


def serve(scratch: Path | None = None) -> None:
    """Fork one worker per request until standard input ends or the driver does; then end what the workers left.

    Args:
        scratch: the driver's folder, which goes with a driver that was killed.
    """
    signal.signal(signal.SIGTERM, lambda *_: _leave(scratch))
    isolation.die_with_parent(signal.SIGTERM)
    isolation.adopt_orphans()
    if os.getppid() != _DRIVER:  # it went before the kernel knew that we want to be told
        _leave(scratch)
    extend_import_path()
    _say({"ready": _preload()})
    gc.collect()
    gc.freeze()  # collections in a fork would otherwise copy every page that the server shares with it
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        if request == END:
            _leave(None)
        pid = os.fork()
        if pid == 0:
            _become_worker(request)
        _say({"pid": pid})
        _, status, usage = os.wait4(pid, 0)
        isolation.end_children()
        resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        _say({"ended": status, "user_s": usage.ru_utime, "system_s": usage.ru_stime, "max_resident_bytes": resident})
    _leave(scratch)


if __name__ == "__main__":
    serve(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
