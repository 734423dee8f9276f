"""How right the instrument is: modules of known duration, identical networks, and other tools' loops beside ours.

Run `python -m perf.instrument --json FILE` on a machine that does nothing else. First busy-waits of 0.1 ms to 1 s: what
each tool reports for them. Then identical networks, timed by every tool in an order reshuffled each round: how often a
95 % interval says that they differ, how far off it really was, and what a case costs in time. Both versions of the
protocol are among the tools. `--busy 2` does all that beside two processes that compute and rest by turns, as on one
that others use.

A round takes ten minutes, most of them version 1's `standard`, and twenty give sixty comparisons of every tool. So it
may be run in parts: `--minutes 30` begins nothing after half an hour, and the same command with the same file goes on
where it stopped. `--without "waterline standard"` leaves a tool out, until the command is given without that.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.analysis.timings import paired, per_process, speedups
from bench.api import protocol_named
from bench.config import catalogue
from bench.config.schema import validate
from bench.errors import UsageError
from bench.plan import plan
from bench.statistics import Interval, log_mean_interval, ratio_interval_paired, ratio_interval_welch, wilson
from bench.store.records import Record
from bench.sweep.loop import Driver
from perf.loops import LOOPS, Loop, Subject, run

DURATIONS_MS = (0.1, 1.0, 10.0, 100.0, 1000.0)
#: Identical networks per round, compared two by two so that no two comparisons share a measurement.
NETWORKS = 6
PROTOCOLS = ("quick", "standard", "v2/quick", "v2/standard")
#: What is asked about identical networks: our protocols and the other tools' loops.
TOOLS: tuple[str | Loop, ...] = (*PROTOCOLS, *LOOPS)
#: Real errors that a comparison is to stay within, 95 % of the time.
GOALS = (0.02, 0.01)
#: Rounds, each of three comparisons.
ROUNDS = 20


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


def name_of(tool: str | Loop) -> str:
    """What the tables call another tool's loop, or ours under a protocol."""
    return tool.name if isinstance(tool, Loop) else f"waterline {tool}"


def sweep(protocol: str, models: Sequence[str], methods: Sequence[str]) -> tuple[list[Record], float]:
    """The records of a sweep of the real driver that only times, and its seconds.

    Raises:
        RuntimeError: a case failed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-instrument-") as scratch:
        folders = {name: f"{scratch}/{name}" for name in ("results", "site", "cache")}
        config = validate(
            {
                "suite": {
                    "name": "instrument",
                    "grids": {"default": [{"models": list(models), "methods": list(methods)}]},
                },
                "protocol": protocol_named(protocol).model_dump(),
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
        return list(done.records), seconds  # read while their files are there


def _ends(interval: Interval) -> tuple[float, float]:
    """Both ends; everything is possible where there is no interval."""
    return (interval.low or 0.0), (interval.high or math.inf)


# -- known durations --------------------------------------------------------------------------------------------


def known_by_us(known_ms: float) -> Known:
    """Our answer for one busy-wait, by the protocol `quick`."""
    (record,), seconds = sweep("quick", [f"perf.known:busy_wait(milliseconds={known_ms})"], ["none"])
    interval = log_mean_interval(per_process(record, "latency_ms"))
    return Known(name_of("quick"), known_ms, interval.value, *_ends(interval), seconds)


def known_by(loop: Loop, known_ms: float) -> Known:
    """Another tool's answer, with the interval over its iterations."""
    (times,), seconds = run(loop, [Subject("busy_wait", {"milliseconds": known_ms})])
    return Known(loop.name, known_ms, loop.value(times), *loop.interval(times), seconds)


def known_durations(longest_ms: float, done: Sequence[Known] = ()) -> Iterator[Known]:
    """Every tool's answer for every duration, but for those that are there."""
    have = {(row.tool, row.known_ms) for row in done}
    for known_ms in (duration for duration in DURATIONS_MS if duration <= longest_ms):
        if (name_of("quick"), known_ms) not in have:
            yield known_by_us(known_ms)
        for loop in LOOPS:
            if (loop.name, known_ms) not in have:
                yield known_by(loop, known_ms)


# -- identical networks -----------------------------------------------------------------------------------------


def twins_by_us(protocol: str, turn: int) -> list[Twins]:
    """One round of ours: a group of identical networks, compared two by two, process by process."""
    copies = [f"perf.known:same(number={number})" for number in range(1, NETWORKS)]
    records, seconds = sweep(protocol, ["perf.known:small_vit"], ["none", *copies])
    found = []
    for first, second in zip(records[::2], records[1::2], strict=True):
        ratio = said_of(first, second)
        found.append(Twins(name_of(protocol), turn, ratio.value, *_ends(ratio), seconds / NETWORKS))
    return found


def said_of(first: Record, second: Record) -> Interval:
    """What a row says of a case and its baseline, or what a comparison says of two cases of a session."""
    if first["case_key"] == second["baseline_key"]:
        return log_mean_interval(list(speedups(second).values()))
    medians = paired(first, second, "latency_ms")
    assert medians is not None  # one session timed all of them
    return ratio_interval_paired(*medians)


