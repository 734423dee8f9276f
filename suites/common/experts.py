"""A mixture of experts as in DeepSeek-V2 and V3 (arXiv 2412.19437, section 2.1.2), in three forms that must agree.

Every token goes through the shared network and through the `chosen` experts with the best scores. A sigmoid gate
chooses by score + bias (the bias balances load and is no gradient parameter), but weighs by the scores alone,
normalised and scaled. With groups only the experts of the groups with the largest sum of their two best are candidates.
A softmax gate weighs by its scores as they are (Mixtral and Qwen3: normalised), scaled, and ranks groups by their best
expert.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.decoder_shape import Experts
from suites.common.initial import draw

Form = Literal["loop", "sorted", "dense"]


class Gated(nn.Module):
    """The gated network: down(silu(gate x) * up x)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Gate(nn.Module):
    """Which experts a token goes through, and with what weight."""

    def __init__(self, width: int, experts: Experts):
        super().__init__()
        self.experts = experts
        self.weight = nn.Parameter(torch.empty(experts.count, width))
        draw(self.weight)
        balance = torch.zeros(experts.count) if experts.gate == "sigmoid" else None
        self.bias: Any = None if balance is None else nn.Parameter(balance, requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Expert numbers and weights of each token, both [tokens, chosen], of features [tokens, width]."""
        logits = F.linear(x, self.weight)
        sigmoid = self.experts.gate == "sigmoid"
        scores = logits.sigmoid() if sigmoid else logits.softmax(dim=-1)
        ranking = scores if self.bias is None else scores + self.bias
        if self.experts.groups > 1 and self.experts.kept_groups < self.experts.groups:
            ranking = self._within_best_groups(ranking)
        picked = ranking.topk(self.experts.chosen, dim=-1).indices
        weights = scores.gather(1, picked)
        if sigmoid or self.experts.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return picked, weights * self.experts.scale

    def _within_best_groups(self, ranking: Tensor) -> Tensor:
        grouped = ranking.unflatten(1, (self.experts.groups, -1))
        best = 2 if self.experts.gate == "sigmoid" else 1
        strength = grouped.topk(best, dim=-1).values.sum(dim=-1)
        kept = strength.topk(self.experts.kept_groups, dim=-1).indices
        open_groups = torch.zeros_like(strength, dtype=torch.bool).scatter(1, kept, True)
        return grouped.masked_fill(~open_groups[..., None], -torch.inf).flatten(1)

    @torch.no_grad()
    def rebalance(self, picked: Tensor, step: float = 1e-3) -> None:
        """Move the bias of every expert by +-step against its load in one batch of choices."""
        if self.bias is None:
            return
        load = torch.bincount(picked.flatten(), minlength=self.experts.count).to(self.bias)
        self.bias += step * torch.sign(load.mean() - load)


class MixtureOfExperts(nn.Module):
    """Shared network + weighted experts.

    Forms: `loop` goes over the experts that were hit; `sorted` groups the tokens by expert and multiplies each group
    once; `dense` runs all experts on all tokens and multiplies most of it by zero: executed equals total.
    """

    def __init__(self, width: int, experts: Experts, form: Form = "sorted"):
        super().__init__()
        self.experts, self.form = experts, form
        self.router = Gate(width, experts)
        self.gate_up = nn.Parameter(torch.empty(experts.count, 2 * experts.width, width))
        self.down = nn.Parameter(torch.empty(experts.count, width, experts.width))
        self.shared = Gated(width, experts.shared * experts.width) if experts.shared else None
        for weight in (self.gate_up, self.down):
            draw(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape, [..., width]."""
        flat = x.reshape(-1, x.shape[-1])
        picked, weights = self.router(flat)
        if x.is_meta:
            routed = self._evenly(flat)
        else:
            routed = {"loop": self._loop, "sorted": self._sorted, "dense": self._dense}[self.form](
                flat, picked, weights
            )
        out = routed if self.shared is None else routed + self.shared(flat)
        return out.reshape(x.shape)

    def expert(self, number: int, x: Tensor) -> Tensor:
        """One expert's answer."""
        gate, up = F.linear(x, self.gate_up[number]).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down[number])

    def _loop(self, x: Tensor, picked: Tensor, weights: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for number in picked.unique().tolist():
            rows, place = (picked == number).nonzero(as_tuple=True)
            out.index_add_(0, rows, self.expert(number, x[rows]) * weights[rows, place, None])
        return out

    def _sorted(self, x: Tensor, picked: Tensor, weights: Tensor) -> Tensor:
        order = picked.flatten().argsort(stable=True)
        rows = order // self.experts.chosen
        numbers, counts = picked.flatten().unique(return_counts=True)
        groups = x[rows].split(counts.tolist())
        answers = [self.expert(number, group) for number, group in zip(numbers.tolist(), groups, strict=True)]
        weighted = torch.cat(answers) * weights.flatten()[order, None]
        return torch.zeros_like(x).index_add_(0, rows, weighted)

    def _dense(self, x: Tensor, picked: Tensor, weights: Tensor) -> Tensor:
        share = x.new_zeros(len(x), self.experts.count).scatter(1, picked, weights)
        gate, up = torch.einsum("td,ehd->eth", x, self.gate_up).chunk(2, dim=-1)
        answers = torch.einsum("eth,edh->etd", F.silu(gate) * up, self.down)
        return (answers * share.t()[..., None]).sum(dim=0)

    def _evenly(self, x: Tensor) -> Tensor:
        """The work of uniform routing, for counting without numbers: each token through `chosen` experts."""
        gate, up = F.linear(x.repeat(self.experts.chosen, 1), self.gate_up[0]).chunk(2, dim=-1)
        answers = F.linear(F.silu(gate) * up, self.down[0])
        return answers.unflatten(0, (self.experts.chosen, -1)).sum(dim=0)
