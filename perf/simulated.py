"""What a protocol's rule keeps of its promises, by simulation: coverage, bias, real error, power and seconds.

`python -m perf.simulated` draws sessions from worlds of scatter (`perf.worlds`), lets each rule take as many processes
as it wants, and asks the estimators and verdicts of `bench.statistics` what they say; `--runs`, `--rules` and
`--worlds` choose. Deterministic by `--seed`: every rule sees a world with numbers of its own seed.

A group is a baseline, its twin, an identical network, and two that are 5 and 10 % slower, with the reference product
beside them. What a session costs is counted and not measured: of each process the start, of each member warm-up,
samples, throughput windows and passes of the layers, as the protocol's parameters say; probes are not in it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from bench.api import protocol_named
from bench.config.protocol import Protocol
from bench.statistics import Interval, log_mean_interval, ratio_interval_paired, verdict
from perf.worlds import BY_5, BY_10, MEMBERS, PRODUCT, SAME, TWIN, WORLDS, World, draw

#: Seconds of a process outside warm-up and measured windows (docs/protocol.md, "What a fresh process costs").
START_S = 0.36
#: Sessions that are drawn at once, so that they fit into memory.
AT_ONCE = 100
#: Processes that the truth of a time is taken from.
FOR_TRUTH = 20_000
BASELINE = "baseline"
#: Members that get a row; the twin does not.
CASES = tuple(name for name in MEMBERS if name != TWIN)

#: Logarithms of the medians of processes, [sessions, processes] by member.
Medians = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rule:
    """A way to take a session; version 1's are the protocol's parameters and nothing else.

    Attributes:
        name: in the table.
        protocol: its parameters.
    """

    name: str
    protocol: Protocol

    def rounds(self, world: World) -> int:
        """Samples of each member in a process."""
        latency = self.protocol.latency
        return max(latency.min_samples, min(latency.samples, int(latency.case_seconds * 1e3 / world.ms)))

    def warm_s(self, world: World) -> float:
        """Seconds of warm-up of each member."""
        latency = self.protocol.latency
        return min(latency.warmup_cap_s, max(latency.warmup_s, latency.warmup_iterations * world.ms / 1e3))


RULES = tuple(Rule(name, protocol_named(name)) for name in ("glance", "quick", "standard", "publish"))


@dataclass(frozen=True)
class Row:
    """What a rule did in a world, over all sessions; None where it gives no interval.

    Attributes:
        rule: its name.
        world: its name.
        processes: mean of a session.
        seconds: mean for one case.
        half_width: mean relative half-width of ratios.
        error: within which 95 % of ratios lie of their truth (1.96 times the root mean square).
        coverage: of the truth by the intervals of ratios.
        bias: of ratios, in half-widths.
        time_coverage: of the true time by that of the baseline.
        time_bias: of times, in half-widths.
        differs: share of identical networks whose interval leaves 1 out.
        false: share of identical networks that are called FASTER or SLOWER.
        found_5: share of the networks 5 % slower that are called SLOWER.
        found_10: of those 10 % slower.
    """

    rule: str
    world: str
    processes: float
    seconds: float
    half_width: float | None
    error: float
    coverage: float | None
    bias: float | None
    time_coverage: float | None
    time_bias: float | None
    differs: float | None
    false: float
    found_5: float
    found_10: float


# ------------------------------------------------------------------------------------------------ one session
def process_seconds(rule: Rule, world: World) -> float:
    """What one process costs by the protocol's parameters."""
    latency, ms = rule.protocol.latency, world.ms / 1e3
    runners = len(MEMBERS) + 1
    taken = rule.warm_s(world) + rule.rounds(world) * max(ms, latency.min_sample_ms / 1e3)
    windows = latency.throughput_windows * max(latency.throughput_window_s, 2 * ms)
    layers = 2 * rule.protocol.counting.layer_repeats * ms
    return START_S + runners * taken + len(MEMBERS) * windows + len(CASES) * layers


