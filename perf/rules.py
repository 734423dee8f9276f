"""Rules to take a session by: the protocols of both versions as their files have them, and possible changes.

What a session costs is counted and not measured: of each process the start, of each member warm-up, samples, throughput
windows and passes of the layers, as the protocol's parameters say; probes are not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import special

from bench.allocation import (
    BLOCK,
    FEWEST_BLOCKS,
    LOOKS,
    Bounds,
    Costs,
    Slope,
    best_iterations,
    block_medians,
    cheapest,
    more_iterations_help,
    planned_iterations,
    ratio_by_rounds,
    within_of,
    within_variance,
)
from bench.api import protocol_named
from bench.config.protocol import Latency, Protocol
from perf.worlds import BASELINE, CASES, MEMBERS, PRODUCT, RECORDED, TWIN, WORLDS, WarmUps, World

#: Seconds of a process outside warm-up and measured windows (docs/protocol.md, "What a fresh process costs").
START_S = 0.36
#: What is timed by turns: the members and the reference product.
RUNNERS = len(MEMBERS) + 1
#: What the ratio to a member is called among the values of processes.
RATIO = "ratio to "
#: Numbers of rounds that a first process may decide for.
STEPS = (10, 15, 20, 30, 40, 60, 80, 120)
#: Slope of cases on the product in recorded sweeps, and what it differs by from case to case.
SLOPE, SLOPE_SD = 1.4, 0.3

#: How many rounds: those of least cost for the components of the `world` itself, or of recorded sweeps, or that the
#: first process shows (`learned`), which takes the most; or as many as still help (`helping`), by what that shows. Or
#: processes and rounds of least cost for the components of the world (`cheapest`), and no others. `protocol`: as
#: version 2 plans them.
Planned = Literal["world", "recorded", "learned", "helping", "cheapest", "protocol"]
#: Logarithms of what processes say, [sessions, processes] by member.
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rule:
    """A way to take a session; version 1's are the protocol's parameters and nothing else.

    Attributes:
        name: in the table.
        protocol: its parameters.
        warm: `fixed` seconds, or those only in the first process and then what that needed
            (`bench.allocation.common_warm_up`).
        planned: how many rounds a process takes instead of `samples`, which stays the most; see `Planned`.
        middle: what a process says of its samples.
        twin: whether it is taken as control of ratios.
        slope: of times on the product, where that is taken as control of times.
        windows: processes that take throughput windows; None for all.
        layers: processes that take times of layers.
    """

    name: str
    protocol: Protocol
    warm: Literal["fixed", "evidence"] = "fixed"
    planned: Planned | None = None
    middle: Literal["median", "midmean"] = "median"
    twin: bool = False
    slope: Slope | None = None
    windows: int | None = None
    layers: int | None = None

    @classmethod
    def of(cls, name: str) -> Rule:
        """A protocol of `conf/protocol` and what its parameters say, without a word of its own."""
        protocol = protocol_named(name)
        latency = protocol.latency
        return cls(
            name,
            protocol,
            warm="evidence" if latency.warm_by_evidence else "fixed",
            planned=None if latency.most_samples is None else "protocol",
            twin=latency.twin_control,
            windows=latency.throughput_processes,
            layers=protocol.counting.layer_processes,
        )

    @property
    def latency(self) -> Latency:
        """The parameters of timing."""
        return self.protocol.latency

    def but(self, name: str, latency: dict[str, Any] | None = None, **changes: Any) -> Rule:
        """The rule with another name, other parameters of timing and other changes."""
        timing = self.latency.model_copy(update=latency or {})
        return replace(self, name=name, protocol=self.protocol.model_copy(update={"latency": timing}), **changes)


# ------------------------------------------------------------------------------------------------ what it takes
def scatter_of_ratios(world: World) -> tuple[float, float]:
    """W and B of a ratio, twice those of a member; an autoregressive change has 2 rounds to each that counts."""
    return 2 * within_variance(world.iteration, world.wander, 2 * world.rounds), 2 * world.own**2


def recorded() -> World:
    """The world that is like recorded sweeps."""
    return next(item for item in WORLDS if item.name == RECORDED)


def costs_of(rule: Rule, world: World) -> Costs:
    """Seconds of a process without its samples, and of one sample of all that is timed in it."""
    return Costs(START_S + RUNNERS * least_warm_s(rule, world), RUNNERS * sample_s(rule, world))


def placed(rule: Rule, world: World) -> Rule:
    """The rule with what is planned before anything is measured: rounds, or processes and rounds."""
    latency = rule.latency
    if rule.planned not in ("world", "recorded", "cheapest"):
        return rule
    within, between = scatter_of_ratios(recorded() if rule.planned == "recorded" else world)
    costs = costs_of(rule, world)
    if rule.planned == "cheapest":
        most, samples = latency.max_invocations, latency.samples
        plan = cheapest(within, between, costs, latency.ratio_half_width, most=most, most_iterations=samples)
        number = plan.processes
        return rule.but(rule.name, {"invocations": number, "max_invocations": number, "samples": plan.iterations})
    best = min(latency.samples, best_iterations(within, between, costs))
    return rule.but(rule.name, {"samples": round(max(latency.min_samples, best))})


def is_long(rule: Rule, world: World) -> bool:
    """Whether the protocol has a rule of its own for runs of this length."""
    long_run_s = rule.latency.long_run_s
    return long_run_s is not None and world.ms >= 1e3 * long_run_s


def rounds_of(rule: Rule, world: World) -> int:
    """Samples of each member in a process, or in the first where that decides for the others."""
    latency = rule.latency
    least = latency.long_samples if is_long(rule, world) else latency.min_samples
    return max(least, min(latency.samples, _that_fit(rule, world)))


def drawn_rounds(rule: Rule, world: World) -> int:
    """Samples that a process may take at most: more are not drawn."""
    first, most = rounds_of(rule, world), rule.latency.most_samples
    if rule.planned != "protocol" or most is None:
        return first
    return max(first, min(most, _that_fit(rule, world)))


def _that_fit(rule: Rule, world: World) -> int:
    """Samples for which a case has time in a process."""
    return int(rule.latency.case_seconds * 1e3 / world.ms)


def said(rule: Rule, world: World, times: dict[str, np.ndarray], warm: WarmUps) -> tuple[Values, int | np.ndarray]:
    """What processes say of their samples, and the rounds they take, of all or [sessions, processes]."""
    if rule.planned == "protocol":
        return said_by_plan(rule, world, times, warm)
    sessions, processes, most = times[BASELINE].shape
    values = middles(rule, times)
    if rule.planned not in ("learned", "helping") or most < 2 * BLOCK:
        return values, most
    rounds = np.full((sessions, processes), most)
    rounds[:, 1:] = wanted(rule, world, times)[:, None]
    for step in np.unique(rounds[:, 1:]):
        these = rounds[:, -1] == step
        fewer = middles(rule, {name: logs[these, 1:, :step] for name, logs in times.items()})
        for name, medians in fewer.items():
            values[name][these, 1:] = medians
    return values, rounds


def said_by_plan(
    rule: Rule, world: World, times: dict[str, np.ndarray], warm: WarmUps
) -> tuple[Values, int | np.ndarray]:
    """The same by version 2: the first process takes `samples`, and the others what `planned_iterations` makes of it.

    As many rounds are drawn as may be planned; what is not taken is left out.
    """
    sessions, processes, _ = times[BASELINE].shape
    first = rounds_of(rule, world)
    values = middles(rule, {name: logs[..., :first] for name, logs in times.items()})
    rounds = np.full((sessions, processes), first)
    if first < FEWEST_BLOCKS * BLOCK:
        return values, rounds
    for session in range(sessions):
        rounds[session, 1:] = plan_of(rule, world, times, warm, session, first)
    for planned in np.unique(rounds[:, 1:]):
        these = rounds[:, -1] == planned
        found = middles(rule, {name: logs[these, 1:, :planned] for name, logs in times.items()})
        for name, medians in found.items():
            values[name][these, 1:] = medians
    return values, rounds


def plan_of(rule: Rule, world: World, times: dict[str, np.ndarray], warm: WarmUps, session: int, first: int) -> int:
    """Rounds of the processes after the first, by the driver's own function."""
    latency = rule.latency
    assert latency.fewest_samples is not None and latency.most_samples is not None
    taken = {name: times[name][session, 0, :first] for name in MEMBERS}
    warm_s = RUNNERS * warm if isinstance(warm, float) else sum(float(found[session, -1]) for found in warm.values())
    baselines = [taken[BASELINE], *([taken[TWIN]] if rule.twin else [])]
    planned = planned_iterations(
        np.array(baselines),
        np.array([taken[name] for name in CASES[1:]]),
        Costs(START_S + warm_s, RUNNERS * sample_s(rule, world)),
        Bounds(latency.fewest_samples, latency.most_samples, latency.between, latency.one_piece),
        latency.by_rounds,
    )
    return min(planned, max(first, _that_fit(rule, world)))


