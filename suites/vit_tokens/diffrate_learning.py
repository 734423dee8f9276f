"""DiffRate's learned rates: kept counts per block that meet a budget with the least loss (Chen et al. 2023, section 3).

Each block has two softmax distributions over kept counts, one for pruning and one for merging. All tokens are computed;
a token whose rank lies beyond the count is masked in attention, with a straight-through gradient to the distribution.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.finetuning import needs_class_token_read
from suites.common.vit import Block, Tokens, ViT, attention_probabilities
from suites.vit_tokens.schedules import diffrate_counts

#: Weight of the squared budget error, relative to the plain model's cost.
BUDGET_WEIGHT = 100.0
#: Floor of a size: cosines may be negative, and the logarithm of the size is an attention bias.
LEAST_SIZE = 1e-6


class KeptCount(nn.Module):
    """A distribution over kept counts `least`, ..., `most` in steps of the granularity."""

    counts: Tensor

    def __init__(self, most: int, least: int, granularity: int, start: float):
        super().__init__()
        counts = torch.arange(most, least - 1, -granularity).float()
        self.register_buffer("counts", counts)
        self.logits = nn.Parameter(-((counts - start) / (2 * granularity)).square() / 2)

    def forward(self) -> Tensor:
        """The expected count, rounded, with the expectation's gradient."""
        expected = (self.logits.softmax(dim=0) * self.counts).sum()
        return expected.round().detach() + expected - expected.detach()

    def mask(self, tokens: int) -> Tensor:
        """1 for each rank below the count, [tokens]; gradient of the probability that the rank is kept."""
        rank = torch.arange(tokens)
        kept = (self.logits.softmax(dim=0)[None] * (self.counts[None] > rank[:, None])).sum(dim=1)
        hard = (rank < self().detach()).to(kept.dtype)
        return hard + kept - kept.detach()


class Rates(nn.Module):
    """The kept counts of every block but the first."""

    def __init__(self, vit: ViT, granularity: int, start: list[int]):
        """Distributions around a schedule, half of whose removed tokens are pruned and half merged."""
        super().__init__()
        least, most = vit.protected + 1, vit.tokens
        halfway = [(before + after) / 2 for before, after in pairwise(start)]
        self.prune = nn.ModuleList(KeptCount(most, least, granularity, count) for count in halfway)
        self.merge = nn.ModuleList(KeptCount(most, least, granularity, count) for count in start[1:])

    def effective(self, tokens: int) -> list[Tensor]:
        """Tokens that enter the MLP of each block, differentiable."""
        counts = [torch.tensor(float(tokens))]
        for prune, merge in zip(self.prune, self.merge, strict=True):
            counts.append(torch.minimum(counts[-1], torch.minimum(prune(), merge())))
        return counts


def expected_macs(vit: ViT, counts: list[Tensor]) -> Tensor:
    """MACs of one image in the matmul convention for tokens per MLP, differentiable."""
    c, hidden = vit.width, int(vit.blocks[0].mlp.fc1.out_features)  # type: ignore[union-attr, arg-type]
    total = torch.tensor(float(vit.grid**2 * c * vit.channels * vit.patch**2 + vit.classes * c))
    entering = [torch.tensor(float(vit.tokens)), *counts[:-1]]
    for n, m in zip(entering, counts, strict=True):
        total = total + 4 * n * c * c + 2 * n * n * c + 2 * m * c * hidden
    return total


