"""What a protocol's rule keeps of its promises, by simulation: coverage, bias, real error, power and seconds.

`python -m perf.simulated` draws sessions from worlds of scatter (`perf.worlds`), lets each rule take as many processes
as it wants, and asks the estimators and verdicts of `bench.statistics` what they say; `--runs`, `--rules` and
`--worlds` choose. The same `--seed` gives the same rows.

A group is a baseline, its twin, an identical network, and two that are 5 and 10 % slower, with the reference product
beside them. Rules and what they cost are in `perf.rules`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from bench.allocation import common_warm_up, controlled, ratio_with_twin
from bench.statistics import Interval, log_mean_interval, ratio_interval_paired, verdict
from perf.rules import (
    RATIO,
    RULES,
    RUNNERS,
    Rule,
    Values,
    drawn_rounds,
    fixed_warm_s,
    is_long,
    middles,
    placed,
    processes_taken,
    rounds_of,
    said,
    seconds_of,
)
from perf.worlds import (
    BASELINE,
    BY_5,
    BY_10,
    CASES,
    LONG_RUNS,
    MEMBERS,
    PRODUCT,
    SAME,
    TWIN,
    WORLDS,
    WarmUps,
    World,
    draw,
    warm_up,
)

#: Sessions that are drawn at once, so that they fit into memory.
AT_ONCE = 100
#: Processes that the truth of a time is taken from.
FOR_TRUTH = 10_000
#: Processes of other groups of the session, whose products say where the machine is on average.
ELSEWHERE = 24


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
        time_half_width: mean relative half-width of times.
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
    time_half_width: float | None = None

    def seconds_for(self, goal: float) -> float:
        """Seconds for one case until its real error is within the goal, by repeating the whole session.

        Independent sessions reduce it by the root of their number, as in the comparison of tools (`perf.instrument`).
        """
        return self.seconds * max(1, math.ceil((math.log1p(self.error) / math.log1p(goal)) ** 2))


# ------------------------------------------------------------------------------------------------ one session
@dataclass(frozen=True)
class Answer:
    """What one session says: intervals of the ratios of the cases to the baseline, of its time and of the twin."""

    ratios: dict[str, Interval]
    time: Interval
    twin: Interval
    processes: int
    seconds: float


def answer(rule: Rule, values: Values, number: int, processes: int, seconds: float) -> Answer:
    """The estimates of one session by the estimators of records, with the controls that the rule takes.

    Args:
        rule: says which.
        values: of all sessions; the last `ELSEWHERE` processes are other groups'.
        number: of the session.
        processes: that it took.
        seconds: that these took.
    """
    ms = {name: np.exp(found[number, :processes]) for name, found in values.items()}
    base, twin = ms[BASELINE], ms[TWIN]
    if rule.latency.by_rounds:
        ratios = {name: log_mean_interval(ms[RATIO + name]) for name in CASES[1:]}
    else:
        ratios = {
            name: ratio_with_twin(base, twin, ms[name]) if rule.twin else ratio_interval_paired(base, ms[name])
            for name in CASES[1:]
        }
    if rule.slope is None:
        time = log_mean_interval(base)
    else:
        time = controlled(base, ms[PRODUCT], np.exp(values[PRODUCT][number, -ELSEWHERE:]), rule.slope)
    floor = log_mean_interval(ms[RATIO + TWIN]) if rule.latency.by_rounds else ratio_interval_paired(base, twin)
    return Answer(ratios, time, floor, processes, seconds)


# ------------------------------------------------------------------------------------------------ many sessions
def warm_ups(rule: Rule, world: World, rng: np.random.Generator, shape: tuple[int, int]) -> WarmUps:
    """Seconds of the warm-ups: the protocol's, or after a first process those that it showed to be needed."""
    fixed = fixed_warm_s(rule, world)
    if rule.warm == "fixed":
        return fixed
    most = max(rule.latency.warmup_iterations, math.ceil(fixed * 1e3 / world.ms))
    traces = np.stack([warm_up(world, rng, shape[0], 1, most)[:, 0] for _ in range(RUNNERS)], axis=1)
    needed = common_warm_up(traces) * world.ms / 1e3
    seconds = np.repeat(needed[:, None], shape[1], axis=1)
    seconds[:, 0] = fixed
    return dict.fromkeys((*MEMBERS, PRODUCT), seconds)


def sessions_of(
    rule: Rule, world: World, rng: np.random.Generator, sessions: int
) -> tuple[Values, np.ndarray, np.ndarray]:
    """What processes of so many sessions say, how many of them each session takes, and the seconds that these take."""
    shape = (sessions, rule.latency.max_invocations + (ELSEWHERE if rule.slope is not None else 0))
    warm = warm_ups(rule, world, rng, shape)
    times = draw(world, rng, *shape, drawn_rounds(rule, world), warm)
    values, rounds = said(rule, world, times, warm)
    seconds = seconds_of(rule, world, warm, rounds, shape)
    taken = processes_taken(rule, values, seconds, is_long(rule, world))
    return values, taken, np.cumsum(seconds, axis=1)[np.arange(sessions), taken - 1]