def half_widths(logs: np.ndarray) -> np.ndarray:
    """Relative half-widths of t-intervals of the first n of each row, for n = 1, 2, ...; infinite for one.

    Args:
        logs: [sessions, processes].
    """
    n = np.arange(1, logs.shape[1] + 1)
    centred = logs - logs[:, :1]
    sums, squares = np.cumsum(centred, axis=1), np.cumsum(centred**2, axis=1)
    found = np.full(logs.shape, np.inf)
    variance = np.maximum(0.0, squares - sums**2 / n)[:, 1:] / (n[1:] - 1)
    found[:, 1:] = np.expm1(special.stdtrit(n[1:] - 1, 0.975) * np.sqrt(variance / n[1:]))
    return found


def processes_taken(rule: Rule, world: World, medians: Medians) -> np.ndarray:
    """Processes after which each session ends, [sessions]: `bench.analysis.session.decide` for many at once."""
    latency = rule.protocol.latency
    wide = half_widths(medians[BASELINE]) / latency.absolute_half_width
    for name in CASES[1:]:
        wide = np.maximum(wide, half_widths(medians[name]) / latency.absolute_half_width)
        wide = np.maximum(wide, half_widths(medians[BASELINE] - medians[name]) / latency.ratio_half_width)
    budget = math.ceil(latency.budget_s / process_seconds(rule, world))
    first, further = latency.invocations, latency.further_invocations
    cap = max(first, min(latency.max_invocations, budget))
    taken = np.full(len(wide), cap)
    for n in range(cap - 1, first - 1, -1):
        done = wide[:, n - 1] <= latency.at_once
        if n - further >= first:
            done |= wide[:, n - further - 1] <= 1.0
        taken[done] = n
    return taken


@dataclass(frozen=True)
class Answer:
    """What one session says: intervals of the ratios of the cases to the baseline, of its time and of the twin."""

    ratios: dict[str, Interval]
    time: Interval
    twin: Interval
    processes: int


def answer(medians: Medians, number: int, processes: int) -> Answer:
    """The estimates of one session by the estimators of records.

    Args:
        medians: of all sessions.
        number: which.
        processes: that it took.
    """
    ms = {name: np.exp(values[number, :processes]) for name, values in medians.items()}
    ratios = {name: ratio_interval_paired(ms[BASELINE], ms[name]) for name in CASES[1:]}
    twin = ratio_interval_paired(ms[BASELINE], ms[TWIN])
    return Answer(ratios, log_mean_interval(ms[BASELINE]), twin, processes)


# ------------------------------------------------------------------------------------------------ many sessions
def medians_of(rule: Rule, world: World, rng: np.random.Generator, sessions: int, warm_s: float) -> Medians:
    """Medians of as many processes as a rule may take."""
    times = draw(world, rng, sessions, rule.protocol.latency.max_invocations, rule.rounds(world), warm_s)
    return {name: np.median(values, axis=2) for name, values in times.items()}


