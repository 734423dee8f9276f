"""The lottery ticket: prune a share, rewind the survivors to their first values, train again; beside it the same mask
with new values.

Source: Frankle and Carbin 2019, arXiv:1803.03635, sections 1 and 2: per round 20 % of each fully connected layer's
survivors by |w|, half of that in the output layer, 10 % of convolutions; of ResNet and VGG 20 % by one threshold over
all convolutions, the linear layers left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, Rate
from suites.common.training import Pace, classification, fit
from suites.pruning.kernels import Kernel
from suites.pruning.layers import install, install_to_train, prunable, weights_of
from suites.pruning.learning import BATCH, Held, fresh, once, task_of
from suites.pruning.rounding import dropped
from suites.pruning.structures import Pattern

RATE = 3e-3
#: Share of the convolutions' survivors that goes in a round, layer by layer and by one threshold over all of them.
CONV_RATE, GLOBAL_RATE = 0.1, 0.2


def left_after(sizes: Sequence[int], rates: Sequence[float], rounds: int) -> list[int]:
    """Weights of each layer after so many rounds that each take int(rate x survivors)."""
    found = list(sizes)
    for _ in range(rounds):
        found = [count - dropped(count, rate) for count, rate in zip(found, rates, strict=True)]
    return found


def shares(layers: Mapping[str, nn.Module], fc_rate: float, conv_rate: float) -> dict[str, float]:
    """Share of survivors that goes a round: convolutions, linear layers, and half of that in the last one."""
    found = {name: conv_rate if isinstance(layer, nn.Conv2d) else fc_rate for name, layer in layers.items()}
    last = list(layers)[-1]
    found[last] = fc_rate / 2
    return found


def lottery(
    model: nn.Module,
    *,
    rounds: Count = 3,
    restart: Literal["rewind", "reinit", "dense"] = "rewind",
    fc_rate: Rate = 0.2,
    conv_rate: Rate | None = None,
    scope: Literal["layer", "global"] = "layer",
    steps: Count = 400,
    kernel: Literal["mask", "csr"] = "mask",
    workload: str = "forward",
) -> nn.Module:
    """A network trained under the mask that so many rounds of pruning found.

    Args:
        model: any network with linear or convolutional layers, loaded by a task; its weights are drawn anew.
        rounds: of train, prune, rewind.
        restart: the last training starts from the first values (`rewind`), from new ones (`reinit`), or trains the
            dense network as long (`dense`).
        fc_rate: share of a linear layer's survivors that goes in a round; half of it in the last layer.
        conv_rate: the same of a convolution, or of all of them; None for the paper's 0.1 by layer and 0.2 globally.
        scope: `layer` takes its share of each layer; `global` takes `conv_rate` of all convolutions' survivors together
            and leaves linear layers alone, as the paper does with ResNet and VGG.
        steps: batches of each training; 0 prunes the weights as they are and trains nothing.
        kernel: how it runs.
        workload: filled in from the case: no gradient of a training step reaches dropped weights.

    Raises:
        ValueError: no such layers, no convolution where the scope is global, or no task.
    """
    layers = prunable(model, "lottery")
    if scope == "global" and not any(isinstance(layer, nn.Conv2d) for layer in layers.values()):
        raise ValueError(f"lottery(scope='global') prunes convolutions together; {type(model).__name__} has none")
    if conv_rate is None:
        conv_rate = GLOBAL_RATE if scope == "global" else CONV_RATE
    rates, together = shares(layers, fc_rate, conv_rate), conv_rate
    if any(weight.is_meta for weight in weights_of(layers).values()):
        known = rates if scope == "layer" and not steps else None
        return _counted(model, layers, known, 0 if restart == "dense" else rounds, kernel)

    def make(cost: costs.Cost) -> dict[str, Tensor]:
        pruned = 0 if restart == "dense" else rounds
        masks = _rounds(model, layers, pruned, None if scope == "global" else rates, together, steps, cost)
        if restart == "reinit" and steps:
            fresh(model, 1)
        _learn(model, layers, masks, steps, cost)
        return {**{f"mask.{name}": mask for name, mask in masks.items()}, **model.state_dict()}

    key = {"rounds": rounds, "restart": restart, "rates": [fc_rate, conv_rate], "scope": scope, "steps": steps}
    found = once(model, lottery, key, make)
    masks = {name: found.pop(f"mask.{name}").bool() for name in layers}
    model.load_state_dict(found)
    put = install_to_train if workload == "training_step" else install
    return put(model, {name: Pattern(mask, int(mask.sum())) for name, mask in masks.items()}, kernel)


def _counted(
    model: nn.Module, layers: Mapping[str, nn.Module], rates: Mapping[str, float] | None, rounds: int, kernel: Kernel
) -> nn.Module:
    """The network without values, of whose masks it is known how many weights they leave.

    Raises:
        ValueError: how many each layer keeps depends on values.
    """
    if rates is None:
        raise ValueError(
            "lottery compares values, and the meta device has none: count it with scope='layer' and steps=0, or "
            "measure it"
        )
    sizes = [layer.weight.numel() for layer in layers.values()]  # type: ignore[operator]
    left = left_after(sizes, [rates[name] for name in layers], rounds)
    masks = {name: torch.ones_like(layer.weight, dtype=torch.bool) for name, layer in layers.items()}  # type: ignore[arg-type]
    return install(model, {name: Pattern(masks[name], count) for name, count in zip(masks, left, strict=True)}, kernel)


def _rounds(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    rounds: int,
    rates: Mapping[str, float] | None,
    together: float,
    steps: int,
    cost: costs.Cost,
) -> dict[str, Tensor]:
    """The masks after the rounds, by a share of each layer or one of all convolutions; the network at its start."""
    if steps:
        fresh(model, 0)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    masks = {name: torch.ones_like(layer.weight, dtype=torch.bool) for name, layer in layers.items()}  # type: ignore[arg-type]
    for _ in range(rounds):
        _learn(model, layers, masks, steps, cost)
        weights = weights_of(layers)
        if rates is None:
            convolutions = {name: weights[name] for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}
            masks |= next_masks(convolutions, masks, together)
        else:
            masks = {name: next_mask(weights[name], masks[name], rates[name]) for name in layers}
        model.load_state_dict(first)
    return masks


def next_mask(weight: Tensor, mask: Tensor, rate: float) -> Tensor:
    """The mask without int(rate x survivors) of its smallest survivors."""
    count = dropped(int(mask.sum()), rate)
    score = torch.where(mask, weight.abs(), torch.inf)
    smaller = mask.clone().flatten()
    if count:
        smaller[score.flatten().topk(count, largest=False).indices] = False
    return smaller.view(mask.shape)


def next_masks(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], rate: float) -> dict[str, Tensor]:
    """The masks of named weights without int(rate x survivors) of the smallest survivors of all of them together."""
    flat = [torch.cat([part[name].flatten() for name in weights]) for part in (weights, masks)]
    left = next_mask(flat[0], flat[1], rate).split([weight.numel() for weight in weights.values()])
    return {name: part.view(weights[name].shape) for name, part in zip(weights, left, strict=True)}


def _learn(
    model: nn.Module, layers: Mapping[str, nn.Module], masks: Mapping[str, Tensor], steps: int, cost: costs.Cost
) -> None:
    if not steps:
        return
    task = task_of(model, "lottery(steps)")
    cost.samples += steps * BATCH
    with Held(layers, masks):
        fit(model, task.training_batches(BATCH, steps, 0), classification(model), Pace(steps, RATE, weight_decay=0.0))