def twins_by(loop: Loop, number: int) -> list[Twins]:
    """One round of another tool's, its intervals over iterations."""
    times, seconds = run(loop, [Subject("small_vit", {})] * NETWORKS)
    found = []
    for first, second in zip(times[::2], times[1::2], strict=True):
        ratio = loop.value(first) / loop.value(second)
        interval = ratio_interval_welch(first, second)
        found.append(Twins(loop.name, number, ratio, *_ends(interval), seconds / NETWORKS))
    return found


def identical_networks(
    rounds: int, done: Sequence[Twins] = (), seed: int = 0, without: Collection[str] = ()
) -> Iterator[list[Twins]]:
    """Every tool's comparisons of every round that is not there, the tools in an order reshuffled each round."""
    have = {(row.tool, row.round) for row in done}
    for number in range(rounds):
        order = list(TOOLS)
        random.Random(f"{seed} {number}").shuffle(order)
        for tool in order:
            if name_of(tool) not in without and (name_of(tool), number) not in have:
                yield twins_by(tool, number) if isinstance(tool, Loop) else twins_by_us(tool, number)


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


def needed(rows: Sequence[Twins], goal: float = GOALS[0]) -> tuple[float, int, float]:
    """Real error of a comparison (95 %), repetitions that bring it within the goal, and seconds per case for them.

    The error is 1.96 times the root mean square of the logarithm of the ratio, whose truth is 0. Independent
    repetitions of the whole comparison reduce it by the root of their number.
    """
    spread = math.sqrt(statistics.fmean(math.log(row.ratio) ** 2 for row in rows))
    error = 1.96 * spread
    repetitions = max(1, math.ceil((error / math.log1p(goal)) ** 2))
    return math.expm1(error), repetitions, repetitions * statistics.fmean(row.seconds for row in rows)


def twins_table(rows: Sequence[Twins]) -> str:
    """Markdown: one line per tool."""
    lines = [
        "| tool | comparisons | said to differ | half-width claimed | real error, 95 % | s per case | "
        + " | ".join(f"for {goal:.0%}" for goal in GOALS)
        + " |",
        "|---|---:|---|---:|---:|---:|" + "---:|" * len(GOALS),
    ]
    for tool in dict.fromkeys(row.tool for row in rows):
        own = [row for row in rows if row.tool == tool]
        false = sum(row.differs for row in own)
        low, high = wilson(false, len(own))
        claimed = statistics.fmean((row.high - row.low) / 2 / row.ratio for row in own)
        seconds = statistics.fmean(row.seconds for row in own)
        times = " | ".join(f"{needed(own, goal)[2]:.0f}" for goal in GOALS)
        lines.append(
            f"| {tool} | {len(own)} | {_percent(false / len(own), 0)} ({_percent(low, 0)} to {_percent(high, 0)}) "
            f"| {_percent(claimed)} | {_percent(needed(own)[0])} | {seconds:.1f} | {times} |"
        )
    return "\n".join(lines)


@dataclass
class Answers:
    """Every answer so far, and beside how many busy processes they were taken."""

    busy: int
    known: list[Known] = field(default_factory=list)
    twins: list[Twins] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path | None, busy: int) -> Answers:
        """What a file holds of an earlier part; nothing where there is none.

        Raises:
            UsageError: it was taken beside another number of busy processes.
        """
        if file is None or not file.is_file():
            return cls(busy)
        found = json.loads(file.read_text())
        if found.get("busy") != busy:
            raise UsageError(f"{file} was taken with --busy {found.get('busy')}: give that, or another file")
        return cls(busy, [Known(**row) for row in found["known"]], [Twins(**row) for row in found["twins"]])

    def keep(self, file: Path | None) -> None:
        """Write every answer, so that a session that is stopped has lost nothing."""
        if file is not None:
            part = file.with_name(f"{file.name}.part")
            part.write_text(json.dumps(asdict(self), indent=1))
            part.replace(file)


def ask(answers: Answers, given: argparse.Namespace) -> bool:
    """Add what is missing to the answers until there is no time left; whether nothing is missing now."""
    start = time.monotonic()

    def late() -> bool:
        answers.keep(given.json)
        return given.minutes is not None and time.monotonic() - start > 60 * given.minutes

    for answer in known_durations(given.longest_ms, list(answers.known)):
        answers.known.append(answer)
        if late():
            return False
    for comparisons in identical_networks(given.rounds, list(answers.twins), without=given.without):
        answers.twins.extend(comparisons)
        if late():
            return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables, of everything that there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="rounds of identical networks, three comparisons each"
    )
    parser.add_argument("--longest-ms", type=float, default=1000.0, help="longest busy-wait; 0 for none")
    parser.add_argument("--json", type=Path, help="file that keeps every answer, to go on from")
    parser.add_argument("--minutes", type=float, help="after these nothing is begun")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[name_of(tool) for tool in TOOLS],
        help="leave a tool out of the identical networks; may be given more than once",
    )
    parser.add_argument("--busy", type=int, default=0, help="processes that compute and rest by turns meanwhile")
    given = parser.parse_args(argv)
    try:
        answers = Answers.read(given.json, given.busy)
    except UsageError as error:
        print(f"instrument: {error}", file=sys.stderr)
        return 2
    with busy_host(given.busy):
        whole = ask(answers, given)
    print(f"{known_table(answers.known)}\n\n{twins_table(answers.twins)}")
    if not whole:
        print("\nThere is more to ask: the same command goes on.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
