"""Rotary positions (Su et al. 2021, arXiv 2104.09864) in the half-split layout of Llama's released weights."""

from __future__ import annotations

import torch
from torch import Tensor

#: Cosines and sines of positions, both [tokens, size].
Rotation = tuple[Tensor, Tensor]


def rotation(start: int, count: int, size: int, like: Tensor, base: float = 10_000.0) -> Rotation:
    """Cosines and sines of positions start .. start + count - 1, computed in fp32 or better, in the dtype of `like`."""
    places = torch.arange(start, start + count, device=like.device)
    return rotation_at(places, size, like, base)


def rotation_at(places: Tensor, size: int, like: Tensor, base: float = 10_000.0) -> Rotation:
    """Cosines and sines of given positions [tokens]."""
    exact = torch.promote_types(torch.float32, like.dtype)
    exponents = torch.arange(0, size, 2, device=like.device, dtype=exact) / size
    angles = places.to(exact)[:, None] / base**exponents
    both = torch.cat([angles, angles], dim=-1)
    return both.cos().to(like.dtype), both.sin().to(like.dtype)


def rotated(x: Tensor, by: Rotation) -> Tensor:
    """X [..., tokens, size] with the pairs (i, i + size / 2) turned by their position's angles."""
    cos, sin = by
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
