"""Weights that a method learns from the start of a network, as long as the plain one did, and that are kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench import costs
from suites.common.kept_cost import parted, told
from suites.common.task import learning_task
from suites.common.training import Pace, classification, fit, one_thread

BATCH = 16
RATE = 2e-3

#: A loop that trains a network in place from batches.
Loop = Callable[[nn.Module, Any, int], list[float]]


def plain_loop(module: nn.Module, batches: Any, steps: int) -> list[float]:
    """The loss of each step of the loop that plain networks learn by."""
    return fit(module, batches, classification(module), Pace(steps, RATE))


def learned(
    model: nn.Module,
    plain: nn.Module,
    method: Callable[..., Any],
    settings: dict[str, Any],
    steps: int,
    loop: Loop = plain_loop,
    *,
    from_start: bool = True,
) -> nn.Module:
    """The changed model after so many steps on the plain one's task; marked as untrained where `steps` is 0.

    Args:
        model: the changed network, as it starts.
        plain: what was loaded by a task that one can learn from.
        method: its public function: its source and name say which weights these are.
        settings: what else the weights depend on, in plain JSON types.
        steps: batches of 16 sequences; 150 is as long as the plain network learns.
        loop: trains in place and gives the losses; one that counts its products leaves them in `loop.macs`.
        from_start: whether the changed network starts at random, so that without steps it has no quality.

    Raises:
        ValueError: the plain model was loaded without a task to learn from.
    """
    task = getattr(plain, "task", None)
    if not steps:
        if from_start:
            why = f"{method.__name__} starts at random and was not trained: set training_steps, on a model with a task"
            model.untrained = why  # type: ignore[assignment]
        return model
    task = learning_task(
        plain,
        method.__name__,
        "leave training_steps=0 or take a model with a task to learn from, as byte_gpt with task=text_bytes",
    )

    @functools.wraps(method)  # the cache asks where `make` comes from: new source of the method is new weights
    def make() -> dict[str, Tensor]:
        with torch.inference_mode(False), torch.enable_grad(), costs.recorded(model) as cost, one_thread():
            torch.manual_seed(0)
            loop(model, task.training_batches(BATCH, steps, 0), steps)
            cost.samples += BATCH * steps
            cost.macs = getattr(loop, "macs", None)  # of a loop that counts what it executes
        return {**model.state_dict(), **told(cost)}

    weights, cost = parted(task.remembered(method.__name__, {**settings, "steps": steps}, make))
    model.load_state_dict(weights)
    model.method_cost = cost  # type: ignore[assignment]
    model.task = task  # type: ignore[assignment]
    model.learned = {"method": method.__name__, "steps": steps, **settings}  # type: ignore[assignment]
    return model.eval()
