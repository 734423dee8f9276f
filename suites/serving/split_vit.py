"""A ViT that runs whole on one device, and the same with fewer heads: what ED-ViT divides."""

from __future__ import annotations

from typing import Any

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_data import CLASSES
from suites.common.digits_vit import digits_vit
from suites.common.vit import ViT

__all__ = ["heads_of", "load_checkpoint", "params_of", "size_mib", "split_vit", "with_heads"]


def split_vit(
    *,
    width: PositiveInt = 64,
    heads: PositiveInt = 4,
    depth: PositiveInt = 4,
    patch: PositiveInt = 4,
    resolution: PositiveInt = 32,
) -> ViT:
    """A ViT for ten classes that runs whole on one device (the baseline `local`), in evaluation mode, random weights.

    Args:
        width: features per token; a multiple of 4 and of `heads`.
        heads: attention heads per block.
        depth: number of blocks.
        patch: side of a patch in pixels.
        resolution: side of the input.

    Raises:
        ValueError: the numbers do not fit together.
    """
    found = digits_vit(width=width, heads=heads, depth=depth, patch=patch, resolution=resolution)
    found.answers_on_device = True  # type: ignore[assignment]
    return found


def heads_of(vit: ViT) -> int:
    """Heads of every block."""
    block: Any = vit.blocks[0]
    return int(block.attn.heads)


def with_heads(vit: ViT, heads: int) -> ViT:
    """A ViT of the same kind with so many heads of the same size, and a width to fit; its weights are new."""
    size = vit.width // heads_of(vit)
    return split_vit(width=heads * size, heads=heads, depth=vit.depth, patch=vit.patch, resolution=vit.resolution)


def params_of(vit: ViT, heads: int, classes: int = CLASSES) -> int:
    """Parameters of that network, in closed form: with width d, 12 d^2 + 13 d a block, and the ends."""
    d = heads * (vit.width // heads_of(vit))
    pixels = vit.channels * vit.patch**2
    ends = (pixels + 1) * d + d + vit.tokens * d + 2 * d + (d + 1) * classes
    return vit.depth * (12 * d * d + 13 * d) + ends


def size_mib(vit: ViT, heads: int) -> float:
    """MiB of its weights in fp32."""
    return 4 * params_of(vit, heads) / 2**20
