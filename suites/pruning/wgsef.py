"""WGSEF: the convex envelope of "at most k groups" as a penalty, by its proximal step.

Source: arXiv:2212.12921. Penalty lambda/2 (group k-support norm)^2; its prox scales each group by u / (lambda + u) with
u = clip(alpha v - lambda, 0, 1), v the groups' norms and alpha by bisection so that the sum of u is k. With weights d:
u = clip(alpha v sqrt(d) - lambda d, 0, 1), scale u / (lambda d + u).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, Positive
from suites.common.optimizer_maker import OptimizerMaker
from suites.common.training import classification
from suites.pruning.layers import install, prunable
from suites.pruning.learning import BATCH, Held, once, task_of, train
from suites.pruning.rounding import exact
from suites.pruning.structures import Pattern

MOMENTUM = 0.9


def prox(groups: Tensor, k: int, strength: float, weights: Tensor | None = None) -> Tensor:
    """The proximal step of the penalty.

    Args:
        groups: one group a row, [groups, members].
        k: how many groups the penalty leaves free.
        strength: lambda, above 0.
        weights: d of each group, [groups]; None for ones.

    Raises:
        ValueError: k is not between 1 and the number of groups.
    """
    if not 1 <= k <= len(groups):
        raise ValueError(f"k={k} of {len(groups)} groups")
    d = groups.new_ones(len(groups)) if weights is None else weights
    u = open_shares(groups.norm(dim=1), k, strength, d)
    return groups * (u / (strength * d + u))[:, None]


def open_shares(norms: Tensor, k: int, strength: float, d: Tensor) -> Tensor:
    """U of each group, clipped to 0 .. 1, with a sum of k, [groups]; groups of norm zero have none."""
    scaled = norms.double() * d.double().sqrt()
    least = strength * d.double()
    nonzero = scaled > 0
    if int(nonzero.sum()) <= k:
        return nonzero.to(norms.dtype)
    low, high = 0.0, float(((least + 1)[nonzero] / scaled[nonzero]).max())
    for _ in range(100):
        alpha = (low + high) / 2
        total = float((alpha * scaled - least).clamp(0, 1)[nonzero].sum())
        low, high = (alpha, high) if total < k else (low, alpha)
    return ((high * scaled - least).clamp(0, 1) * nonzero).to(norms.dtype)


def group_lasso(groups: Tensor, strength: float) -> Tensor:
    """The prox of strength x sum of norms: max(0, 1 - strength / ||v||) v; the baseline."""
    norms = groups.norm(dim=1, keepdim=True)
    return groups * (1 - strength / norms.clamp(min=1e-12)).clamp(min=0)


class ProximalSgd(torch.optim.SGD):
    """Gradient descent with momentum that takes the proximal step of every layer's groups after each of its own."""

    def __init__(self, model: nn.Module, names: list[str], keep: float, strength: float, penalty: str, rate: float):
        super().__init__(model.parameters(), rate, momentum=MOMENTUM)
        self.layers = [model.get_submodule(name) for name in names]
        self.keep, self.strength, self.penalty = keep, strength * rate, penalty

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of descent, then one of the prox."""
        found = super().step(closure)
        for layer in self.layers:
            _step(layer.weight, self.keep, self.strength, self.penalty)  # type: ignore[arg-type]
        return found


def wgsef(
    model: nn.Module,
    *,
    keep: KeepRate = 0.3,
    strength: Positive = 0.5,
    penalty: Literal["envelope", "lasso"] = "envelope",
    rate: Positive = 0.05,
    steps: Count = 600,
    tuning: Count = 200,
    kernel: Literal["mask", "gather"] = "mask",
    workload: str = "forward",
) -> nn.Module:
    """A network whose filters, or rows of linear layers, the prox drove to zero, then tuned; the last layer stays.

    Args:
        model: any network with linear or convolutional layers, loaded by a task.
        keep: k over the groups of each layer.
        strength: lambda.
        penalty: the envelope, or group lasso for comparison.
        rate: of proximal gradient descent with momentum; the prox takes rate x strength.
        steps: batches of it.
        tuning: batches afterwards with the zero groups held.
        kernel: how it runs.
        workload: filled in from the case: a training step is one of descent and of the prox.

    Raises:
        ValueError: too few layers, or no task.
    """
    every = prunable(model, "wgsef")
    layers = dict(list(every.items())[:-1])
    if not layers:
        raise ValueError(f"wgsef leaves the last layer alone, and {type(model).__name__} has one only")

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        _descend(model, descent, steps, cost)
        masks = {name: alive(layer.weight.detach()) for name, layer in layers.items()}  # type: ignore[operator]
        if tuning:
            with Held(layers, masks):
                train(model, task_of(model, "wgsef(tuning)"), tuning, cost)
        return {**{f"mask.{name}": mask for name, mask in masks.items()}, **model.state_dict()}

    how = {"keep": keep, "strength": strength, "penalty": penalty, "rate": rate}
    descent = OptimizerMaker(model, ProximalSgd, names=list(layers), **how)
    key = {**how, "steps": [steps, tuning]}
    found = once(model, wgsef, key, make)
    masks = {name: found.pop(f"mask.{name}").bool() for name in layers}
    model.load_state_dict(found)
    if workload == "training_step" and kernel == "mask":
        model.make_optimizer = descent  # type: ignore[assignment]
    return install(model, {name: Pattern(mask, int(mask.sum())) for name, mask in masks.items()}, kernel)


def alive(weight: Tensor) -> Tensor:
    """Which filters or rows are not zero, as a mask of the weight's shape."""
    rows = weight.flatten(1).norm(dim=1) > 0
    return rows.view(-1, *[1] * (weight.ndim - 1)).expand_as(weight).clone()


def _descend(model: nn.Module, descent: OptimizerMaker, steps: int, cost: costs.Cost) -> None:
    if not steps:
        return
    task, loss = task_of(model, "wgsef(steps)"), classification(model)
    optimizer = descent()
    cost.samples += steps * BATCH
    model.train()
    for images, labels in task.training_batches(BATCH, steps, 0):
        optimizer.zero_grad(set_to_none=True)
        loss(images, labels).backward()
        optimizer.step()
    model.eval()


def _step(weight: Tensor, keep: float, strength: float, penalty: str) -> None:
    groups = weight.flatten(1)
    k = max(1, int(exact(keep) * len(groups)))
    moved = prox(groups, k, strength) if penalty == "envelope" else group_lasso(groups, strength)
    weight.copy_(moved.view(weight.shape))
