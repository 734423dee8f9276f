"""Worlds of scatter to try a rule in: logarithms of times of a group's members, with every component known.

The logarithm of an iteration of a member in a process is the sum of

- the member's true value,
- the *host* of that process, which all members and the reference product share, each with its slope; hosts of
  successive processes may resemble one another (`memory`), lie in one of two states, and have heavy tails,
- its *own* level in that process (addresses, pages), which no other member shares,
- a *wander* of its own and one that all share, both first-order autoregressive over rounds,
- a burst that all of a round share,
- what is left of starting up, which decays with the seconds since the process began to run it,
- noise of the *iteration*, with heavy tails where asked for.

Everything but the true values has mean or median zero or decays, so that the truth of a ratio is the difference of the
true values, and that of a time is found from many processes (`true_time`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal

#: Slowness of the members beside the baseline: the twin, an identical network, and two that are slower for certain.
BASELINE, TWIN, SAME, BY_5, BY_10 = "baseline", "twin", "same", "by 5 %", "by 10 %"
MEMBERS = {BASELINE: 0.0, TWIN: 0.0, SAME: 0.0, BY_5: math.log(1.05), BY_10: math.log(1.10)}
#: Members that get a row; the twin does not.
CASES = tuple(name for name in MEMBERS if name != TWIN)
PRODUCT = "product"
#: The world whose components are those of recorded sweeps (docs/explanation/scatter.md).
RECORDED = "as recorded"


@dataclass(frozen=True)
class World:
    """Standard deviations of logarithms, and what is not normal about them.

    Attributes:
        name: in the table.
        iteration: noise of a round.
        wander: of a member's own slow change within a process, stationary.
        shared_wander: of the change that all members share.
        together: of noise that all of a round share.
        host: of a process's level that all share.
        own: of a member's level in a process.
        session: of a level that a whole session has; it is in every time and in no ratio.
        tails: degrees of freedom of Student's t for iterations, hosts and own levels, scaled to the same standard
            deviation; infinity is normal.
        memory: correlation of successive processes' hosts.
        rounds: over which wander forgets two thirds.
        bursts: share of rounds in which one begins, rounds that it lasts, what it adds.
        states: share of processes in the slower state, and what that adds.
        start_up: what the first iteration takes longer by, and seconds in which two thirds of that go.
        slope: by how much of the host's level the product is slowed, one for a member.
        ms: of an iteration of the baseline.
    """

    name: str
    iteration: float = 0.01
    wander: float = 0.003
    shared_wander: float = 0.003
    together: float = 0.0
    host: float = 0.01
    own: float = 0.004
    session: float = 0.0
    tails: float = math.inf
    memory: float = 0.0
    rounds: float = 10.0
    bursts: tuple[float, float, float] = (0.0, 1.0, 0.0)
    states: tuple[float, float] = (0.0, 0.0)
    start_up: tuple[float, float] = (0.0, 1.0)
    slope: float = 0.7
    ms: float = 10.0


#: Seconds of warm-up: of all, or of each member [sessions, processes].
WarmUps = float | Mapping[str, np.ndarray]
#: Logarithms of the times of each member and of the product, [sessions, processes, rounds].
Draw = dict[str, np.ndarray]


def noise(rng: np.random.Generator, tails: float, sd: float, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of mean zero and that standard deviation, normal or Student's t with more than two degrees of freedom."""
    if math.isinf(tails):
        return rng.normal(0.0, sd, shape)
    return rng.standard_t(tails, shape) * sd * math.sqrt((tails - 2) / tails)


def autoregressive(rng: np.random.Generator, correlation: float, sd: float, shape: tuple[int, ...]) -> np.ndarray:
    """Stationary first-order autoregressive numbers along the last axis, of that standard deviation."""
    innovations = rng.normal(0.0, sd * math.sqrt(1 - correlation**2), shape)
    innovations[..., 0] = rng.normal(0.0, sd, shape[:-1])
    return np.asarray(signal.lfilter([1.0], [1.0, -correlation], innovations, axis=-1))


def hosts(world: World, rng: np.random.Generator, sessions: int, processes: int) -> np.ndarray:
    """Levels that all of a process share, [sessions, processes]."""
    if world.memory:
        level = autoregressive(rng, world.memory, world.host, (sessions, processes))
    else:
        level = noise(rng, world.tails, world.host, (sessions, processes))
    share, step = world.states
    return level + step * (rng.random((sessions, processes)) < share)


