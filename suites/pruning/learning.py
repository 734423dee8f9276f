"""How a method learns: once, on its model's task, with what it cost; read from the task's cache afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench import costs
from suites.common.kept_cost import parted, told
from suites.common.task import learning_task
from suites.common.training import Loss, Pace, classification, fit
from suites.pruning.examples import example_of
from suites.pruning.groups import Group, keep_channels

BATCH = 32
RATE = 1e-3


def task_of(model: nn.Module, method: str) -> Any:
    """The task that the model was loaded by.

    Raises:
        ValueError: there is none.
    """
    return learning_task(
        model, method, "set steps=0, or take a model with a task such as digits_resnet20 or digits_mlp"
    )


def once(
    model: nn.Module,
    method: Callable[..., Any],
    key: Mapping[str, Any],
    make: Callable[[costs.Cost], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """The tensors that `make` gives, made once for this model, task, key and source; the cost is left on the model.

    A model without a task is given them as they are made: what `make` does then needs no data.

    Args:
        model: loaded by a task, or not.
        method: public function whose name and source say which tensors these are.
        key: what else they depend on, in plain JSON types.
        make: learns; it adds the samples that it takes to the cost that it is given.
    """
    task: Any = getattr(model, "task", None)

    @functools.wraps(method)
    def made() -> dict[str, Tensor]:
        with costs.recorded(model) as cost:
            found = make(cost)
        with torch.device("cpu"):  # numbers, also where the network has shapes alone
            return {**found, **told(cost)}

    kept = task.remembered(method.__name__, dict(key), made) if hasattr(task, "remembered") else made()
    weights, cost = parted(kept)
    model.method_cost = cost  # type: ignore[assignment]
    return weights


def train(
    model: nn.Module,
    task: Any,
    steps: int,
    cost: costs.Cost,
    *,
    loss: Loss | None = None,
    rate: float = RATE,
    seed: int = 0,
    quick: Iterable[nn.Parameter] = (),
    quick_rate: float | None = None,
) -> None:
    """Train in place on the task for so many batches of 32; cross-entropy unless a loss is given.

    `quick` parameters learn at a rate of their own: Adam moves a number by its rate a step at most, however large its
    gradient is.
    """
    if not steps:
        return
    cost.samples += steps * BATCH
    pace = Pace(steps, rate, quick_rate)
    fit(model, task.training_batches(BATCH, steps, seed), loss or classification(model), pace, quick)


def calibration(model: nn.Module, samples: int, cost: costs.Cost) -> tuple[Tensor, Tensor]:
    """Inputs and what belongs to them to score on: of the task, or random ones, which is then said on the network.

    Random inputs come with the network's own answers; a network scored on them has a cost and no score.

    Raises:
        ValueError: a network without a task that takes or gives more than one tensor.
    """
    cost.samples += samples
    task: Any = getattr(model, "task", None)
    if hasattr(task, "training_batches"):
        return next(iter(task.training_batches(samples, 1, 0)))
    given = example_of(model, samples)
    one = not isinstance(given, Mapping) and len(given) == 1
    with torch.no_grad():
        answers = model(*given) if one else None
    if not isinstance(answers, Tensor):
        raise ValueError(
            f"a score is taken on one tensor of inputs and one of answers, and {type(model).__name__} has others: take "
            "a method that scores weights alone, as global_magnitude does, or wrap the network"
        )
    model.untrained = "scored on random inputs: take a model with a task"  # type: ignore[assignment]
    return given[0], answers.argmax(-1)


class Held:
    """Masks that stay while a network learns: gradients of dropped weights are zero, and so the weights stay zero."""

    def __init__(self, layers: Mapping[str, nn.Module], masks: Mapping[str, Tensor]):
        self._handles = []
        for name, layer in layers.items():
            weight: nn.Parameter = layer.weight  # type: ignore[assignment]
            mask = masks[name].to(weight.dtype)
            with torch.no_grad():
                weight.mul_(mask)
            self._handles.append(weight.register_hook(functools.partial(torch.mul, mask)))

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def fresh(model: nn.Module, seed: int) -> None:
    """Draw every layer's weights anew, as torch's layers start, in place."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        for part in model.modules():
            again = getattr(part, "reset_parameters", None)
            if callable(again):
                again()
    finally:
        torch.set_rng_state(state)


def cut(model: nn.Module, groups: list[Group], keeps: list[Tensor]) -> nn.Module:
    """Remove channels group by group; says on the network that it is a smaller dense one."""
    for group, keep in zip(groups, keeps, strict=True):
        if len(keep) < group.size:
            keep_channels(model, group, keep)
    model.kernel = "slim"  # type: ignore[assignment]
    return model


def slim_once(
    model: nn.Module,
    method: Callable[..., Any],
    groups: list[Group],
    key: Mapping[str, Any],
    make: Callable[[costs.Cost], list[Tensor]],
) -> nn.Module:
    """A network cut by what a method learned once.

    Args:
        model: loaded by a task.
        method: its public function.
        groups: what may be cut, in order.
        key: what else it depends on.
        make: learns on the model in place, cuts it by `cut` and gives the kept channels of each group.
    """
    cut_here = False

    def made(cost: costs.Cost) -> dict[str, Tensor]:
        nonlocal cut_here
        keeps = make(cost)
        cut_here = True
        return {**{f"keep.{i}": keep for i, keep in enumerate(keeps)}, **model.state_dict()}

    found = once(model, method, key, made)
    keeps = [found.pop(f"keep.{i}") for i in range(len(groups))]
    if not cut_here:
        cut(model, groups, keeps)
    model.load_state_dict(found)
    return model
