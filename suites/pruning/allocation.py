"""How a sparsity is shared out over layers: one threshold, a least number per layer, rates, scores of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from suites.pruning.rounding import check_sparsity, dropped, exact, kept, kept_width
from suites.pruning.structures import smallest


def global_masks(scores: Mapping[str, Tensor], sparsity: float, least_percent: float = 0.0) -> dict[str, Tensor]:
    """Masks by one threshold over all layers: int(s W) of the W weights go.

    With a minimum threshold every layer keeps at least m = int(W mt / 100) weights and layers smaller than m are left
    alone; what they keep too many goes from the others, by the same one threshold, until the total is s again.

    Source: Gupta et al. 2022, arXiv:2209.14624, section 3.

    Raises:
        ValueError: the layers cannot lose so much and keep their minimum.
    """
    check_sparsity(sparsity)
    total = sum(score.numel() for score in scores.values())
    wanted = dropped(total, sparsity)
    least = int(exact(least_percent) * total / 100)
    shield = {name: _largest(score, least) for name, score in scores.items()}
    free = torch.cat([score.flatten()[~shield[name]] for name, score in scores.items()])
    if wanted > free.numel():
        raise ValueError(
            f"sparsity={sparsity} with a minimum of {least} weights a layer: only {free.numel()} of {total} may go; "
            "lower min_threshold"
        )
    gone = smallest(free, wanted)
    masks, start = {}, 0
    for name, score in scores.items():
        mask = shield[name].clone()
        count = int((~shield[name]).sum())
        mask[~shield[name]] = gone[start : start + count]
        start += count
        masks[name] = mask.view(score.shape)
    return masks


def _largest(score: Tensor, count: int) -> Tensor:
    """A flat mask of the `count` largest scores, of all where there are no more."""
    flat = score.flatten()
    mask = torch.zeros(flat.numel(), dtype=torch.bool, device=score.device)
    if count >= flat.numel():
        return ~mask
    if count:
        mask[flat.topk(count).indices] = True
    return mask


def global_kept(total: int, sparsity: float) -> int:
    """W - int(s W): weights that one threshold leaves."""
    return kept(total, sparsity)


def rated_widths(widths: Sequence[int], rates: Sequence[float]) -> list[int]:
    """int(c (1 - rate)) for each width.

    Raises:
        ValueError: another number of rates, or a rate outside 0 .. 1.
    """
    if len(widths) != len(rates):
        raise ValueError(f"{len(rates)} rates for {len(widths)} places: one each is wanted")
    for rate in rates:
        check_sparsity(rate, "rate")
    return [kept_width(width, rate) for width, rate in zip(widths, rates, strict=True)]


def shared_budget(sizes: Sequence[int], scores: Sequence[float], sparsity: float, reach: float = 0.1) -> list[int]:
    """Weights that each block keeps, in proportion to its score within bounds; the sum is int(N (1 - s)) exactly.

    Every block starts with ceil(n (1 - s_max)), s_max = s + `reach`; what is left of the budget is shared in proportion
    to the scores, no block above its size, repeated until nothing is left. Shares are whole weights by largest
    remainder.

    Source: Sung et al. 2024, ECoFLaP, arXiv:2310.02998, section 3.3.

    Raises:
        ValueError: unequal lengths, or a score below zero.
    """
    check_sparsity(sparsity)
    if len(sizes) != len(scores):
        raise ValueError(f"{len(scores)} scores for {len(sizes)} blocks")
    if any(not score >= 0 for score in scores):
        raise ValueError("a block's score is not a number from zero up")
    most = min(exact(sparsity) + exact(reach), Fraction(1))
    budget = int((1 - exact(sparsity)) * sum(sizes))
    keep = [min(size, -int(-(1 - most) * size // 1)) for size in sizes]
    left = budget - sum(keep)
    for i in sorted(range(len(sizes)), key=lambda i: (1 - most) * sizes[i] - keep[i])[: max(0, -left)]:
        keep[i] -= 1  # what was rounded up furthest, where the start alone is above the budget
    while left > 0:
        open_blocks = [i for i, size in enumerate(sizes) if keep[i] < size]
        weights = [Fraction(float(scores[i])) for i in open_blocks]
        if not any(weights):
            weights = [Fraction(sizes[i]) for i in open_blocks]
        given = largest_remainder(left, weights)
        for i, more in zip(open_blocks, given, strict=True):
            keep[i] += min(more, sizes[i] - keep[i])
        left = budget - sum(keep)
    return keep


def largest_remainder(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Whole shares of `total` in proportion to the weights, summing to it."""
    whole = sum(weights)
    ideal = [total * weight / whole for weight in weights]
    given = [int(value) for value in ideal]
    order = sorted(range(len(ideal)), key=lambda i: given[i] - ideal[i])
    for i in order[: total - sum(given)]:
        given[i] += 1
    return given
