"""Weights that a method of this suite learned on its decoder's text: once, and then read by every process of a run.

So the decoder that is scored is the one that is timed. What the losses run are parts of a network, which no hook on the
whole sees: seconds, samples and peak of the training are told, passes are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import nn

from suites.common.from_scratch import learned
from suites.common.training import Loss, Pace, fit

Module = TypeVar("Module", bound=nn.Module)
NO_PASSES = "the loss runs parts of the network, whose passes nobody counts"


def taught(
    module: Module,
    plain: nn.Module,
    method: Callable[..., Any],
    settings: dict[str, Any],
    pace: Pace,
    loss: Loss,
    fresh: Iterable[nn.Parameter] = (),
) -> Module:
    """The module after `pace.steps` batches of the plain decoder's task, in evaluation mode; as it is after none.

    Args:
        module: what learns, in place.
        plain: the decoder that was loaded by a task.
        method: its public function: its source and name say which weights these are.
        settings: what else they depend on, in plain JSON types.
        pace: steps and rates.
        loss: what is made small.
        fresh: parameters that start at random.

    Raises:
        ValueError: the decoder was loaded without a task to learn from.
    """

    def loop(model: nn.Module, batches: Any, steps: int) -> list[float]:
        return fit(model, batches, loss, pace, fresh)

    learned(module, plain, method, settings, pace.steps, loop, from_start=False)
    if pace.steps:
        cost: Any = module.method_cost
        module.method_cost = {**cost, "forwards": None, "backwards": None, "note": NO_PASSES}  # type: ignore[assignment]
    return module.eval()
