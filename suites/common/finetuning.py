"""Weights that a method learned once on the task of its model, and which are read from the task's cache afterwards."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import Tensor, nn

from bench import costs
from suites.common.kept_cost import parted, told
from suites.common.task import learning_task
from suites.common.training import Loss, Pace, distillation, fit

Module = TypeVar("Module", bound=nn.Module)

BATCH = 32
#: Rates of weights that the plain model brings, of those where the method makes another network of it, and of new ones.
KNOWN_RATE, REBUILT_RATE, FRESH_RATE = 3e-4, 1e-3, 3e-3


def teacher_for(model: Module, training_steps: int) -> Module | None:
    """A copy of the plain model to learn from, or None where nothing is trained.

    To be called before a method changes the model.
    """
    if not training_steps:
        return None
    task = getattr(model, "task", None)
    model.task = None  # type: ignore[assignment]
    try:
        teacher = copy.deepcopy(model).eval()
    finally:
        model.task = task  # type: ignore[assignment]
    return teacher.requires_grad_(False)


def finetuned(
    model: Module,
    teacher: nn.Module | None,
    method: Callable[..., Any],
    settings: dict[str, Any],
    training_steps: int,
    *,
    loss: Loss | None = None,
    fresh: Iterable[nn.Parameter] = (),
    rate: float = KNOWN_RATE,
) -> Module:
    """The reduced model with weights trained on its task, and what that cost; as it is where there is no teacher.

    Args:
        model: the reduced model; its plain version was loaded by a task that one can learn from.
        teacher: the plain model, from `teacher_for`.
        method: the method's public function; its source and name say which weights these are.
        settings: what else the weights depend on, in plain JSON types.
        training_steps: batches of 32 to learn from.
        loss: what to make small; None for cross-entropy and the teacher's answers.
        fresh: parameters that start at random.
        rate: of the other parameters.

    Raises:
        ValueError: the model was loaded without a task to learn from.
    """
    if teacher is None:
        return model
    name = method.__name__
    task = learning_task(model, f"{name}(training_steps)", "set training_steps=0 or take a digits model")
    pace = Pace(training_steps, rate, FRESH_RATE)

    @functools.wraps(method)  # the cache asks where `make` comes from: new source of the method is new weights
    def make() -> dict[str, Tensor]:
        wanted = distillation(model, teacher) if loss is None else loss
        with costs.recorded(model) as cost:
            fit(model, task.training_batches(BATCH, training_steps, 0), wanted, pace, fresh)
            cost.samples += BATCH * training_steps
        return {**model.state_dict(), **told(cost)}

    weights, cost = parted(task.remembered(name, {**settings, "steps": training_steps}, make))
    model.load_state_dict(weights)
    model.method_cost = cost  # type: ignore[assignment]
    model.learned = {"method": name, "steps": training_steps, **settings}  # type: ignore[assignment]
    return model


def needs_class_token_read(model: nn.Module, method: str) -> None:
    """Nothing, if the model reads its class token: training masks dropped tokens, and a mean would see them.

    Raises:
        ValueError: the model reads the mean over its tokens.
    """
    if getattr(model, "pool", "token") == "mean":
        raise ValueError(
            f"{method} trains with dropped tokens masked, and pool='mean' would read them: build the model with "
            "pool='token', or leave training out"
        )


def needs_training(model: Module, what: str, training_steps: int) -> Module:
    """The model, marked where its new weights are random: then it has a cost and no accuracy."""
    if not training_steps:
        model.untrained = f"{what} starts at random and was not trained: set training_steps, on a model with a task"  # type: ignore[assignment]
    return model