def wanted(rule: Rule, world: World, times: dict[str, np.ndarray]) -> np.ndarray:
    """Rounds that first processes decide for, [sessions]: W is what their ratios show, B what recorded sweeps have."""
    blocks = {name: block_medians(times[name][:, 0]) for name in CASES}
    withins = np.mean([within_of(blocks[BASELINE] - blocks[name]) for name in CASES[1:]], axis=0)
    _, between = scatter_of_ratios(recorded())
    most, costs = times[BASELINE].shape[2], costs_of(rule, world)

    def enough(within: float, step: int) -> bool:
        if rule.planned == "helping":
            return not more_iterations_help(within, between, step)
        return step >= best_iterations(within, between, costs)

    steps = [step for step in STEPS if rule.latency.min_samples <= step < most]
    return np.array([next((step for step in steps if enough(float(one), step)), most) for one in withins])


def sample_s(rule: Rule, world: World) -> float:
    """Seconds of a sample: an iteration, or as many as fill the least."""
    return max(world.ms, rule.latency.min_sample_ms) / 1e3


def fixed_warm_s(rule: Rule, world: World) -> float:
    """Seconds of a warm-up by the protocol."""
    latency = rule.latency
    if is_long(rule, world):
        return world.ms / 1e3  # one run
    return min(latency.warmup_cap_s, max(latency.warmup_s, latency.warmup_iterations * world.ms / 1e3))


