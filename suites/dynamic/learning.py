"""Digits to learn from and to choose thresholds on, and weights that a method keeps beside its model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import costs
from suites.common import digits_data
from suites.common.kept_cost import parted, told
from suites.common.task import learning_task
from suites.common.training import Loss, Pace, fit, one_thread

BATCH = 32
#: Training digits that thresholds are chosen on; none of the held-out 597 is among them.
VALIDATION = 240
#: What is kept of the cost of a training.
KEPT = ("seconds", "peak_bytes", "macs")


def digits_parts(task: Any) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images and labels to learn from, and those to choose thresholds on: both of the training digits.

    Raises:
        ValueError: the task is not one of digits.
    """
    if not hasattr(task, "resolution") or not hasattr(task, "_inputs"):
        raise ValueError(f"thresholds are chosen on digits, and the task is {getattr(task, 'name', task)}")
    train, _ = digits_data.split()
    parts = (train[:-VALIDATION], train[-VALIDATION:])
    first, second = ((task._inputs(index), digits_data.labels(index)) for index in parts)
    return first, second


def held_out(task: Any) -> tuple[Tensor, Tensor]:
    """The held-out inputs and labels of a task in their order, in one piece."""
    inputs, labels = zip(*task.batches(100), strict=True)
    return torch.cat(inputs), torch.cat(labels)


@dataclass
class Work:
    """Products that a training makes, added up while it runs: a backward has twice those of its forward."""

    macs: float = 0.0

    def learned(self, products: float, samples: int = BATCH) -> None:
        """A forward and its backward, of so many products a sample."""
        self.macs += 3 * products * samples

    def looked(self, products: float, samples: int = BATCH) -> None:
        """A forward alone, as of a teacher."""
        self.macs += products * samples


def remembered(
    model: nn.Module, method: Callable[..., Any], settings: dict[str, Any], train: Callable[[Any], dict[str, Tensor]],
    work: Work | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Tensors that `train(task)` gives, made once for the model's weights, the settings and the method's source.

    What the training cost is kept with them and left on the model as `method_cost`, beside what an earlier one cost.

    Args:
        model: loaded by a task that one can learn from.
        method: the public function.
        settings: what else the weights depend on, in plain JSON types.
        train: makes the weights from the task.
        work: adds up its products, where it counts them.

    Raises:
        ValueError: the model was loaded without a task to learn from.
    """
    task = learning_task(model, f"{method.__name__}(training_steps)", "set training_steps=0 or name a task")

    @functools.wraps(method)  # the cache asks where `make` comes from: new source of the method is new weights
    def make() -> dict[str, Tensor]:
        with torch.inference_mode(False), torch.enable_grad(), costs.recorded(model) as cost, one_thread():
            torch.manual_seed(0)
            made = train(task)
        cost.macs = None if work is None else work.macs
        return {**made, **told(cost, KEPT)}

    weights, cost = parted(task.remembered(method.__name__, settings, make))
    before = getattr(model, "method_cost", None) or {}
    together = {name: value + before.get(name, 0.0) for name, value in cost.items() if name != "peak_bytes"}
    peaks = [of["peak_bytes"] for of in (cost, before) if "peak_bytes" in of]
    model.method_cost = {**together, **({"peak_bytes": max(peaks)} if peaks else {})}  # type: ignore[assignment]
    return weights


def with_cost_of(network: nn.Module, model: nn.Module) -> None:
    """Have a network that a method made say what was spent on learning it, which the model was told."""
    network.method_cost = getattr(model, "method_cost", None)  # type: ignore[assignment]


def trained(
    module: nn.Module, model: nn.Module, method: Callable[..., Any], settings: dict[str, Any], steps: int, loss: Loss,
    rate: float = 3e-3,
) -> nn.Module:  # fmt: skip
    """The module with weights that `loss` taught it on the model's task; marked as untrained where `steps` is 0."""
    if not steps:
        module.untrained = f"{method.__name__} was not trained: set training_steps, on a model with a task"  # type: ignore[assignment]
        return module.eval()

    def train(task: Any) -> dict[str, Tensor]:
        fit(module, task.training_batches(BATCH, steps, 0), loss, Pace(steps, rate))
        return module.state_dict()

    module.load_state_dict(remembered(model, method, {**settings, "steps": steps}, train))
    module.learned = {"method": method.__name__, "steps": steps, **settings}  # type: ignore[assignment]
    with_cost_of(module, model)
    return module.eval()
