"""Merging the experts of a mixture by how they are routed (M-SMoE, arXiv 2310.01334, section 3.1).

Per mixture: (1) hidden units of every expert are permuted to the first one's by an assignment of greatest similarity of
[wi, wo^T]; (2) use frequencies and router logits are taken on data; (3) over all merged mixtures the (mean groups x
mixtures) most used experts are dominant, at least one in each, and every other joins the dominant one of its mixture
with the most similar router logits (cosine); (4) a merged expert is the frequency-weighted mean of its group. The
router keeps all its outputs. The encoder's first mixture is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import costs
from suites.lowrank.switch import Expert, Mixture, Switch

SAMPLES, BATCH = 256, 16


def merged_mixtures(model: Switch) -> list[Mixture]:
    """The mixtures that are merged: all but the encoder's first."""
    return [part for _, part in model.mixtures()][1:]


@dataclass
class Use:
    """How often each expert of a mixture was chosen, and the products of all pairs of router logits."""

    counts: Tensor
    logits: Tensor

    def similarity(self) -> Tensor:
        """Cosine of router logits, [E, E]."""
        size = self.logits.diagonal().sqrt().clamp(min=1e-12)
        return self.logits / (size[:, None] * size)


def merged(model: Switch, mean_groups: int) -> Switch:
    """The model with the experts of all mixtures but the first merged, by how its task's samples are routed.

    Args:
        model: changed in place.
        mean_groups: groups of a mixture in the mean; each has its own number.

    Raises:
        ValueError: more groups than experts.
    """
    mixtures = merged_mixtures(model)
    count = len(mixtures[0].experts) if mixtures else 0
    if mean_groups > count:
        raise ValueError(f"mean_groups={mean_groups}: the mixtures that are merged have {count} experts")
    if model.embed.weight.is_meta:
        for part in mixtures:  # without numbers every mixture gets the mean
            merge(part, [number % mean_groups for number in range(count)], torch.ones(count))
        return model
    with costs.recorded(model) as cost:
        uses = _watched(model, mixtures, cost)
        for part, groups in zip(mixtures, grouping(uses, mean_groups), strict=True):
            align(part)
            merge(part, groups, uses[mixtures.index(part)].counts)
    model.method_cost = cost.as_dict()  # type: ignore[assignment]
    return model


def _watched(model: Switch, mixtures: list[Mixture], cost: costs.Cost) -> list[Use]:
    """Frequencies and logits over 256 samples of the task, or over random ids of a model without one."""
    uses = [Use(torch.zeros(len(part.experts)), torch.zeros(len(part.experts), len(part.experts))) for part in mixtures]
    for part, use in zip(mixtures, uses, strict=True):
        part.watch = _watcher(use)
    try:
        with torch.no_grad():
            for ids in _samples(model):
                cost.samples += len(ids)
                model(ids)
    finally:
        for part in mixtures:
            part.watch = None
    return uses


def _watcher(use: Use) -> Any:
    def watch(picked: Tensor, logits: Tensor) -> None:
        use.counts += torch.bincount(picked.cpu(), minlength=len(use.counts))
        use.logits += (logits.detach().mT @ logits.detach()).float().cpu()

    return watch


def _samples(model: Switch) -> list[Tensor]:
    task = getattr(model, "task", None)
    if task is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [model.example_inputs(1)[0]]
    batches = task.training_batches(BATCH, SAMPLES // BATCH, 0)
    return [ids.to(model.embed.weight.device) for ids, _ in batches]


def grouping(uses: list[Use], mean_groups: int) -> list[list[int]]:
    """For each mixture the dominant expert that stands for every one, by number.

    Args:
        uses: of each mixture.
        mean_groups: groups of a mixture in the mean.
    """
    shares = torch.stack([use.counts / use.counts.sum().clamp(min=1) for use in uses])
    chosen = torch.zeros_like(shares, dtype=torch.bool)
    chosen[torch.arange(len(uses)), shares.argmax(dim=1)] = True  # at least one in each
    order = shares.flatten().argsort(descending=True, stable=True).tolist()
    wanted = mean_groups * len(uses)
    for place in order:
        if int(chosen.sum()) >= wanted:
            break
        chosen.view(-1)[place] = True
    found = []
    for use, own in zip(uses, chosen, strict=True):
        dominant = own.nonzero().flatten()
        nearest = dominant[use.similarity()[:, dominant].argmax(dim=1)]
        found.append([number if own[number] else int(nearest[number]) for number in range(len(own))])
    return found


@torch.no_grad()
def align(mixture: Mixture) -> None:
    """Permute the hidden units of every expert to those of the first; outputs stay as they are."""
    first = units(mixture.experts[0])
    for expert in list(mixture.experts)[1:]:
        permute(expert, assignment(first, units(expert)))


def units(expert: Expert) -> Tensor:
    """What a hidden unit reads and writes, [F, 2 d]."""
    return torch.cat([expert.wi.weight, expert.wo.weight.mT], dim=1)  # type: ignore[list-item]


def assignment(first: Tensor, other: Tensor) -> Tensor:
    """For each unit of the first which of the other is most like it, a permutation of greatest total similarity."""
    from scipy.optimize import linear_sum_assignment

    _, order = linear_sum_assignment((first @ other.mT).detach().double().cpu().numpy(), maximize=True)
    return torch.as_tensor(order, device=first.device)


@torch.no_grad()
def permute(expert: Expert, order: Tensor) -> None:
    """Put hidden unit order[i] at place i."""
    for name, rows in (("wi", True), ("wo", False)):
        weight = getattr(expert, name).weight
        weight.copy_(weight[order] if rows else weight[:, order])


@torch.no_grad()
def merge(mixture: Mixture, groups: list[int], counts: Tensor) -> None:
    """Replace the experts by one a group, the mean weighted by use; the table says which stands for which.

    Args:
        mixture: whose experts are aligned.
        groups: for each expert the number of the one that stands for it.
        counts: how often each was used, [E]; a group that never was takes the plain mean.
    """
    dominant = sorted(set(groups))
    made = []
    for number in dominant:
        members = [place for place, group in enumerate(groups) if group == number]
        experts = [mixture.experts[place] for place in members]
        made.append(_mean(experts, members.index(number), counts[members]))
    mixture.experts = nn.ModuleList(made)
    table = [dominant.index(group) for group in groups]
    mixture.alias.copy_(torch.tensor(table))


def _mean(members: list[Expert], base: int, used: Tensor) -> Expert:
    """The mean of experts weighted by use, aligned once more inside the group to its dominant one."""
    if len(members) == 1 or members[base].wi.weight.is_meta:
        return members[base]
    shares = used.double() if float(used.sum()) else torch.ones(len(members), dtype=torch.float64)
    weights = (shares / shares.sum()).tolist()
    first = units(members[base])
    for place, member in enumerate(members):
        if place != base:
            permute(member, assignment(first, units(member)))
    for name in ("wi", "wo"):
        parts = [getattr(member, name).weight * weight for member, weight in zip(members, weights, strict=True)]
        getattr(members[base], name).weight.copy_(torch.stack(parts).sum(dim=0))
    return members[base]
