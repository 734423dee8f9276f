"""M-SMoE merges the experts of a mixture by how they are routed; MC-SMoE compresses what is left (arXiv 2310.01334).

Merging, per mixture: (1) hidden units of every expert are permuted to the first one's by an assignment of greatest
similarity of [wi, wo^T]; (2) use frequencies and router logits are taken on data; (3) over all merged mixtures the
(mean groups x mixtures) most used experts are dominant, at least one in each, and every other joins the dominant one of
its mixture with the most similar router logits (cosine); (4) a merged expert is the frequency-weighted mean of its
group. The router keeps all its outputs. The encoder's first mixture is left alone.

Compression: each merged wi and wo becomes L R + S, L R of rank `rank` by SVD, S the rest with the rows kept that matter
most by |w g|, averaged, while a cubic schedule takes them from all to `kept_rows`.

Merging changes bytes and not products, since a token still runs one expert: what it gains in time are fewer and larger
batches. Compressed, an expert has 2 rank (d + F) + (rows of wi) d + (rows of wo) F values.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count, PositiveInt, Rate
from suites.common.from_scratch import learned
from suites.common.task import learning_task
from suites.common.training import Pace, divergence, fit
from suites.lowrank.factors import factors
from suites.lowrank.switch import Expert, Mixture, Switch

SAMPLES, AVERAGED, TEMPERATURE, TEACHING = 256, 0.85, 2.0, 0.2
RATE, BATCH = 5e-4, 16


def m_smoe(model: nn.Module, *, mean_groups: PositiveInt = 8, training_steps: Count = 0) -> Switch:
    """The Switch transformer with merged experts.

    Args:
        model: a Switch transformer.
        mean_groups: groups of a mixture in the mean; each has its own number.
        training_steps: batches of 16 in which the merged model learns from data and from the full one.

    Raises:
        ValueError: not such a model, or more groups than experts.
    """
    plain = _as_switch(model, "m_smoe")
    teacher = _teacher(plain) if training_steps else None
    merged = _merged(plain, mean_groups)
    return _taught(merged, plain, teacher, m_smoe, {"mean_groups": mean_groups}, training_steps)


def mc_smoe(
    model: nn.Module,
    *,
    mean_groups: PositiveInt = 8,
    rank: PositiveInt = 32,
    kept_rows: Rate = 0.1,
    training_steps: Count = 0,
) -> Switch:
    """The Switch transformer with merged experts, each a low-rank product and the rows that matter.

    Args:
        model: a Switch transformer.
        mean_groups: groups of a mixture in the mean; each has its own number.
        rank: of the low-rank part.
        kept_rows: share of the rows of the rest that stay, to whole rows.
        training_steps: batches of 16 in which the compressed model learns from data and from the full one.

    Raises:
        ValueError: not such a model, more groups than experts, or a rank above a side of the weights.
    """
    plain = _as_switch(model, "mc_smoe")
    teacher = _teacher(plain) if training_steps else None
    merged = _merged(plain, mean_groups)
    changed = _compressible(merged)
    gradients = _sensitivities(merged, plain, changed, kept_rows, rank)
    for expert in changed:
        for name in ("wi", "wo"):
            linear = getattr(expert, name)
            setattr(expert, name, low_rank_and_rows(linear, rank, kept_rows, gradients.get(id(linear))))
    settings = {"mean_groups": mean_groups, "rank": rank, "kept_rows": kept_rows}
    return _taught(merged, plain, teacher, mc_smoe, settings, training_steps)


def _as_switch(model: nn.Module, method: str) -> Switch:
    if not isinstance(model, Switch):
        raise ValueError(f"{method} merges the experts of a Switch transformer, not of {type(model).__name__}")
    return model


def _teacher(model: Switch) -> Switch:
    task, model.task = getattr(model, "task", None), None  # type: ignore[assignment]
    try:
        return copy.deepcopy(model).eval().requires_grad_(False)
    finally:
        model.task = task  # type: ignore[assignment]


def merged_mixtures(model: Switch) -> list[Mixture]:
    """The mixtures that are merged: all but the encoder's first."""
    return [part for _, part in model.mixtures()][1:]


# ---------------------------------------------------------------------------------------------- merging


@dataclass
class Use:
    """How often each expert of a mixture was chosen, and the products of all pairs of router logits."""

    counts: Tensor
    logits: Tensor

    def similarity(self) -> Tensor:
        """Cosine of router logits, [E, E]."""
        size = self.logits.diagonal().sqrt().clamp(min=1e-12)
        return self.logits / (size[:, None] * size)


def _merged(model: Switch, mean_groups: int) -> Switch:
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
    first = _units(mixture.experts[0])
    for expert in list(mixture.experts)[1:]:
        permute(expert, assignment(first, _units(expert)))


def _units(expert: Expert) -> Tensor:
    """What a hidden unit reads and writes, [F, 2 d]."""
    return torch.cat([expert.wi.weight, expert.wo.weight.mT], dim=1)  # type: ignore[list-item, union-attr]


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
    if len(members) == 1 or members[base].wi.weight.is_meta:  # type: ignore[union-attr]
        return members[base]
    shares = used.double() if float(used.sum()) else torch.ones(len(members), dtype=torch.float64)
    weights = (shares / shares.sum()).tolist()
    first = _units(members[base])
    for place, member in enumerate(members):
        if place != base:
            permute(member, assignment(first, _units(member)))
    for name in ("wi", "wo"):
        parts = [getattr(member, name).weight * weight for member, weight in zip(members, weights, strict=True)]
        getattr(members[base], name).weight.copy_(torch.stack(parts).sum(dim=0))
    return members[base]


