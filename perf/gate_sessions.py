"""Sessions for `perf.gate_power`: measured one after another for some minutes, on a quiet runner or beside neighbours.

Every session is a driver of its own with a results folder of its own, as two runs of a pipeline are.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
#: One network, timed by itself: a session takes the better part of a minute.
OVERRIDES = (
    "suite=vit_tokens", "suite.models=[deit_tiny]", "suite.methods=[none]", "suite.batches=[1]", "protocol=quick",
    "task=none", "counts=false", "tracking=off", "report=off", "protocol.energy.backend=off",
    "protocol.counting.second_count=false", "protocol.counting.layer_repeats=2",
)  # fmt: skip
#: Seconds for all sessions; with the simulation after it the command ends within twelve minutes.
SECONDS = 420.0
RUNNERS = ("quiet", "busy")
#: A neighbour computes and rests in turn, each for a time drawn between these: half of a core, in no rhythm.
BURST_S = (0.2, 3.0)

#: A neighbour, until whoever started it is gone.
_NEIGHBOUR = """
import os, random, sys, time
chance, parent = random.Random(int(sys.argv[1])), os.getppid()
least, most = float(sys.argv[2]), float(sys.argv[3])
while os.getppid() == parent:
    end = time.monotonic() + chance.uniform(least, most)
    while time.monotonic() < end:
        sum(range(10_000))
    time.sleep(chance.uniform(least, most))
"""


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes beside, each of which computes half of the time in bursts; they end with the block."""
    running = [
        subprocess.Popen([sys.executable, "-c", _NEIGHBOUR, str(seed), *map(str, BURST_S)]) for seed in range(count)
    ]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measured(
    folder: Path,
    runner: str,
    seconds: float = SECONDS,
    session: Callable[[Path], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Path]:
    """Results folders of the sessions that fit into so many seconds; the next one begins only where it would.

    Args:
        folder: where they are to lie; sessions that are there already are kept and not counted.
        runner: `quiet`, or `busy` for a neighbour on every core.
        seconds: for all of them.
        session: measures one into a folder; default a driver in a process of its own.
        clock: seconds that only grow; replaced in tests.

    Raises:
        UsageError: a session failed.
    """
    start, made, longest = clock(), list[Path](), 0.0
    with neighbours((os.cpu_count() or 1) if runner == "busy" else 0):
        while clock() - start + longest < seconds:
            began = clock()
            made.append(folder / f"{runner}-{random.SystemRandom().randrange(2**32):08x}")
            (session or _session)(made[-1])
            longest = max(longest, clock() - began)
    return made


def _session(results: Path) -> None:
    overrides = [*OVERRIDES, f'paths.results="{results}"']
    done = subprocess.run(
        [sys.executable, "-m", "bench", *overrides], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 3):  # 3: finished, with rows that say what disturbed them
        raise UsageError(f"a session ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def written(page: Path, runner: str, text: str) -> None:
    """Put a runner's table between its marks in a page.

    Raises:
        UsageError: the page has no place for it.
    """
    begin, end = (f"<!-- gate_power {runner}: {word} -->" for word in ("begin", "end"))
    whole = page.read_text(encoding="utf-8")
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UsageError(f"{page} has no {begin} ... {end}")
    margin = before[before.rfind("\n") + 1 :]
    lines = "\n".join(f"{margin}{line}".rstrip() for line in text.splitlines())
    page.write_text(f"{before}{begin}\n{lines}\n{margin}{end}{after}", encoding="utf-8")