def answers_of(rule: Rule, world: World, rng: np.random.Generator, sessions: int) -> list[Answer]:
    """What so many sessions say."""
    values, taken, seconds = sessions_of(rule, world, rng, sessions)
    found = enumerate(zip(taken, seconds, strict=True))
    return [answer(rule, values, i, int(n), float(spent)) for i, (n, spent) in found]


def true_time(rule: Rule, world: World, seed: int) -> float:
    """Logarithm of the baseline's time in the long run: the mean over many processes that have warmed up."""
    rng, found = np.random.default_rng([seed, 1]), list[float]()
    lasting = replace(world, session=0.0)
    for _ in range(FOR_TRUTH // (20 * AT_ONCE)):
        times = draw(lasting, rng, AT_ONCE, 20, rounds_of(rule, world), math.inf, names=(BASELINE,))
        found.append(float(np.mean(middles(rule, times)[BASELINE])))
    return float(np.mean(found))


def simulate(rule: Rule, world: World, runs: int, seed: int = 0) -> Row:
    """What a rule does in a world, over so many sessions."""
    rule = placed(rule, world)
    rng, answers = np.random.default_rng([seed, 0]), list[Answer]()
    while len(answers) < runs:
        answers += answers_of(rule, world, rng, min(AT_ONCE, runs - len(answers)))
    return told(rule, world, answers, true_time(rule, world, seed))


def told(rule: Rule, world: World, answers: Sequence[Answer], time: float) -> Row:
    """The row of answers; `time` is the logarithm of the baseline's true one."""
    pairs = [(ratio, -MEMBERS[name]) for one in answers for name, ratio in one.ratios.items()]
    times = [(one.time, time) for one in answers]
    wrong = np.array([math.log(ratio.value) - truth for ratio, truth in pairs])
    same = [one.ratios[SAME] for one in answers]
    return Row(
        rule.name,
        world.name,
        float(np.mean([one.processes for one in answers])),
        float(np.mean([one.seconds for one in answers])) / len(CASES),
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
        _mean_half_width(times),
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
        "| rule | world | processes | s per case | half-width | real error | s for 2 % | s for 1 % | coverage "
        "| bias | of times: half-width | coverage | bias | identical: 1 left out | called | 5 % found | 10 % found |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        bias, time_bias = ("-" if value is None else f"{value:+.2f}" for value in (row.bias, row.time_bias))
        lines.append(
            f"| {row.rule} | {row.world} | {row.processes:.1f} | {row.seconds:.1f} | {_share(row.half_width, 2)} "
            f"| {_share(row.error, 2)} | {row.seconds_for(0.02):.0f} | {row.seconds_for(0.01):.0f} "
            f"| {_share(row.coverage)} | {bias} | {_share(row.time_half_width)} "
            f"| {_share(row.time_coverage)} | {time_bias} "
            f"| {_share(row.differs)} | {_share(row.false)} | {_share(row.found_5, 0)} | {_share(row.found_10, 0)} |"
        )
    return "\n".join(lines)


def over_worlds(rows: Sequence[Row]) -> str:
    """A line for each rule: between what its promises lie over all worlds, and where ratios leave 93 to 97 %."""
    lines = [
        "| rule | coverage of ratios | largest bias | identical: 1 left out, most | of times | largest bias "
        "| s per case | ratios outside of 93 to 97 % |",
        "|---|---|---:|---:|---|---:|---|---|",
    ]
    for rule in dict.fromkeys(row.rule for row in rows if row.coverage is not None):
        mine = [row for row in rows if row.rule == rule]
        outside = [row.world for row in mine if not 0.93 <= (row.coverage or 0.0) <= 0.97]
        lines.append(
            f"| {rule} | {_span([row.coverage for row in mine])} | {_largest([row.bias for row in mine])} "
            f"| {_share(max(row.differs or 0.0 for row in mine))} "
            f"| {_span([row.time_coverage for row in mine])} | {_largest([row.time_bias for row in mine])} "
            f"| {min(row.seconds for row in mine):.0f} to {max(row.seconds for row in mine):.0f} "
            f"| {', '.join(outside) or 'none'} |"
        )
    return "\n".join(lines)


def _span(shares: Sequence[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return f"{100 * min(known):.1f} to {100 * max(known):.1f} %"


def _largest(biases: Sequence[float | None]) -> str:
    return f"{max((bias for bias in biases if bias is not None), key=abs):+.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, a line as soon as it is known, and what it says over all worlds."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.simulated", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="sessions of each rule in each world")
    parser.add_argument("--rules", nargs="+", choices=[rule.name for rule in RULES])
    parser.add_argument("--worlds", nargs="+", choices=[world.name for world in (*WORLDS, *LONG_RUNS)])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for every row")
    given = parser.parse_args(argv)
    rules = [rule for rule in RULES if not given.rules or rule.name in given.rules]
    named = [world for world in (*WORLDS, *LONG_RUNS) if world.name in (given.worlds or ())]
    worlds = named or list(WORLDS)
    rows = list[Row]()
    print(as_markdown([]))
    for world in worlds:
        for rule in rules:
            rows.append(simulate(rule, world, given.runs, given.seed))
            print(as_markdown(rows[-1:]).splitlines()[-1], flush=True)
    print(f"\n{over_worlds(rows)}")
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