def bursts(world: World, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """What bursts add to each round, [sessions, processes, rounds]."""
    share, length, size = world.bursts
    if not share:
        return np.zeros(shape)
    begins = rng.random(shape) < share
    window = np.ones(max(1, round(length)))
    running = signal.lfilter(window, [1.0], begins.astype(float), axis=-1) > 0.5
    return size * running


def draw(
    world: World,
    rng: np.random.Generator,
    sessions: int,
    processes: int,
    rounds: int,
    warm_s: WarmUps,
    names: Sequence[str] = (*MEMBERS, PRODUCT),
) -> Draw:
    """All samples of many sessions at once.

    Args:
        world: what they are made of.
        rng: of everything drawn.
        sessions: independent ones.
        processes: of each.
        rounds: timed in each process.
        warm_s: seconds of warm-up before the first, of all or of each member in each process.
        names: of the members that are wanted.
    """
    shape = (sessions, processes, rounds)
    level = hosts(world, rng, sessions, processes)[..., None] + rng.normal(0.0, world.session, (sessions, 1, 1))
    correlation = math.exp(-1 / world.rounds)
    shared = autoregressive(rng, correlation, world.shared_wander, shape) + bursts(world, rng, shape)
    if world.together:
        shared = shared + noise(rng, world.tails, world.together, shape)
    made: Draw = {}
    for name in names:
        warm = warm_s[name] if isinstance(warm_s, Mapping) else np.full((1, 1), warm_s)
        own = noise(rng, world.tails, world.own, (sessions, processes, 1))
        wander = autoregressive(rng, correlation, world.wander, shape)
        slope = world.slope if name == PRODUCT else 1.0
        white = noise(rng, world.tails, world.iteration, shape)
        made[name] = MEMBERS.get(name, 0.0) + slope * (level + shared) + own + wander + white
        made[name] += start_up(world, warm, rounds)
    return made


def start_up(world: World, warm_s: np.ndarray, rounds: int) -> np.ndarray:
    """What is left of starting up in each round, [..., rounds]; a member's seconds go on while it runs itself.

    Args:
        world: says how much there is at first and how fast it goes.
        warm_s: seconds before the first round, [...].
        rounds: how many.
    """
    size, seconds = world.start_up
    since = warm_s[..., None] + np.arange(rounds) * world.ms / 1e3
    return np.asarray(size * np.exp(-since / seconds))


def warm_up(world: World, rng: np.random.Generator, sessions: int, processes: int, rounds: int) -> np.ndarray:
    """Logarithms of a member's first iterations in each process, up to its level: [sessions, processes, rounds]."""
    shape, correlation = (sessions, processes, rounds), math.exp(-1 / world.rounds)
    wander = autoregressive(rng, correlation, math.hypot(world.wander, world.shared_wander), shape)
    white = noise(rng, world.tails, world.iteration, shape)
    return wander + white + bursts(world, rng, shape) + start_up(world, np.zeros((1, 1)), rounds)


#: What was seen, and what is feared.
WORLDS = (
    World("quiet", iteration=0.006, wander=0.001, shared_wander=0.002, host=0.004, own=0.0015),
    World(RECORDED, iteration=0.08, wander=0.0, shared_wander=0.06, host=0.1, own=0.005),
    World("as recorded, below 1 ms", iteration=0.15, wander=0.0, shared_wander=0.09, host=0.1, own=0.03, ms=0.5),
    World("as recorded, by rounds", iteration=0.05, wander=0.0, shared_wander=0.06, together=0.1, host=0.1, own=0.005),
    World("fairly quiet"),
    World("layouts differ", own=0.02, host=0.005),
    World("noisy host", iteration=0.05, wander=0.02, shared_wander=0.03, host=0.05, own=0.01),
    World("heavy tails", tails=3.0, iteration=0.03),
    World("bursts", bursts=(0.02, 5.0, 0.3)),
    World("two states", states=(0.3, 0.15)),
    World("two states inside", bursts=(0.01, 40.0, 0.15)),
    World("host that drifts", memory=0.8, host=0.03),
    World("slow wander", wander=0.01, shared_wander=0.02, rounds=60.0),
    World("slow start", start_up=(0.1, 0.3)),
    World("sessions apart", session=0.03),
    World("product apart", slope=0.0),
)
#: Runs that last seconds, for the rule of their own that version 2 has.
LONG_RUNS = (
    World("runs of 2 s", ms=2000.0, iteration=0.02, host=0.03),
    World("runs of 20 s", ms=20_000.0, iteration=0.02, host=0.03),
    World("runs of 20 s, heavy tails", ms=20_000.0, iteration=0.02, host=0.03, tails=3.0),
)
