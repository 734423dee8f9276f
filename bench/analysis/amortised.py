"""When a network that was trained once has paid for itself: what it cost, over what it saves each time."""

from __future__ import annotations

import math


def answers_until_it_pays(training_seconds: float, other_ms: float, own_ms: float) -> float:
    """Answers after which training is paid: seconds of training over seconds saved an answer; infinity if none are.

    Args:
        training_seconds: once.
        other_ms: an answer of what it replaces.
        own_ms: an answer of its own.

    Raises:
        ValueError: a time below zero.
    """
    if min(training_seconds, other_ms, own_ms) < 0:
        raise ValueError(f"times of {training_seconds} s, {other_ms} ms and {own_ms} ms: none is below zero")
    saved = (other_ms - own_ms) / 1e3
    return math.ceil(training_seconds / saved) if saved > 0 else math.inf
