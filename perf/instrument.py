"""How right the instrument is: modules of known duration, identical networks, and other tools' loops beside ours.

Run `python -m perf.instrument` on a machine that does nothing else (about 25 minutes; `--rounds` and `--longest-ms`
change that, `--json FILE` keeps the numbers). First busy-waits of 0.1 ms to 1 s: what each tool reports for them. Then
identical networks, timed by every tool in an order reshuffled each round: how often its 95 % interval says that they
differ, how far off it really was, and what a case costs in time. `--busy 2` does all that beside two processes that
compute and rest by turns, as on a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.analysis.timings import paired, per_process
from bench.api import protocol_named
from bench.config import catalogue
from bench.config.schema import validate
from bench.plan import plan
from bench.statistics import Interval, log_mean_interval, ratio_interval_paired, ratio_interval_welch, wilson
from bench.sweep.loop import Driver
from bench.sweep.writing import Sweep
from perf.loops import LOOPS, Loop, Subject, run

DURATIONS_MS = (0.1, 1.0, 10.0, 100.0, 1000.0)
#: Identical networks per round, compared two by two so that no two comparisons share a measurement.
NETWORKS = 6
PROTOCOLS = ("quick", "standard")
GOAL = 0.02


@dataclass(frozen=True)
class Known:
    """What a tool reported for a busy-wait: milliseconds with the interval that its samples give."""

    tool: str
    known_ms: float
    value_ms: float
    low_ms: float
    high_ms: float
    seconds: float


@dataclass(frozen=True)
class Twins:
    """One comparison of two identical networks: the ratio with its interval, and seconds spent per network."""

    tool: str
    round: int
    ratio: float
    low: float
    high: float
    seconds: float

    @property
    def differs(self) -> bool:
        """Whether the interval says that the two differ; they do not."""
        return not self.low <= 1.0 <= self.high


def sweep(protocol: str, models: Sequence[str], methods: Sequence[str], **latency: Any) -> tuple[Sweep, float]:
    """A sweep of the real driver that only times, and its seconds."""
    values = protocol_named(protocol).model_dump()
    values["latency"].update(latency)
    with tempfile.TemporaryDirectory(prefix="bench-instrument-") as scratch:
        folders = {name: f"{scratch}/{name}" for name in ("results", "site", "cache")}
        config = validate(
            {
                "suite": {
                    "name": "instrument",
                    "grids": {"default": [{"models": list(models), "methods": list(methods)}]},
                },
                "protocol": values,
                "tracking": {"enabled": False},
                "paths": folders,
            }
        )
        made = plan.make(config, catalogue.load())
        start = time.perf_counter()
        done = Driver(config, made, meters=(), calibrated=False).run({})
        seconds = time.perf_counter() - start
    for record in done.failed:
        raise RuntimeError(f"{record['case']['model']}: {record['error']}")
    return done, seconds


def _ends(interval: Interval) -> tuple[float, float]:
    """Both ends; everything is possible where there is no interval."""
    return (interval.low or 0.0), (interval.high or math.inf)


# -- known durations --------------------------------------------------------------------------------------------


def known_by_us(known_ms: float) -> Known:
    """Our answer for one busy-wait, by the protocol `quick`; a busy second gets the fewest samples it allows."""
    slow = {"samples": 10, "throughput_windows": 1} if known_ms > 500 else {}
    done, seconds = sweep("quick", [f"perf.known:busy_wait(milliseconds={known_ms})"], ["none"], **slow)
    interval = log_mean_interval(per_process(done.records[0], "latency_ms"))
    return Known("waterline quick", known_ms, interval.value, *_ends(interval), seconds)


def known_by(loop: Loop, known_ms: float) -> Known:
    """Another tool's answer, with the interval over its iterations."""
    (times,), seconds = run(loop, [Subject("busy_wait", {"milliseconds": known_ms})])
    return Known(loop.name, known_ms, loop.value(times), *loop.interval(times), seconds)


def known_durations(longest_ms: float) -> Iterator[Known]:
    """Every tool's answer for every duration."""
    for known_ms in (duration for duration in DURATIONS_MS if duration <= longest_ms):
        yield known_by_us(known_ms)
        for loop in LOOPS:
            yield known_by(loop, known_ms)


# -- identical networks -----------------------------------------------------------------------------------------


def twins_by_us(protocol: str, turn: int) -> list[Twins]:
    """One round of ours: a group of identical networks, compared two by two, process by process."""
    copies = [f"perf.known:same(number={number})" for number in range(1, NETWORKS)]
    done, seconds = sweep(protocol, ["perf.known:small_vit"], ["none", *copies])
    found = []
    for first, second in zip(done.records[::2], done.records[1::2], strict=True):
        medians = paired(first, second, "latency_ms")
        assert medians is not None  # one session timed all of them
        ratio = ratio_interval_paired(*medians)
        found.append(Twins(f"waterline {protocol}", turn, ratio.value, *_ends(ratio), seconds / NETWORKS))
    return found