def least_warm_s(rule: Rule, world: World) -> float:
    """Seconds that a warm-up takes at least."""
    return fixed_warm_s(rule, world) if rule.warm == "fixed" else 2 * LOOKS[0] * world.ms / 1e3


def seconds_of(rule: Rule, world: World, warm: WarmUps, rounds: int | np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Seconds of each process, [sessions, processes].

    Args:
        rule: what it times.
        world: how long an iteration takes.
        warm: seconds of the warm-ups.
        rounds: in each process.
        shape: sessions and processes.
    """
    latency, ms = rule.latency, world.ms / 1e3
    warm_s = RUNNERS * warm if isinstance(warm, float) else sum(warm.values())
    long, repeats = is_long(rule, world), rule.protocol.counting.layer_repeats
    repeats = max(1, min(repeats, _that_fit(rule, world) // 2)) if long else repeats
    windows = 0.0 if long else len(MEMBERS) * latency.throughput_windows * max(latency.throughput_window_s, 2 * ms)
    layers = len(CASES) * 2 * repeats * ms
    extras = windows * _taking(rule.windows, shape[1]) + layers * _taking(rule.layers, shape[1])
    sampled = RUNNERS * rounds * sample_s(rule, world)
    return np.asarray(np.broadcast_to(START_S + warm_s + sampled + extras, shape))


def _taking(first: int | None, processes: int) -> np.ndarray:
    """Which of so many processes take what the first few take, or all."""
    return np.arange(processes) < (processes if first is None else first)


def middles(rule: Rule, times: dict[str, np.ndarray]) -> Values:
    """Of each process the median of its samples, or the mean of their middle half.

    By rounds also what its ratios say: the baseline's logarithm less a case's or the twin's, by `RATIO` and its name.
    """
    if rule.middle != "median":
        return {name: midmean(values) for name, values in times.items()}
    values = {name: np.median(each, axis=-1) for name, each in times.items()}
    if rule.latency.by_rounds and set(MEMBERS) <= set(times):
        base = np.array([times[BASELINE], *([times[TWIN]] if rule.twin else [])])
        values |= {RATIO + name: ratio_by_rounds(base, times[name]) for name in CASES[1:]}
        values[RATIO + TWIN] = ratio_by_rounds(base[:1], times[TWIN])
    return values


def midmean(logs: np.ndarray) -> np.ndarray:
    """The mean of the middle half, along the last axis: of normal numbers it varies 1.2 times as much as their mean.

    Source: J. W. Tukey, Exploratory Data Analysis, 1977; P. J. Huber, Robust Statistics, 1981, table 1.2.
    """
    n = logs.shape[-1]
    cut = n // 4
    return np.asarray(np.sort(logs, axis=-1)[..., cut : n - cut].mean(axis=-1))


# ------------------------------------------------------------------------------------------------ when it ends
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


def processes_taken(rule: Rule, values: Values, seconds: np.ndarray, long: bool = False) -> np.ndarray:
    """Processes after which each session ends, [sessions]: `bench.analysis.session.decide` for many at once.

    Args:
        rule: its limits, and what it takes as controls.
        values: of as many processes as there may be.
        seconds: of each process, [sessions, processes].
        long: whether the runs are.
    """
    latency = rule.latency
    product = rule.slope.value * values[PRODUCT] if rule.slope is not None else 0.0
    base = (values[BASELINE] + values[TWIN]) / 2 if rule.twin else values[BASELINE]
    wide = np.zeros(values[BASELINE].shape)
    wide[:, 0] = math.inf  # one process is never enough
    for name in CASES:
        if latency.absolute_half_width is not None:
            wide = np.maximum(wide, half_widths(values[name] - product) / latency.absolute_half_width)
        if name != BASELINE:
            ratios = values[RATIO + name] if latency.by_rounds else base - values[name]
            wide = np.maximum(wide, half_widths(ratios) / latency.ratio_half_width)
    first = latency.long_least if long else latency.invocations
    further, cap = latency.further_invocations, latency.max_invocations
    spent = np.cumsum(seconds, axis=1)
    taken = np.full(len(wide), cap)
    for n in range(cap - 1, first - 1, -1):
        done = (wide[:, n - 1] <= latency.at_once) | (spent[:, n - 1] >= latency.budget_s)
        if n - further >= first:
            done |= wide[:, n - further - 1] <= 1.0
        taken[done] = n
    return taken


# ------------------------------------------------------------------------------------------------ rules to try
_NAMES = ("glance", "quick", "standard", "publish")
VERSION_1 = tuple(Rule.of(name) for name in _NAMES)
VERSION_2 = tuple(Rule.of(f"v2/{name}") for name in _NAMES)
_, QUICK, STANDARD, PUBLISH = VERSION_1
_FIXED, _SHRUNKEN, _FITTED = Slope(SLOPE), Slope(SLOPE, SLOPE_SD), Slope(SLOPE, math.inf)
#: Each change of version 1's standard by itself, so that what it does is seen.
CHANGES = (
    STANDARD.but("standard, ratios decide", {"absolute_half_width": 0.99}),
    STANDARD.but("standard, warm by evidence", warm="evidence"),
    STANDARD.but("standard, planned for the world", planned="world"),
    STANDARD.but("standard, planned as recorded", planned="recorded"),
    STANDARD.but("standard, planned by the first process", planned="learned"),
    STANDARD.but("standard, as many as help", planned="helping"),
    STANDARD.but("standard, cheapest for 1 %", {"max_invocations": 20, "samples": 1000}, planned="cheapest"),
    STANDARD.but("standard, midmean", middle="midmean"),
    STANDARD.but("standard, twin", twin=True),
    STANDARD.but("standard, product, fixed slope", slope=_FIXED),
    STANDARD.but("standard, product, shrunken slope", slope=_SHRUNKEN),
    STANDARD.but("standard, product, fitted slope", slope=_FITTED),
    STANDARD.but("standard, extras once", windows=1, layers=1),
)
_ALL: dict[str, Any] = {
    "warm": "evidence", "planned": "learned", "middle": "midmean", "twin": True, "slope": _FIXED, "windows": 1,
    "layers": 1,
}  # fmt: skip
_RATIOS = {"absolute_half_width": 0.99, "budget_s": 3600.0}
#: All together, with goals to choose from; version 2 takes neither midmean nor product, and more rounds.
TOGETHER = (
    QUICK.but("together, 3 processes", {**_RATIOS, "invocations": 3, "max_invocations": 3, "samples": 30}, **_ALL),
    QUICK.but("together, 2 %", {**_RATIOS, "ratio_half_width": 0.02, "max_invocations": 10, "samples": 100}, **_ALL),
    STANDARD.but("together, 1 %", {**_RATIOS, "invocations": 4, "max_invocations": 20}, **_ALL),
    PUBLISH.but("together, 1 %, 10 at least", {**_RATIOS, "max_invocations": 30}, **_ALL),
)
RULES = (*VERSION_1, *VERSION_2, *CHANGES, *TOGETHER)
