"""Rethinking the value of pruning: is the architecture or its inherited weights what pruning finds?

Source: Liu et al. 2019, arXiv:1810.05270, sections 3 and 4: a pruned net fine-tuned, beside the same shape trained from
scratch for as many epochs (Scratch-E) or for the same products (Scratch-B). Filters by their L1 norm, a rate a group.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, Positive, Rate
from suites.common.training import Pace, classification, fit
from suites.pruning.groups import Group, groups_of
from suites.pruning.learning import BATCH, cut, fresh, slim_once, task_of, train
from suites.pruning.rounding import check_sparsity, kept_width
from suites.pruning.scores import filter_l1, gains, top

#: Steps and rate of the plain networks' own training on digits.
PLAIN_STEPS = 700
PLAIN_RATE = 3e-3


def scratch_steps(steps: int, dense_macs: float, pruned_macs: float, most: float = 2.0) -> int:
    """Scratch-B: steps x products of the dense net over those of the pruned one, at most `most` times as many."""
    return round(steps * min(most, dense_macs / pruned_macs))


def chosen_groups(model: nn.Module, method: str, trunk: bool = False) -> list[Group]:
    """Groups of inner channels, and with `trunk` those of the stages."""
    return [group for group in groups_of(model, method) if trunk or not group.trunk]


def rate_of_each(groups: list[Group], rates: list[float] | None, rate: float) -> list[float]:
    """A rate for each group.

    Raises:
        ValueError: another number of rates.
    """
    found = [rate] * len(groups) if rates is None else list(rates)
    if len(found) != len(groups):
        names = ", ".join(group.name for group in groups[:4])
        raise ValueError(
            f"rates has {len(found)} entries and the network has {len(groups)} groups of channels ({names}, ...)"
        )
    for each in found:
        check_sparsity(each, "rate")
    return found


def keeps_by(scores: list[Tensor], rates: list[float]) -> list[Tensor]:
    """The int(c (1 - rate)) best channels of each group, one at least."""
    return [top(score, kept_width(len(score), rate)) for score, rate in zip(scores, rates, strict=True)]


def slim(
    model: nn.Module,
    *,
    rate: Rate = 0.4,
    rates: Annotated[list[Rate], Field(min_length=1)] | None = None,
    score: Literal["l1", "gain"] = "l1",
    trunk: bool = False,
    start: Literal["inherited", "scratch_e", "scratch_b", "random"] = "inherited",
    longest: Positive = 2.0,
    steps: Count = 0,
) -> nn.Module:
    """A convolutional network cut to the best channels of each group, then trained in one of the ways of the control.

    Args:
        model: a convolutional network of this suite.
        rate: share of the channels of every group that goes.
        rates: the same for each group.
        score: L1 norm of filters, or gain of the norm behind them.
        trunk: whether the channels of residual trunks go as well.
        start: `inherited` fine-tunes the kept weights; `scratch_e` draws new ones and trains as the plain net was
            trained; `scratch_b` as long in products; `random` keeps random channels and fine-tunes: the control.
        longest: how many times the plain net's steps `scratch_b` takes at most: 2 on ImageNet, without end on CIFAR.
        steps: batches of fine-tuning; of the plain net's training for the two from scratch, 0 for its 700.

    Raises:
        ValueError: another network, another number of rates, or no task to learn from.
    """
    groups = chosen_groups(model, "slim", trunk)
    each = rate_of_each(groups, rates, rate)

    def keeps() -> list[Tensor]:
        if start == "random":
            order = torch.Generator().manual_seed(0)
            return keeps_by([torch.rand(group.size, generator=order) for group in groups], each)
        of = filter_l1 if score == "l1" else gains
        return keeps_by([_on_cpu(of(model, group)) for group in groups], each)

    if start in ("inherited", "random") and not steps:
        return cut(model, groups, keeps())
    key: dict[str, Any] = {"rates": each, "score": score, "trunk": trunk, "start": start, "steps": steps}
    key |= {"longest": longest} if start == "scratch_b" else {}
    return slim_once(
        model, slim, groups, key, lambda cost: _learned(model, groups, keeps(), start, steps, longest, cost)
    )


def _on_cpu(score: Tensor) -> Tensor:
    """A score whose order can be asked for: on the meta device the first channels stay."""
    return torch.arange(len(score), 0, -1, device="cpu").float() if score.is_meta else score


def _learned(
    model: nn.Module, groups: list[Group], keeps: list[Tensor], start: str, steps: int, longest: float, cost: costs.Cost
) -> list[Tensor]:
    task = task_of(model, "slim(steps)")
    example = model.example_inputs(1)  # type: ignore[operator]
    dense = products(model, example)
    cut(model, groups, keeps)
    if start in ("inherited", "random"):
        train(model, task, steps, cost)
        return keeps
    steps = steps or PLAIN_STEPS
    if start == "scratch_b":
        steps = scratch_steps(steps, dense, products(model, example), longest)
    fresh(model, 0)
    cost.samples += steps * BATCH
    fit(model, task.training_batches(BATCH, steps, 0), classification(model), Pace(steps, PLAIN_RATE))
    return keeps


def products(model: nn.Module, example: tuple[Tensor, ...]) -> int:
    """Multiply-accumulates of one forward."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(*example)
    return counter.get_total_flops() // 2
