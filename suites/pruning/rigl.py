"""RigL: a network that is sparse all along; the smallest weights leave, those with the largest gradients grow.

Source: Evci et al. 2020, "Rigging the Lottery: Making All Tickets Winners", arXiv:1911.11134, section 3: every so many
steps a share drop/2 (1 + cos(pi t / T)) of each layer's weights leaves by |w|, as many grow by |gradient| and start at
zero. It is the sparse training beside SSVI, and what lets the masks of Sparse-IFT move (arXiv:2303.11525).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, KeepRate, PositiveInt, Rate
from suites.common.training import Pace, classification, fit
from suites.pruning.layers import hold, install_to_train, prunable
from suites.pruning.learning import BATCH, fresh, once, task_of
from suites.pruning.rounding import exact
from suites.pruning.spdf import random_masks
from suites.pruning.structures import Pattern

RATE = 3e-3


def rigl(
    model: nn.Module,
    *,
    density: KeepRate | None = None,
    steps: Count = 0,
    every: PositiveInt = 100,
    drop: Rate = 0.3,
    kernel: Literal["mask", "csr", "gather"] = "mask",
) -> nn.Module:
    """A network trained from new weights under masks that move.

    Args:
        model: any network with linear or convolutional layers.
        density: share of the weights of every layer but the first that is there; None for the masks that the network
            was built with, as those of Sparse-IFT.
        steps: batches of learning on the model's task; 0 leaves its own weights under the first masks.
        every: steps between two moves.
        drop: share of a layer's weights that moves at first; 0 keeps the masks, the static control.
        kernel: how it runs; `mask` also lets no gradient reach dropped weights, so that it trains.

    Raises:
        ValueError: no such layers, none with a mask where no density is given, or steps without a task.
    """
    layers = prunable(model, "rigl")
    if density is None:
        layers = {name: layer for name, layer in layers.items() if hasattr(layer, "held")}
        if not layers:
            raise ValueError(f"rigl: {type(model).__name__} was built without masks, so set density, such as 0.1")
        patterns = {name: Pattern(layer.held, int(layer.weight_counts["nonzero"])) for name, layer in layers.items()}  # type: ignore[arg-type, index]
    else:
        layers = dict(list(layers.items())[1:])
        if not layers:
            raise ValueError(f"rigl leaves the first layer dense, and {type(model).__name__} has one only")
        patterns = random_masks(layers, float(1 - exact(density)))
    if steps:
        key = {"density": density, "steps": steps, "every": every, "drop": drop}
        masks = {name: pattern.mask for name, pattern in patterns.items()}
        found = once(model, rigl, key, lambda cost: _learn(model, layers, masks, steps, every, drop, cost))
        patterns = {name: Pattern(found.pop(f"mask.{name}").bool(), each.count) for name, each in patterns.items()}
        model.load_state_dict(found)
    return install_to_train(model, patterns, kernel)


def _learn(
    model: nn.Module, layers: dict[str, nn.Module], masks: dict[str, Tensor], steps: int, every: int, drop: float,
    cost: costs.Cost,
) -> dict[str, Tensor]:  # fmt: skip
    task, plain, done = task_of(model, "rigl(steps)"), classification(model), 0
    fresh(model, 0)
    weights: dict[str, nn.Parameter] = {name: layer.weight for name, layer in layers.items()}  # type: ignore[misc]
    for name, layer in layers.items():
        hold(layer, masks[name])

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal done
        if done and done % every == 0 and drop:
            share = drop * (1 + math.cos(math.pi * done / steps)) / 2
            for layer in layers.values():
                layer.held = torch.ones_like(layer.held)  # type: ignore[arg-type]
            gradients = torch.autograd.grad(plain(inputs, labels), list(weights.values()))
            for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
                masks[name] = regrown(weights[name].detach(), masks[name], gradient, share)
                layer.held = masks[name]
        done += 1
        with torch.no_grad():  # momentum of weights that left would bring them back
            for name, weight in weights.items():
                weight.mul_(masks[name])
        return plain(inputs, labels)

    cost.samples += steps * BATCH
    fit(model, task.training_batches(BATCH, steps, 0), loss, Pace(steps, RATE, weight_decay=0.0))
    return {**{f"mask.{name}": mask for name, mask in masks.items()}, **model.state_dict()}


def regrown(weight: Tensor, mask: Tensor, gradient: Tensor, share: float) -> Tensor:
    """The mask after int(share x survivors) left by |w| and as many grew by |gradient|, those that left among them."""
    count = int(share * int(mask.sum()))
    if not count:
        return mask
    smallest = torch.where(mask, weight.abs(), torch.inf).flatten().topk(count, largest=False).indices
    moved = mask.flatten().clone()
    moved[smallest] = False
    wanted = torch.where(moved, -torch.inf, gradient.abs().flatten())
    moved[wanted.topk(count).indices] = True
    return moved.view(mask.shape)
