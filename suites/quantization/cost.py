"""What it cost to quantise a network: seconds, passes over it and samples, as readings of its row.

A method that is `costed` is timed from its call to its return: folding, calibration, curvature, searches, packing. What
it learns is kept with the weights (`suites.common.kept_cost`) and added, so that a row whose weights are read from the
cache costs what it did when they were made. Settings that leave the network as it is cost nothing, and neither do
shapes alone.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import nn

from bench import costs
from bench.costs import Cost

Method = TypeVar("Method", bound=Callable[..., nn.Module])


@dataclass
class _Running:
    """The cost of the method that runs now, and seconds that are told elsewhere."""

    cost: Cost
    elsewhere: float = 0.0


_NOW: ContextVar[_Running | None] = ContextVar("the method that runs now", default=None)


def costed(method: Method) -> Method:
    """The method, whose network says as `method_cost` what it cost to make it."""

    @functools.wraps(method)
    def run(model: nn.Module, **settings: Any) -> nn.Module:
        if any(parameter.is_meta for parameter in model.parameters()):
            return method(model, **settings)
        with costs.recorded(model, memory=False) as cost:
            running = _Running(cost)
            token = _NOW.set(running)
            try:
                made = method(model, **settings)
            finally:
                _NOW.reset(token)
        cost.seconds -= running.elsewhere
        if getattr(made, "execution", None) is not None:  # else nothing was changed
            made.method_cost = _together(cost, getattr(made, "method_cost", None))  # type: ignore[assignment]
        return made

    return cast(Method, run)


def _together(cost: Cost, learned: dict[str, Any] | None) -> dict[str, Any]:
    """A cost and that of what was learned; the peak of memory is of learning alone, which watches it."""
    found = cost.as_dict()
    for name, value in (learned or {}).items():
        if name not in ("note", "macs") and value is not None:
            found[name] = value if found[name] is None else found[name] + value
    return found


def samples_given(samples: int) -> None:
    """Note that the method that runs now was given so many samples."""
    running = _NOW.get()
    if running is not None:
        running.cost.samples += samples


@contextmanager
def told_elsewhere() -> Iterator[None]:
    """A block whose cost is kept with weights and is not counted again: passes and seconds are as before it."""
    running = _NOW.get()
    if running is None:
        yield
        return
    cost = running.cost
    before, begun = (cost.forwards, cost.backwards, cost.samples), time.perf_counter()
    try:
        yield
    finally:
        cost.forwards, cost.backwards, cost.samples = before
        running.elsewhere += time.perf_counter() - begun
