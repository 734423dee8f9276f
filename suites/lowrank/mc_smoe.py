"""M-SMoE merges the experts of a mixture by how they are routed; MC-SMoE compresses what is left (arXiv 2310.01334).

Merging is `suites.lowrank.expert_merging`. Compression: each merged wi and wo becomes L R + S, L R of rank `rank` by
SVD, S the rest with the rows kept that matter most by |w g|, averaged, while a cubic schedule takes them from all to
`kept_rows`.

Merging changes bytes and not products, since a token still runs one expert: what it gains in time are fewer and larger
batches. Compressed, an expert has 2 rank (d + F) + (rows of wi) d + (rows of wo) F values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.finetuning import teacher_for
from suites.common.task import learning_task
from suites.lowrank.expert_merging import BATCH, SAMPLES, merged, merged_mixtures
from suites.lowrank.expert_teaching import as_switch, taught
from suites.lowrank.factors import factors
from suites.lowrank.low_rank_rows import low_rank_and_rows
from suites.lowrank.switch import Expert, Switch

AVERAGED = 0.85


def m_smoe(model: nn.Module, *, mean_groups: PositiveInt = 8, training_steps: Count = 0) -> Switch:
    """The Switch transformer with merged experts.

    Args:
        model: a Switch transformer.
        mean_groups: groups of a mixture in the mean; each has its own number.
        training_steps: batches of 16 in which the merged model learns from data and from the full one.

    Raises:
        ValueError: not such a model, or more groups than experts.
    """
    plain = as_switch(model, "m_smoe")
    teacher = teacher_for(plain, training_steps)
    changed = merged(plain, mean_groups)
    return taught(changed, plain, teacher, m_smoe, {"mean_groups": mean_groups}, training_steps)


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
    plain = as_switch(model, "mc_smoe")
    teacher = teacher_for(plain, training_steps)
    changed = merged(plain, mean_groups)
    experts = _compressible(changed)
    gradients = _sensitivities(changed, plain, experts, kept_rows, rank)
    for expert in experts:
        for name in ("wi", "wo"):
            linear = getattr(expert, name)
            setattr(expert, name, low_rank_and_rows(linear, rank, kept_rows, gradients.get(id(linear))))
    settings = {"mean_groups": mean_groups, "rank": rank, "kept_rows": kept_rows}
    return taught(changed, plain, teacher, mc_smoe, settings, training_steps)


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