def twins_by(loop: Loop, number: int) -> list[Twins]:
    """One round of another tool's, its intervals over iterations."""
    times, seconds = run(loop, [Subject("small_vit", {})] * NETWORKS)
    found = []
    for first, second in zip(times[::2], times[1::2], strict=True):
        ratio = loop.value(first) / loop.value(second)
        interval = ratio_interval_welch(first, second)
        found.append(Twins(loop.name, number, ratio, *_ends(interval), seconds / NETWORKS))
    return found


def identical_networks(rounds: int, seed: int = 0) -> Iterator[Twins]:
    """Every tool's comparisons, the tools in an order reshuffled each round."""
    shuffled = random.Random(seed)
    tools: list[str | Loop] = [*PROTOCOLS, *LOOPS]
    for number in range(rounds):
        shuffled.shuffle(tools)
        for tool in tools:
            yield from twins_by(tool, number) if isinstance(tool, Loop) else twins_by_us(tool, number)


# -- a host that others use -------------------------------------------------------------------------------------


def _compute_and_rest(seed: int) -> None:
    """Keep a core busy and leave it alone by turns of 0.1 to 5 s each, for ever."""
    chance = random.Random(seed)
    while True:
        end = time.monotonic() + chance.uniform(0.1, 5.0)
        while time.monotonic() < end:
            sum(range(1000))
        time.sleep(chance.uniform(0.1, 5.0))


@contextmanager
def busy_host(processes: int) -> Iterator[None]:
    """Other people's work on this machine while the block runs."""
    others = [multiprocessing.Process(target=_compute_and_rest, args=(seed,), daemon=True) for seed in range(processes)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


# -- tables -----------------------------------------------------------------------------------------------------


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def known_table(rows: Sequence[Known]) -> str:
    """Markdown: known against reported, in microseconds off."""
    lines = ["| known | tool | reported | off by | 95 % interval of that | seconds |", "|---|---|---|---|---|---|"]
    for row in rows:
        off, low, high = ((value - row.known_ms) * 1e3 for value in (row.value_ms, row.low_ms, row.high_ms))
        interval = f"[{low:+.1f}, {high:+.1f}] us" if math.isfinite(high) else "none: too few samples"
        relative = _percent(row.value_ms / row.known_ms - 1, 3)
        lines.append(
            f"| {row.known_ms:g} ms | {row.tool} | {row.value_ms:.4f} ms | {off:+.1f} us ({relative}) "
            f"| {interval} | {row.seconds:.1f} |"
        )
    return "\n".join(lines)


def needed(rows: Sequence[Twins]) -> tuple[float, int, float]:
    """Real error of a comparison (95 %), repetitions that bring it within the goal, and seconds per case for them.

    The error is 1.96 times the root mean square of the logarithm of the ratio, whose truth is 0. Independent
    repetitions of the whole comparison reduce it by the root of their number.
    """
    spread = math.sqrt(statistics.fmean(math.log(row.ratio) ** 2 for row in rows))
    error = 1.96 * spread
    repetitions = max(1, math.ceil((error / math.log1p(GOAL)) ** 2))
    return math.expm1(error), repetitions, repetitions * statistics.fmean(row.seconds for row in rows)


def twins_table(rows: Sequence[Twins]) -> str:
    """Markdown: one line per tool."""
    lines = [
        (
            "| tool | comparisons | said to differ | 95 % interval of that share | half-width claimed, mean | real "
            f"error, 95 % | s per case | s per case for +-{GOAL:.0%} |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for tool in dict.fromkeys(row.tool for row in rows):
        own = [row for row in rows if row.tool == tool]
        false = sum(row.differs for row in own)
        low, high = wilson(false, len(own))
        claimed = statistics.fmean((row.high - row.low) / 2 / row.ratio for row in own)
        error, repetitions, seconds = needed(own)
        lines.append(
            f"| {tool} | {len(own)} | {_percent(false / len(own), 0)} | {_percent(low, 0)} to {_percent(high, 0)} "
            f"| {_percent(claimed)} | {_percent(error)} | {statistics.fmean(row.seconds for row in own):.1f} "
            f"| {seconds:.1f} ({repetitions} times) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print both tables, the first lines as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of identical networks, three comparisons each")
    parser.add_argument("--longest-ms", type=float, default=1000.0, help="longest busy-wait")
    parser.add_argument("--json", type=Path, help="file for every single answer")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute and rest by turns meanwhile")
    arguments = parser.parse_args()
    known: list[Known] = []
    twins: list[Twins] = []
    with busy_host(arguments.busy):
        for answer in known_durations(arguments.longest_ms):
            known.append(answer)
            keep(arguments.json, known, twins)
        print(known_table(known), flush=True)
        for comparison in identical_networks(arguments.rounds):
            twins.append(comparison)
            keep(arguments.json, known, twins)
    print("\n" + twins_table(twins))


def keep(file: Path | None, known: Sequence[Known], twins: Sequence[Twins]) -> None:
    """Write every answer so far, so that a session that is stopped has lost nothing."""
    if file is not None:
        answers = {"known": [asdict(row) for row in known], "twins": [asdict(row) for row in twins]}
        file.write_text(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main()
