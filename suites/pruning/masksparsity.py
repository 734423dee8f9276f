"""MaskSparsity: an L1 term on the gains of the channels that will go, and on no others.

Source: Jiang et al. 2022, arXiv:2201.06776, section 3: global sparsity training, a mask of gains at or below 0.01
(trunk channels stay if any member's gain is above), training with the term on masked gains alone, removal, fine-tuning.
Gains have a learning rate of their own here: trainings are a few hundred steps, in which under the rate of the weights
no gain could fall from one to the threshold, whatever the penalty.
"""

from __future__ import annotations

import functools

from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, Positive, Rate
from suites.common.training import Loss, classification
from suites.pruning.groups import Group
from suites.pruning.learning import cut, slim_once, task_of, train
from suites.pruning.rethinking import chosen_groups
from suites.pruning.scores import gains

#: Of gains under the penalty; 300 steps of a falling rate then reach 3.
GAIN_RATE = 2e-2


def masksparsity(
    model: nn.Module,
    *,
    weight: Positive = 5e-4,
    threshold: Positive = 0.01,
    masked: bool = True,
    trunk: bool = True,
    sparse_steps: Count = 300,
    masked_steps: Count = 200,
    steps: Count = 200,
    most: Rate = 1.0,
) -> nn.Module:
    """A convolutional network without the channels whose gains its own training drove below a threshold.

    Args:
        model: a convolutional network of this suite with norms, loaded by a task.
        weight: of the L1 term; ImageNet's 5e-4 moves gains over 90 epochs, digits need more of it.
        threshold: gains at or below it mark channels to go.
        masked: the second training penalises marked gains alone; False is global slimming, the baseline.
        trunk: whether channels of residual trunks may go.
        sparse_steps: batches with the term on all gains.
        masked_steps: batches with the term as `masked` says.
        steps: batches of fine-tuning.
        most: largest share of a group's channels that may go; one channel stays at any rate.

    Raises:
        ValueError: a network without norms behind its convolutions, or without a task.
    """
    groups = [group for group in chosen_groups(model, "masksparsity", trunk) if all(norm for _, norm, _ in group.outs)]

    def make(cost: costs.Cost) -> list[Tensor]:
        task = task_of(model, "masksparsity(steps)") if sparse_steps + masked_steps + steps else None
        learn = functools.partial(train, model, task, quick=gain_parameters(model, groups), quick_rate=GAIN_RATE)
        learn(sparse_steps, cost, loss=penalised(model, groups, None, weight))
        drops = marked(model, groups, threshold, most)
        learn(masked_steps, cost, loss=penalised(model, groups, drops if masked else None, weight))
        keeps = [(~drop).nonzero()[:, 0] for drop in drops]
        cut(model, groups, keeps)
        train(model, task, steps, cost)
        return keeps

    key = {
        "weight": weight, "threshold": threshold, "masked": masked, "trunk": trunk, "most": most,
        "steps": [sparse_steps, masked_steps, steps],
    }  # fmt: skip
    return slim_once(model, masksparsity, groups, key, make)


def marked(model: nn.Module, groups: list[Group], threshold: float, most: float = 1.0) -> list[Tensor]:
    """For each group which channels go: the largest gain of any member at or below the threshold; one stays."""
    found = []
    for group in groups:
        gain = gains(model, group)
        least = max(1, group.size - int(most * group.size))
        drop = gain <= threshold
        drop[gain.topk(least).indices] = False
        found.append(drop)
    return found


def gain_parameters(model: nn.Module, groups: list[Group]) -> list[nn.Parameter]:
    """Gains of all norms that the groups stand behind, each once."""
    names = dict.fromkeys(norm for group in groups for _, norm, _ in group.outs)
    return [model.get_submodule(name).weight for name in names]  # type: ignore[misc]


def penalty(model: nn.Module, groups: list[Group], drops: list[Tensor] | None) -> Tensor:
    """Sum of |gamma| over all gains of the groups, or over those of marked channels alone."""
    total = next(model.parameters()).new_zeros(())
    for i, group in enumerate(groups):
        for _, norm, offset in group.outs:
            gain = model.get_submodule(norm).weight[offset : offset + group.size].abs()  # type: ignore[index]
            total = total + (gain if drops is None else gain[drops[i]]).sum()
    return total


def penalised(model: nn.Module, groups: list[Group], drops: list[Tensor] | None, weight: float) -> Loss:
    """Cross-entropy plus the penalty."""
    plain = classification(model)
    return lambda inputs, labels: plain(inputs, labels) + weight * penalty(model, groups, drops)