# ---------------------------------------------------------------------------------------------- compressing


class LowRankRows(nn.Module):
    """x (L R + S)^T with S stored as its kept rows."""

    rows: Tensor

    def __init__(self, left: Tensor, right: Tensor, kept: Tensor, rows: Tensor):
        super().__init__()
        self.left, self.right, self.kept = nn.Parameter(left), nn.Parameter(right), nn.Parameter(kept)
        self.register_buffer("rows", rows)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [..., out]."""
        low = F.linear(F.linear(x, self.right), self.left)
        return low.index_add(-1, self.rows, F.linear(x, self.kept)) if len(self.rows) else low

    @torch.no_grad()
    def merged(self) -> Tensor:
        """L R + S, [out, in]."""
        return (self.left @ self.right).index_add(0, self.rows, self.kept)


def low_rank_and_rows(linear: nn.Linear, rank: int, kept_rows: float, importance: Tensor | None) -> LowRankRows:
    """A weight [out, in] as a product of that rank and the rows of the rest that matter most.

    Args:
        linear: without bias.
        rank: of the product.
        kept_rows: share of rows, to the nearest whole number.
        importance: of the rows, [out]; None for the norms of the rest.
    """
    weight = linear.weight.detach()
    left, right = factors(weight, rank)
    rest = weight - left @ right
    count = round(kept_rows * len(weight))
    if weight.is_meta:
        rows = torch.arange(count, device=weight.device)
    else:
        order = rest.norm(dim=1) if importance is None else importance
        rows = order.topk(count).indices.sort().values
    return LowRankRows(left.contiguous(), right.contiguous(), rest[rows].clone(), rows)


def _compressible(model: Switch) -> list[Expert]:
    return [expert for part in merged_mixtures(model) for expert in part.experts]


def _sensitivities(
    model: Switch, plain: Switch, experts: list[Expert], kept_rows: float, rank: int
) -> dict[int, Tensor]:
    """Importance of the rows of every rest by |s g|, averaged over batches while rows are taken out on the schedule.

    Empty where there is no task: rows then stand by their norms.
    """
    if getattr(plain, "task", None) is None:
        return {}
    task = learning_task(plain, "mc_smoe", "leave the task out to keep rows by their norms")
    linears = [getattr(expert, name) for expert in experts for name in ("wi", "wo")]
    rests = {id(part): part.weight.detach() - torch.matmul(*factors(part.weight.detach(), rank)) for part in linears}
    importance = {id(part): torch.zeros(len(part.weight)) for part in linears}
    steps = SAMPLES // BATCH
    with torch.inference_mode(False), torch.enable_grad():
        for step, (ids, labels) in enumerate(task.training_batches(BATCH, steps, 1)):
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(ids).flatten(0, -2), labels.flatten()).backward()
            share = cubic_share(step + 1, steps, kept_rows)
            for part in linears:
                if part.weight.grad is not None:
                    _averaged(importance[id(part)], (rests[id(part)] * part.weight.grad).abs().mean(dim=1), share)
    model.zero_grad(set_to_none=True)
    return importance


def _averaged(importance: Tensor, new: Tensor, share: float) -> None:
    """The running mean of a row's sensitivity; rows that the schedule has taken out do not come back."""
    alive = torch.ones_like(importance, dtype=torch.bool)
    if importance.any():
        alive = torch.zeros_like(alive).index_fill(0, importance.topk(round(share * len(importance))).indices, True)
    importance.mul_(AVERAGED).add_((1 - AVERAGED) * new).mul_(alive)


def cubic_share(step: int, steps: int, final: float) -> float:
    """Share of rows after a step: from 1 to `final`, final + (1 - final) (1 - step / steps)^3."""
    return final + (1 - final) * (1 - step / steps) ** 3


def expert_values(width: int, hidden: int, rank: int, kept_rows: float) -> int:
    """Values of one compressed expert: 2 rank (d + F) + whole rows of wi and of wo."""
    return 2 * rank * (width + hidden) + round(kept_rows * hidden) * width + round(kept_rows * width) * hidden


# ---------------------------------------------------------------------------------------------- learning


def _taught(
    model: Switch, plain: Switch, teacher: Switch | None, method: Any, settings: dict[str, Any], steps: int
) -> Switch:
    """The changed model after steps of data and of the full model's answers at temperature 2, weight 0.2."""

    def loop(module: nn.Module, batches: Any, steps: int) -> list[float]:
        def loss(ids: Tensor, labels: Tensor) -> Tensor:
            said = module(ids).flatten(0, -2)
            assert teacher is not None
            with torch.no_grad():
                wanted = teacher(ids).flatten(0, -2)
            apart = divergence(said / TEMPERATURE, wanted / TEMPERATURE)
            return F.cross_entropy(said, labels.flatten()) + TEACHING * TEMPERATURE**2 * apart

        return fit(module, batches, loss, Pace(steps, RATE))

    before = getattr(model, "method_cost", None)
    found = learned(model, plain, method, settings, steps, loop, from_start=False)
    if before is not None and steps:
        found.method_cost = {  # type: ignore[assignment]
            name: value + (before.get(name) or 0)
            for name, value in found.method_cost.items()  # type: ignore[operator, union-attr]
            if name != "peak_bytes"
        }
    return _as_switch(found, method.__name__).eval()
