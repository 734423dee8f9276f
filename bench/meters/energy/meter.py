"""Joules per inference over windows: idle first, then for each window a random delay, a pre-roll, and the load."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.flags import flag
from bench.host.hostwatch import HostReport, HostWatch
from bench.meters.energy.alias import at_risk
from bench.meters.energy.backend import Backend, Clock, CounterReset, DeadCounter, EnergyError, Sleep
from bench.meters.energy.counter import find_period
from bench.meters.energy.power import PowerBackend
from bench.reading import Provenance, Reading, reading, unavailable

#: A window lasts at least this many refreshes of the counter, so that its edges weigh at most two hundredths.
PERIODS = 100
IDLE_S, IDLE_PERIODS = 2.0, 30
PREROLL_S, PREROLL_PERIODS = 1.0, 10
#: Iterations are launched in blocks of about this long between two looks at the clock.
BLOCK_S = 0.05
#: Windows lost to a reset of the counter that are taken again.
RETRIES = 2
CROSS_CHECK = 0.10
BURSTY = 0.05


@dataclass(frozen=True)
class Window:
    """One window: its length, joules (those of the second source beside them), and how often the step ran."""

    seconds: float
    joules: float
    inferences: int
    step_s: float
    jitter: float
    check_joules: float | None = None

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds


@dataclass(frozen=True)
class EnergyResult:
    """Joules per sample over windows; gross is what the device drew, net is that less its idle power.

    Attributes:
        batch: samples per inference.
        idle_power_w: of the same scope before the load; None where the source cannot see it.
        counter_period_s: time between refreshes of the sensor; None where there is none to watch.
        cross_check: joules of the second source over those of the first, in the same windows; None without one.
        flags: `{code, severity, text}` as in a record.
    """

    backend: str
    scope: str
    provenance: Provenance
    method_note: str
    batch: int
    windows: tuple[Window, ...]
    idle_power_w: float | None
    counter_period_s: float | None
    window_s: float
    cross_check: float | None = None
    conditions: dict[str, Any] = field(default_factory=dict)
    flags: tuple[dict[str, str], ...] = ()

    @property
    def gross_j(self) -> list[float]:
        """Joules per sample, one value per window."""
        return [w.joules / (w.inferences * self.batch) for w in self.windows]

    @property
    def net_j(self) -> list[float] | None:
        """The same above idle; None where idle is unknown or a window is not above it."""
        if self.idle_power_w is None:
            return None
        net = [(w.joules - self.idle_power_w * w.seconds) / (w.inferences * self.batch) for w in self.windows]
        return net if min(net) > 0 else None

    def readings(self) -> list[Reading]:
        """Gross and net joules per sample with their intervals over windows."""
        note = f"{self.scope}; {self.method_note}"
        gross = _reading("energy_j", self.gross_j, self.provenance, note)
        if self.net_j is not None:
            return [gross, _reading("energy_net_j", self.net_j, self.provenance, note)]
        why = "this source sees no idle power" if self.idle_power_w is None else "the load draws no more than idle"
        return [gross, unavailable("energy_net_j", why)]

    def as_dict(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        return {
            **asdict(self),
            "available": True,
            "gross_j_per_sample": self.gross_j,
            "net_j_per_sample": self.net_j,
            "flags": list(self.flags),
        }


def _reading(metric: str, values: list[float], provenance: Provenance, note: str) -> Reading:
    from bench.statistics import log_mean_interval

    found = log_mean_interval(values)
    return reading(
        metric,
        found.value,
        provenance,
        ci_low=found.low,
        ci_high=found.high,
        n=found.n,
        statistic=f"per sample, {found.method} over windows",
        method_note=note,
    )


@dataclass
class _Load:
    """The step, launched in blocks; what has to be known of time is injected."""

    step: Callable[[], Any]
    synchronise: Callable[[], None]
    clock: Clock
    sources: list[Backend]
    block: int = 1

    def calibrate(self) -> None:
        """Choose the block from the time of a few steps."""
        self.run_block()
        start = self.clock()
        self.run_block()
        self.block = max(1, min(int(BLOCK_S / max(self.clock() - start, 1e-6)), 10_000))

    def run_block(self) -> None:
        for _ in range(self.block):
            self.step()
        self.synchronise()

    def run_for(self, seconds: float) -> list[float]:
        """Times of the blocks that filled at least so many seconds."""
        times: list[float] = []
        start = before = polled = self.clock()
        while before - start < seconds:
            self.run_block()
            now = self.clock()
            times.append(now - before)
            before = now
            if now - polled >= 1.0:
                for source in self.sources:
                    source.poll()
                self.check_alone()
                polled = now
        return times

    def check_alone(self) -> None:
        """Raise EnergyError if somebody else draws from the meter now: their part of a window cannot be taken out."""
        foreign = self.sources[0].shared_with()
        if foreign:
            raise EnergyError(f"shared: {foreign} while it was measured")


def measure(
    step: Callable[[], Any],
    batch: int,
    backend: Backend,
    *,
    windows: int = 3,
    min_window_s: float = 10.0,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
    synchronise: Callable[[], None] = lambda: None,
    seed: int = 0,
    watch: HostWatch | None = None,
) -> EnergyResult:
    """Gross and net joules per sample; takes idle, and for each window a pre-roll and max(10 s, 100 counter periods).

    Args:
        step: one inference of the whole batch; on CUDA it may return before the work is done.
        batch: samples per inference.
        backend: where the joules are read; started and stopped here.
        windows: how many.
        min_window_s: seconds of a window at least.
        clock: seconds, in the same time as `sleep`; injected in tests.
        sleep: how to be idle.
        synchronise: waits for what `step` launched.
        seed: of the random delays that keep windows from starting in step with the sensor.
        watch: watches the host meanwhile, where the scope holds more than this process.

    Raises:
        EnergyError: the counter is dead, keeps being reset, has holes, or somebody else uses the device.
    """
    sources: list[Backend] = [backend, *([backend.check] if backend.check else [])]
    load = _Load(step, synchronise, clock, sources)
    for source in sources:
        source.start()
    try:
        period = _period(backend, clock, sleep)
        idle = _idle(backend, max(IDLE_S, IDLE_PERIODS * (period or 0)), clock, sleep)
        length = max(min_window_s, PERIODS * (period or 0))
        before = backend.conditions()
        load.calibrate()
        with watch or nullcontext():
            taken = _windows(sources, load, windows, length, period or 0.0, sleep, random.Random(seed))
        load.check_alone()
        conditions = {"before": before, "after": backend.conditions()}
        bursty = _bursty(sources)
    finally:
        for source in sources:
            source.stop()
    return _result(backend, batch, taken, idle, period, length, conditions, bursty, watch.report if watch else None)


def _period(backend: Backend, clock: Clock, sleep: Sleep) -> float | None:
    """Seconds between refreshes; None where nothing can be watched, or an idle power sensor rightly stands still."""
    if backend.raw() is None:
        return None
    try:
        return find_period(backend.raw, clock, sleep)
    except DeadCounter:
        if isinstance(backend, PowerBackend):
            return None
        raise


def _idle(backend: Backend, seconds: float, clock: Clock, sleep: Sleep) -> float | None:
    if not backend.has_idle:
        return None
    begin, start = backend.mark(), clock()
    slept = 0.0
    while seconds - slept > 1e-3:
        sleep(min(1.0, seconds - slept))
        backend.poll()
        slept = clock() - start
    joules = backend.joules(begin, backend.mark())
    if joules <= 0:
        raise EnergyError(
            f"the meter shows no energy at all in {slept:.1f} s of idling: it is not measuring this device"
        )
    return joules / slept


def _windows(
    sources: list[Backend], load: _Load, count: int, length: float, period: float, sleep: Sleep, rng: random.Random
) -> list[Window]:
    taken: list[Window] = []
    lost = 0
    while len(taken) < count:
        try:
            sleep(rng.uniform(0.0, period))
            load.check_alone()
            load.run_for(max(PREROLL_S, PREROLL_PERIODS * period))
            taken.append(_window(sources, load, length))
        except CounterReset:
            lost += 1
            if lost > RETRIES:
                raise
    return taken


def _window(sources: list[Backend], load: _Load, length: float) -> Window:
    begins, start = [source.mark() for source in sources], load.clock()
    times = load.run_for(length)
    ends, seconds = [source.mark() for source in sources], load.clock() - start
    joules = [source.joules(begin, end) for source, begin, end in zip(sources, begins, ends, strict=True)]
    if joules[0] <= 0:
        raise EnergyError(f"the meter shows no energy in a window of {seconds:.1f} s under load: it is dead")
    spread = statistics.pstdev(times) / statistics.mean(times) if len(times) > 1 else 0.0
    return Window(
        seconds=seconds,
        joules=joules[0],
        inferences=len(times) * load.block,
        step_s=sum(times) / (len(times) * load.block),
        jitter=spread * math.sqrt(load.block),
        check_joules=joules[1] if len(joules) > 1 else None,
    )


def _bursty(sources: list[Backend]) -> bool | None:
    """Whether sampled power varies under load by more than a twentieth; None without samples."""
    for source in sources:
        if isinstance(source, PowerBackend):
            values = source.recent_watts()
            if len(values) > 20:
                return statistics.pstdev(values) > BURSTY * statistics.mean(values)
    return None


def _result(
    backend: Backend,
    batch: int,
    windows: list[Window],
    idle: float | None,
    period: float | None,
    length: float,
    conditions: dict[str, Any],
    bursty: bool | None,
    host: HostReport | None,
) -> EnergyResult:
    checks = [w.check_joules for w in windows if w.check_joules is not None]
    ratio = sum(checks) / sum(w.joules for w in windows) if len(checks) == len(windows) else None
    flags = [
        *_power_flags(backend, windows, period, ratio, bursty),
        *_host_flags(backend, host),
    ]
    return EnergyResult(
        backend=backend.name,
        scope=backend.scope,
        provenance=backend.provenance,
        method_note=backend.method_note,
        batch=batch,
        windows=tuple(windows),
        idle_power_w=idle,
        counter_period_s=period,
        window_s=length,
        cross_check=ratio,
        conditions=conditions,
        flags=tuple(flags),
    )


def _power_flags(
    backend: Backend, windows: list[Window], period: float | None, ratio: float | None, bursty: bool | None
) -> Iterator[dict[str, str]]:
    """What speaks against the joules: the check by sampled power, and iterations in step with the sensor."""
    if ratio is not None and abs(ratio - 1) > CROSS_CHECK:
        text = f"sampled power gives {100 * (ratio - 1):+.0f} % of the counter's joules"
        yield flag("energy_cross_check", "warn", text)
    if not backend.sampled or not period:
        return
    if any(at_risk(w.step_s, period, w.seconds, w.jitter, bursty=bursty) for w in windows):
        step_ms = 1e3 * statistics.median(w.step_s for w in windows)
        yield flag(
            "energy_alias",
            "warn",
            f"iterations of {step_ms:.3g} ms march in step with the sensor's period of "
            f"{1e3 * period:.3g} ms; it may see the same part of each",
        )


def _host_flags(backend: Backend, host: HostReport | None) -> Iterator[dict[str, str]]:
    """Whether other processes' energy is in the number."""
    if host is not None and "host busy" in host.labels and backend.scope != "gpu_board":
        yield flag(
            "energy_shared_host",
            "warn",
            f"other processes used {host.other_cores:.2g} cores meanwhile; their energy is in the number",
        )


def idle_power(
    backend: Backend, seconds: float, *, repeats: int = 3, clock: Clock = time.monotonic, sleep: Sleep = time.sleep
) -> dict[str, Any]:
    """Watts of the idle device as an entry of a record's `machine` part: median and range of `repeats` stretches.

    Raises:
        EnergyError: the source cannot see an idle device, or is dead.
    """
    if not backend.has_idle:
        raise EnergyError(f"{backend.name} cannot see an idle device")
    backend.start()
    try:
        found = [_idle(backend, seconds / repeats, clock, sleep) for _ in range(repeats)]
    finally:
        backend.stop()
    watts = [value for value in found if value is not None]
    return {
        "unit": "W",
        "value": statistics.median(watts),
        "low": min(watts),
        "high": max(watts),
        "n": len(watts),
        "scope": backend.scope,
        "backend": backend.name,
    }
