"""A simulated device with known power, and sensors of the kinds that real devices have."""

from __future__ import annotations

from collections.abc import Callable

TICK = 0.001


class World:
    """Time, power and true joules; sensors listen to every millisecond.

    `load_w` gives watts by the time since the step began; `idle_w` holds while sleeping.
    """

    def __init__(self, idle_w: float = 30.0, load_w: Callable[[float], float] = lambda since: 100.0):
        self.time, self.joules, self.ticks = 0.0, 0.0, 0
        self.idle_w, self.load_w = idle_w, load_w
        self.steps = 0
        self.listeners: list[Callable[[float, float], None]] = []

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self._advance(seconds, lambda since: self.idle_w)

    def step(self, seconds: float = 0.02) -> None:
        self.steps += 1
        self._advance(seconds, self.load_w)

    def _advance(self, seconds: float, watts: Callable[[float], float]) -> None:
        since = 0.0
        while seconds - since > 1e-9:
            slice_s = min(TICK, seconds - since)
            power = watts(since)
            since += slice_s
            self.time += slice_s
            self.joules += power * slice_s
            for listener in self.listeners:
                listener(self.time, power)


class Latched:
    """A cumulative counter that shows the truth as it was at its last refresh."""

    def __init__(self, world: World, refresh_s: float = 0.1, unit_j: float = 1e-3, span: int | None = None):
        self.world, self.refresh_s, self.unit_j, self.span = world, refresh_s, unit_j, span
        self.shown, self.zero, self.next = 0, 0.0, refresh_s
        self.dead = False
        world.listeners.append(self._tick)

    def _tick(self, time: float, power: float) -> None:
        if time >= self.next - 1e-9:
            self.next += self.refresh_s
            if not self.dead:
                count = int((self.world.joules - self.zero) / self.unit_j)
                self.shown = count % self.span if self.span else count

    def reset(self) -> None:
        self.zero = self.world.joules
        self.shown = 0

    def read(self) -> float:
        return self.shown


class DutyCycle(Latched):
    """A counter that looks at the power for a part of each refresh and takes the rest to be the same."""

    def __init__(self, world: World, refresh_s: float = 0.1, looks_s: float = 0.025):
        self.looks_s, self.seen, self.ticks, self.total = looks_s, 0.0, 0, 0.0
        super().__init__(world, refresh_s)

    def _tick(self, time: float, power: float) -> None:
        if time > self.next - self.looks_s + 1e-9:
            self.seen, self.ticks = self.seen + power, self.ticks + 1
        if time >= self.next - 1e-9:
            self.next += self.refresh_s
            self.total += self.refresh_s * self.seen / max(self.ticks, 1)
            self.seen, self.ticks = 0.0, 0
            self.shown = int(self.total / self.unit_j)
