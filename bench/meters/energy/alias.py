"""Whether a sensor that looks from time to time may keep looking at the same part of every iteration."""

from __future__ import annotations

import math
from itertools import pairwise

#: The largest part of an iteration that may stay unseen.
UNSEEN = 0.25
#: Accumulated jitter, in iterations, from which the phases mix by themselves.
SMEARED = 0.5


def largest_unseen(step_s: float, period_s: float, window_s: float) -> float:
    """The largest stretch of an iteration, as a share of it, that no look of the sensor falls into.

    Looks come every `period_s` during `window_s`; the iteration repeats every `step_s`, both exactly.
    """
    looks = max(1, min(int(window_s / period_s), 100_000))
    phases = sorted((index * period_s / step_s) % 1.0 for index in range(looks))
    gaps = [b - a for a, b in pairwise(phases)]
    return max([*gaps, 1.0 - phases[-1] + phases[0]])


def at_risk(step_s: float, period_s: float, window_s: float, jitter: float, *, bursty: bool | None) -> bool:
    """Whether a window's energy may be off because sensor and iterations march in step.

    Args:
        step_s: time of an iteration.
        period_s: time between two looks of the sensor.
        window_s: length of the window.
        jitter: standard deviation of an iteration's time over its mean; it mixes the phases as a random walk.
        bursty: whether the power varies within an iteration; None where it is not known, which counts as yes.
    """
    if bursty is False or step_s <= 0 or period_s <= 0:
        return False
    smear = jitter * math.sqrt(max(window_s / step_s, 1.0))
    return smear < SMEARED and largest_unseen(step_s, period_s, window_s) > UNSEEN
