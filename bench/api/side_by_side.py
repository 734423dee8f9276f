"""`bench.instances`: throughput and latency of several copies of a module that run at once, cores shared out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.given import checked_device
from bench.errors import BenchError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bench.api.results import Instances

#: Seconds that an instance may take to load and warm up, and beyond its window to answer.
LOAD_S = 300.0
#: Seconds from now at which a window begins, so that every instance has read its line.
LEAD_S = 0.2
COLUMNS = (
    "instances", "threads", "throughput_per_s", "throughput_low", "throughput_high", "latency_ms", "latency_low",
    "latency_high", "p99_ms", "slowest_share", "rounds", "runs", "flag",
)  # fmt: skip


def instances(
    module: nn.Module,
    inputs: Any,
    counts: Sequence[int] | None = None,
    *,
    kwargs: dict[str, Any] | None = None,
    batch: int | None = None,
    device: str | torch.device = "cpu",
    seconds: float = 2.0,
    rounds: int = 5,
) -> Instances:
    """Throughput and latency by the number of instances, one row for each.

    An instance is a fresh process with the module and its own share of the cores, next to each other and none twice, on
    which it runs its forwards one after another. The counts take turns for so many rounds; intervals are over rounds.
    Nothing else is measured meanwhile: it is the instances that are together. A round in which other work used the
    cores is in the row's flag.

    Args:
        module: any `torch.nn.Module`; it is measured in evaluation mode and left as it was.
        inputs: of one forward, as `bench.measure` takes them.
        counts: how many at once; by default 1, 2, 4, ... and all cores.
        kwargs: keyword inputs beside positional ones.
        batch: samples per forward; by default told from the inputs.
        device: where to run; on a GPU the instances share the device, and their hosts' cores are shared out.
        seconds: length of a window.
        rounds: windows of each count.

    Raises:
        UsageError: more instances than cores, or none.
        BenchError: an instance failed; with the end of its log.
    """
    from bench.analysis.instances import together
    from bench.api.results import Instances
    from bench.meters import handed_over
    from bench.meters.inputs import as_call, batch_for

    handed_over.check_module(module)
    name = checked_device(device)
    args, keywords = as_call(inputs, kwargs)
    samples = batch_for(module, args, keywords, batch).size
    wanted = _counts(counts)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-instances-") as scratch:
        path = Path(scratch) / "module.pickle"
        handed_over.write(path, module, args, keywords)
        found: dict[int, list[Any]] = {count: [] for count in wanted}
        flags: dict[int, set[str]] = {count: set() for count in wanted}
        for _ in range(rounds):
            for count in wanted:  # taking turns, so that a slow minute is everybody's
                with _Company(path, count, name, Path(scratch)) as company:
                    answer, said = company.window(seconds)
                found[count].append(answer)
                flags[count] |= set(said)
        for count in wanted:
            rows.append(_row(together(found[count], samples), rounds, sorted(flags[count])))
    return Instances(rows, columns=list(COLUMNS))


def _row(found: Any, rounds: int, flags: Sequence[str]) -> dict[str, Any]:
    return {
        "instances": found.instances,
        "threads": len(_shares(found.instances)[0]),
        "throughput_per_s": found.throughput.value,
        "throughput_low": found.throughput.low,
        "throughput_high": found.throughput.high,
        "latency_ms": found.latency_ms.value,
        "latency_low": found.latency_ms.low,
        "latency_high": found.latency_ms.high,
        "p99_ms": found.p99_ms,
        "slowest_share": found.slowest_share,
        "rounds": rounds,
        "runs": found.runs,
        "flag": "; ".join(flags),
    }


def _usable() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _counts(asked: Sequence[int] | None) -> list[int]:
    """The numbers of instances in order.

    Raises:
        UsageError: there is none, or one for which there is not a core each.
    """
    cores = len(_usable())
    if asked is None:
        doubled = [2**place for place in range(cores.bit_length()) if 2**place < cores]
        return [*doubled, cores]
    wanted = sorted(set(asked))
    if not wanted or wanted[0] < 1 or wanted[-1] > cores:
        raise UsageError(f"counts={list(asked)}: give numbers from 1 to {cores}, the cores that are usable here")
    return wanted


def _shares(count: int) -> list[list[int]]:
    """The cores of each instance, equally many and next to each other; what is left over stays idle."""
    cores = _usable()
    size = len(cores) // count
    return [cores[place * size : (place + 1) * size] for place in range(count)]


class _Company:
    """So many instances, loaded and warm, and ended when the context is left."""

    def __init__(self, path: Path, count: int, device: str, folder: Path) -> None:
        self._logs = [folder / f"instance{place}.log" for place in range(count)]
        self._tasks = [
            {"pickle": str(path), "cores": cores, "threads": len(cores), "device": device} for cores in _shares(count)
        ]
        self._processes: list[subprocess.Popen[str]] = []
        self._open = ExitStack()

    def __enter__(self) -> _Company:
        try:
            for task, log in zip(self._tasks, self._logs, strict=True):
                file = self._open.enter_context(log.open("w", encoding="utf-8"))
                command = [sys.executable, "-m", "bench.worker.instance"]
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
                )
                self._processes.append(process)
                self._tell(process, json.dumps(task))
            for place in range(len(self._processes)):
                if self._answer(place, LOAD_S) != "ready":
                    raise BenchError(f"an instance did not get ready: {self._log(place)}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self._open.close()

    def window(self, seconds: float) -> tuple[tuple[list[Any], float, float], list[str]]:
        """The runs of every instance from one moment on, with that moment and the length; and what disturbed them."""
        before = self._busy()
        start = time.monotonic() + LEAD_S
        for process in self._processes:
            self._tell(process, json.dumps([start, seconds]))
        runs = [json.loads(self._answer(place, LEAD_S + seconds + LOAD_S)) for place in range(len(self._processes))]
        return (runs, start, seconds), disturbances(before, self._busy())

    def _busy(self) -> Busy:
        """What the host and these processes have used until now."""
        import psutil

        times = psutil.cpu_times()
        whole = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
        own = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        mine = psutil.Process().cpu_times()
        ours = sum(each.user + each.system for each in [*own, mine])
        return Busy(time.monotonic(), whole, ours, getattr(times, "steal", 0.0))

    def _tell(self, process: subprocess.Popen[str], text: str) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(text + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and reading its answer says why

    def _answer(self, place: int, seconds: float) -> str:
        """The next line of an instance.

        Raises:
            BenchError: it ended, or took longer.
        """
        import selectors

        pipe = self._processes[place].stdout
        assert pipe is not None
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise BenchError(f"an instance gave no answer in {seconds:g} s: {self._log(place)}")
        line = pipe.readline().strip()
        if not line:
            raise BenchError(f"an instance ended: {self._log(place)}")
        return line

    def _log(self, place: int) -> str:
        self._open.close()
        lines = self._logs[place].read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


@dataclass(frozen=True)
class Busy:
    """Seconds of processor time until a moment: of the host, of what is measured, and given to other machines."""

    moment: float
    host_s: float
    ours_s: float
    stolen_s: float


def disturbances(before: Busy, after: Busy) -> list[str]:
    """What used the cores besides the instances between two moments, by the limits of every measurement."""
    from bench.host.hostwatch import LIMITS

    seconds = max(after.moment - before.moment, 1e-6)
    others = ((after.host_s - before.host_s) - (after.ours_s - before.ours_s)) / seconds
    stolen = (after.stolen_s - before.stolen_s) / seconds / len(_usable())
    found = [f"host busy: {others:.1f} cores"] if others > LIMITS.busy_cores else []
    return found + (["stolen time"] if stolen > LIMITS.steal_share else [])