def true_time(rule: Rule, world: World, seed: int) -> float:
    """Logarithm of the baseline's time that processes have in the long run, once it has warmed up, over all sessions."""
    rng, found = np.random.default_rng([seed, 1]), list[float]()
    lasting = replace(world, session=0.0)
    for _ in range(FOR_TRUTH // (20 * AT_ONCE)):
        times = draw(lasting, rng, AT_ONCE, 20, rule.rounds(world), math.inf, names=(BASELINE,))[BASELINE]
        found.append(float(np.mean(np.median(times, axis=2))))
    return float(np.mean(found))


def simulate(rule: Rule, world: World, runs: int, seed: int = 0) -> Row:
    """What a rule does in a world, over so many sessions."""
    rng, answers = np.random.default_rng([seed, 0]), list[Answer]()
    while len(answers) < runs:
        sessions = min(AT_ONCE, runs - len(answers))
        medians = medians_of(rule, world, rng, sessions, rule.warm_s(world))
        taken = processes_taken(rule, world, medians)
        answers += [answer(medians, number, int(n)) for number, n in enumerate(taken)]
    return told(rule, world, answers, true_time(rule, world, seed))


def told(rule: Rule, world: World, answers: Sequence[Answer], time: float) -> Row:
    """The row of answers; `time` is the logarithm of the baseline's true one."""
    pairs = [(ratio, -MEMBERS[name]) for one in answers for name, ratio in one.ratios.items()]
    times = [(one.time, time) for one in answers]
    wrong = np.array([math.log(ratio.value) - truth for ratio, truth in pairs])
    same = [one.ratios[SAME] for one in answers]
    processes = float(np.mean([one.processes for one in answers]))
    return Row(
        rule.name,
        world.name,
        processes,
        processes * process_seconds(rule, world) / len(CASES),
        _mean_half_width(pairs),
        math.expm1(1.96 * math.sqrt(float(np.mean(wrong**2)))),
        _coverage(pairs),
        _bias(pairs),
        _coverage(times),
        _bias(times),
        None if same[0].low is None else float(np.mean([not covers(ratio, 0.0) for ratio in same])),
        _called(answers, SAME, ("FASTER", "SLOWER")),
        _called(answers, BY_5, ("SLOWER",)),
        _called(answers, BY_10, ("SLOWER",)),
    )


def covers(interval: Interval, truth: float) -> bool:
    """Whether an interval holds a value whose logarithm is given."""
    return interval.low is not None and interval.high is not None and interval.low <= math.exp(truth) <= interval.high


Pairs = Sequence[tuple[Interval, float]]


def _mean_half_width(pairs: Pairs) -> float | None:
    widths = [interval.half_width for interval, _ in pairs if interval.half_width is not None]
    return float(np.mean(widths)) if widths else None


def _coverage(pairs: Pairs) -> float | None:
    known = [covers(interval, truth) for interval, truth in pairs if interval.low is not None]
    return float(np.mean(known)) if known else None


def _bias(pairs: Pairs) -> float | None:
    width = _mean_half_width(pairs)
    off = float(np.mean([math.log(interval.value) - truth for interval, truth in pairs]))
    return off / math.log1p(width) if width else None


def _called(answers: Sequence[Answer], name: str, kinds: Sequence[str]) -> float:
    floors = [None if one.twin.low is None else (one.twin.low, one.twin.high) for one in answers]
    said = [verdict(one.ratios[name], noise_floor=floor).kind for one, floor in zip(answers, floors, strict=True)]
    return float(np.mean([kind in kinds for kind in said]))


# ------------------------------------------------------------------------------------------------ telling
def _share(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def as_markdown(rows: Sequence[Row]) -> str:
    """A line for each rule in each world."""
    lines = [
        "| rule | world | processes | s per case | half-width | real error | coverage | bias | of times: coverage | bias "
        "| identical: 1 left out | called | 5 % found | 10 % found |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        bias, time_bias = ("-" if value is None else f"{value:+.2f}" for value in (row.bias, row.time_bias))
        lines.append(
            f"| {row.rule} | {row.world} | {row.processes:.1f} | {row.seconds:.1f} | {_share(row.half_width, 2)} "
            f"| {_share(row.error, 2)} | {_share(row.coverage)} | {bias} | {_share(row.time_coverage)} | {time_bias} "
            f"| {_share(row.differs)} | {_share(row.false)} | {_share(row.found_5, 0)} | {_share(row.found_10, 0)} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.simulated", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="sessions of each rule in each world")
    parser.add_argument("--rules", nargs="+", choices=[rule.name for rule in RULES])
    parser.add_argument("--worlds", nargs="+", choices=[world.name for world in WORLDS])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    rules = [rule for rule in RULES if not given.rules or rule.name in given.rules]
    worlds = [world for world in WORLDS if not given.worlds or world.name in given.worlds]
    print(as_markdown([]))
    for world in worlds:
        for rule in rules:
            print(as_markdown([simulate(rule, world, given.runs, given.seed)]).splitlines()[-1], flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
