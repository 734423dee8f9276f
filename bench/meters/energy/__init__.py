"""Energy of inferences: one protocol for every source of joules, and a reason where there is none."""

from bench.meters.energy.backend import Backend, CounterReset, DeadCounter, EnergyError, Scope, Unavailable
from bench.meters.energy.choice import choose, measure_for, named, survey
from bench.meters.energy.meter import EnergyResult, Window, idle_power, measure

__all__ = [
    "Backend", "CounterReset", "DeadCounter", "EnergyError", "EnergyResult", "Scope", "Unavailable", "Window", "choose",
    "idle_power", "measure", "measure_for", "named", "survey",
]  # fmt: skip