def learn(
    vit: ViT, target_macs: float, batches: Iterator[tuple[Tensor, Tensor]], *, granularity: int = 4, rate: float = 0.05
) -> tuple[list[int], list[int]]:
    """Kept counts by pruning and by merging for each block whose cost is the target, learned on labelled batches.

    Only the distributions are trained. What is left between the learned cost and the target is closed by
    scaling the number of removed tokens of all blocks alike.

    Raises:
        ValueError: the target is not between the cost of the smallest schedule and that of the plain model, or the
            model reads a mean over tokens.
    """
    needs_class_token_read(vit, "diffrate")
    plain = float(expected_macs(vit, [torch.tensor(float(vit.tokens))] * vit.depth))
    least = float(
        expected_macs(vit, [torch.tensor(float(vit.tokens))] + [torch.tensor(vit.protected + 1.0)] * (vit.depth - 1))
    )
    if not least <= target_macs <= plain:
        raise ValueError(
            f"target_gmacs={target_macs / 1e9:g} must lie in {least / 1e9:.4g}..{plain / 1e9:.4g} for this model "
            f"(depth {vit.depth})"
        )
    rates = Rates(vit, granularity, _straight(vit, target_macs))
    optimizer = torch.optim.Adam(rates.parameters(), lr=rate)
    for images, labels in batches:
        loss = F.cross_entropy(masked_forward(vit, images, rates), labels)
        over = (expected_macs(vit, rates.effective(vit.tokens)) - target_macs) / plain
        gradients = torch.autograd.grad(loss + BUDGET_WEIGHT * over**2, list(rates.parameters()))
        for parameter, gradient in zip(rates.parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    return _meet(vit, rates, target_macs)


def _straight(vit: ViT, target: float) -> list[int]:
    """Tokens per block that fall in a straight line and cost about the target: where learning starts."""

    def line(slope: float) -> list[int]:
        return [max(vit.protected + 1, round(vit.tokens - slope * block)) for block in range(vit.depth)]

    low, high = 0.0, float(vit.tokens)
    for _ in range(30):
        slope = (low + high) / 2
        low, high = (slope, high) if _cost(vit, line(slope), line(slope)) > target else (low, slope)
    return line(high)


def _meet(vit: ViT, rates: Rates, target: float) -> tuple[list[int], list[int]]:
    """Integer schedules whose removed tokens are scaled by one factor so that the cost is nearest below the target."""
    with torch.no_grad():
        learned = [[float(kept()) for kept in part] for part in (rates.prune, rates.merge)]
    low, high = 0.0, 50.0
    for _ in range(40):
        factor = (low + high) / 2
        low, high = (factor, high) if _cost(vit, *_scaled(vit, learned, factor)) > target else (low, factor)
    return _scaled(vit, learned, high)


def _scaled(vit: ViT, learned: list[list[float]], factor: float) -> tuple[list[int], list[int]]:
    least, most = vit.protected + 1, vit.tokens
    prune, merge = (
        [most, *(max(least, min(most, round(most - factor * max(most - kept, 0.5)))) for kept in part)]
        for part in learned
    )
    return prune, merge


def _cost(vit: ViT, prune: list[int], merge: list[int]) -> float:
    return float(expected_macs(vit, [torch.tensor(float(n)) for n in diffrate_counts(prune, merge, vit.tokens)]))


def masked_forward(vit: ViT, images: Tensor, rates: Rates) -> Tensor:
    """Logits with every token computed, sorted by importance block by block, and masked beyond the kept counts."""
    tokens = vit.embed(images)
    x, special = tokens.x, tokens.protected
    mask, size = x.new_ones(x.shape[:2]), x.new_ones(x.shape[:2])
    for number, block in enumerate(vit.blocks):
        x, importance = _attend(block, x, mask, size)  # type: ignore[arg-type]
        if number:
            x, mask, size = _sorted(x, mask, size, importance, special)
            mask = mask * rates.prune[number - 1].mask(x.shape[1])  # type: ignore[operator]
            keep = rates.merge[number - 1]
            x, size = _merged(x, mask.detach(), size, int(keep()), special)
            mask = mask * keep.mask(x.shape[1])  # type: ignore[operator]
        x = x + block.mlp(block.norm2(x))  # type: ignore[operator]
    return vit.classify(Tokens(x, special))


def _attend(block: Block, x: Tensor, mask: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens + attention with masked keys and log-size bias, and the class token's attention to each token."""
    q, k, v = block.attn.project(block.norm1(x))
    weights = attention_probabilities(q, k, size.log()[:, None, None, :]) * mask[:, None, None, :]
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-9)
    y = block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
    return x + y, weights[:, :, 0].mean(dim=1).detach()


def _sorted(x: Tensor, mask: Tensor, size: Tensor, importance: Tensor, special: int) -> tuple[Tensor, Tensor, Tensor]:
    """Special tokens first, then by importance; masked tokens last."""
    rank = importance.masked_fill(mask.detach() < 0.5, -1.0)
    rank[:, :special] = torch.inf
    order = rank.argsort(dim=-1, descending=True, stable=True)
    return x.gather(1, order[..., None].expand_as(x)), mask.gather(1, order), size.gather(1, order)


def _merged(x: Tensor, mask: Tensor, size: Tensor, keep: int, special: int) -> tuple[Tensor, Tensor]:
    """The first `keep` tokens averaged with the later, unmasked ones most similar to each; the rest as they were."""
    if keep >= x.shape[1]:
        return x, size
    unit = F.normalize(x[:, special:], dim=-1)
    cosine, pick = (unit[:, keep - special :] @ unit[:, : keep - special].transpose(-2, -1)).max(dim=-1)
    pick, alive = pick + special, mask[:, keep:]
    number = torch.ones_like(size[:, :keep]).scatter_add(1, pick, alive)
    head = x[:, :keep].scatter_add(1, pick[..., None].expand_as(x[:, keep:]), x[:, keep:] * alive[..., None])
    grown = size[:, :keep].scatter_add(1, pick, size[:, keep:] * cosine * alive).clamp(min=LEAST_SIZE)
    return torch.cat([head / number[..., None], x[:, keep:]], dim=1), torch.cat([grown, size[:, keep:]], dim=1)
