"""Beta-Rank: filters by what they do to their inputs, |W| x deviation of the output over that of the input window.

Source: arXiv:2304.07461, section 3; allocation by given rates as in HRank's code.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, Rate
from suites.pruning import scores
from suites.pruning.groups import Group
from suites.pruning.learning import BATCH, calibration, cut, slim_once, task_of, train
from suites.pruning.rethinking import chosen_groups, keeps_by, rate_of_each


def beta_rank(
    model: nn.Module,
    *,
    rate: Rate = 0.3,
    rates: Annotated[list[Rate], Field(min_length=1)] | None = None,
    as_released: bool = False,
    steps: Count = 0,
) -> nn.Module:
    """A convolutional network without the filters of the lowest beta rank, scored on one batch of training images.

    Args:
        model: a convolutional network of this suite, scored on its task's images, or on random ones where it has none.
        rate: share of the inner channels of every block that goes.
        rates: the same for each block.
        as_released: windows as the authors' code slices them.
        steps: batches of fine-tuning.

    Raises:
        ValueError: another network or number of rates, or steps without a task.
    """
    groups = chosen_groups(model, "beta_rank")
    each = rate_of_each(groups, rates, rate)

    def make(cost: costs.Cost) -> list[Tensor]:
        images, _ = calibration(model, BATCH, cost)
        keeps = keeps_by(ranks(model, groups, images, as_released), each)
        cut(model, groups, keeps)
        if steps:
            train(model, task_of(model, "beta_rank(steps)"), steps, cost)
        return keeps

    key = {"rates": each, "as_released": as_released, "steps": steps}
    return slim_once(model, beta_rank, groups, key, make)


def ranks(model: nn.Module, groups: list[Group], images: Tensor, as_released: bool = False) -> list[Tensor]:
    """The score of every channel of each group, from one forward."""
    inputs: dict[str, Tensor] = {}

    def seen(name: str) -> object:
        return lambda _module, args: inputs.__setitem__(name, args[0].detach())

    paths = [group.outs[0][0] for group in groups]
    hooks = [model.get_submodule(path).register_forward_pre_hook(seen(path)) for path in paths]  # type: ignore[arg-type]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    convs = (model.get_submodule(path) for path in paths)
    return [scores.beta_rank(conv, inputs[path], as_released) for conv, path in zip(convs, paths, strict=True)]  # type: ignore[arg-type]
