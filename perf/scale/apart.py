"""A function in a process of its own, with the seconds that it took and the most memory that the process had."""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Taken:
    """What a function gave, how long it took without imports, and the most memory of its process."""

    result: Any
    seconds: float
    megabytes: float


def taken(function: str, *arguments: Any) -> Taken:
    """Call `module:function` with plain values in a new process.

    Raises:
        RuntimeError: it failed, with the end of what it printed.
    """
    command = [sys.executable, "-m", "perf.scale.apart", function, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{function}: {(done.stderr or done.stdout)[-2000:]}")
    return Taken(**json.loads(done.stdout.splitlines()[-1]))


def main(function: str, arguments: str) -> None:
    """Print what the call gave and took, as the last line."""
    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    values = json.loads(arguments)
    started = time.perf_counter()
    result = call(*values)
    seconds = time.perf_counter() - started
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in kilobytes
    print(json.dumps({"result": result, "seconds": seconds, "megabytes": most}))


if __name__ == "__main__":
    main(*sys.argv[1:])
