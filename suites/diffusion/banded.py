"""Attention inside a band of a sequence, by blocks of queries that read only the keys near them.

Queries are cut into blocks; a block of s queries reads s + 2 h keys, of which the band |i - j| <= h keeps its part. So
`executed_pairs` is what runs and `band_pairs` what the mask keeps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.common.shares import at_most


def half_width(tokens: int, share: float) -> int:
    """Half of the window of floor(tokens x share), h in |i - j| <= h."""
    return at_most(tokens, share) // 2


def band_pairs(tokens: int, half: int) -> int:
    """Pairs that the band keeps, clipped at both ends."""
    half = min(half, tokens - 1)
    return tokens * (2 * half + 1) - half * (half + 1)


def block_of(tokens: int, half: int) -> int:
    """Queries of a block: the largest divisor of the tokens that is not above the half width."""
    return next(size for size in range(max(1, min(half, tokens)), 0, -1) if tokens % size == 0)


def executed_pairs(tokens: int, half: int, group: int = 1) -> int:
    """Pairs that are multiplied: whole blocks, or everything where blocks would not save.

    Args:
        tokens: of the sequence.
        half: of the band, in groups.
        group: neighbouring tokens that the band takes as one.
    """
    groups = tokens // group
    return group * tokens * min(groups, block_of(groups, half) + 2 * half)


def band_mask(tokens: int, half: int, device: torch.device | None = None) -> Tensor:
    """Which keys a query sees, [tokens, tokens]."""
    place = torch.arange(tokens, device=device)
    return (place[:, None] - place[None]).abs() <= half


def banded_attention(q: Tensor, k: Tensor, v: Tensor, half: int, group: int = 1) -> tuple[Tensor, Tensor]:
    """Softmax attention inside the band, and the logarithm of each row's sum.

    Args:
        q: [batch, heads, tokens, size], as k and v.
        k: keys.
        v: values.
        half: of the band, in groups.
        group: neighbouring tokens that the band takes as one: they see each other and the same others.

    Returns:
        Outputs [batch, heads, tokens, size] and log of the sum of exp of the scores inside the band [batch, heads,
        tokens].
    """
    groups = q.shape[2] // group
    block = block_of(groups, half)
    if block + 2 * half >= groups:
        scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~_spread(band_mask(groups, half, q.device), group), float("-inf"))
        return scores.softmax(-1) @ v, scores.logsumexp(-1)
    near_k, near_v = (_near(each, block * group, half * group) for each in (k, v))
    scores = q.unflatten(2, (-1, block * group)) @ near_k.transpose(-1, -2) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~_spread(_seen(groups, block, half, q.device), group), float("-inf"))
    return (scores.softmax(-1) @ near_v).flatten(2, 3), scores.logsumexp(-1).flatten(2, 3)


def _spread(mask: Tensor, group: int) -> Tensor:
    """A mask of groups as one of tokens."""
    return mask.repeat_interleave(group, -1).repeat_interleave(group, -2)


def _near(x: Tensor, block: int, half: int) -> Tensor:
    """Keys of every block, [batch, heads, blocks, block + 2 half, size]; zeros beyond the ends."""
    padded = F.pad(x, (0, 0, half, half))
    return padded.unfold(2, block + 2 * half, block).transpose(-1, -2)


def _seen(tokens: int, block: int, half: int, device: torch.device) -> Tensor:
    """Which of a block's keys its queries see, [blocks, block, block + 2 half]."""
    first = torch.arange(0, tokens, block, device=device)[:, None, None]
    query = first + torch.arange(block, device=device)[None, :, None]
    key = first - half + torch.arange(block + 2 * half, device=device)[None, None]
    return ((query - key).abs() <= half) & (key >= 0) & (key < tokens)
