"""A ViT that runs whole on one device, and the same with fewer heads: what ED-ViT divides."""

from __future__ import annotations

from typing import Any

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_vit import digits_vit
from suites.common.vit import ViT
from suites.common.vit import vit as plain_vit

__all__ = ["heads_of", "load_checkpoint", "macs_of", "params_of", "size_mib", "split_vit", "with_heads"]


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
    """A ViT of the same kind and classes with so many heads of the same size, widths to fit, and new weights."""
    block: Any = vit.blocks[0]
    width = heads * (vit.width // heads_of(vit))
    ratio = (_hidden(vit, width) + 0.5) / width  # whose product with the width is cut to a whole number
    found = plain_vit(
        width=width, heads=heads, depth=vit.depth, patch=vit.patch, resolution=vit.resolution, classes=vit.classes,
        channels=vit.channels, mlp_ratio=ratio, qkv_bias=block.attn.qkv.bias is not None,
    )  # fmt: skip
    found.answers_on_device = True  # type: ignore[assignment]
    return found


def _hidden(vit: ViT, width: int) -> int:
    """Hidden channels of an MLP in the same proportion to the width."""
    block: Any = vit.blocks[0]
    return int(block.mlp.fc1.out_features * width // vit.width)


def params_of(vit: ViT, heads: int) -> int:
    """Parameters of that network, in closed form: with width d and hidden m, 4 d^2 + 2 d m + 9 d + m a block, and ends.

    With m = 4 d a block has 12 d^2 + 13 d. Queries, keys and values without a bias have 3 d fewer.
    """
    block: Any = vit.blocks[0]
    d = heads * (vit.width // heads_of(vit))
    m = _hidden(vit, d)
    pixels = vit.channels * vit.patch**2
    ends = (pixels + 1) * d + d + vit.tokens * d + 2 * d + (d + 1) * vit.classes
    bias = 0 if block.attn.qkv.bias is not None else 3 * d
    return vit.depth * (4 * d * d + 2 * d * m + 9 * d + m - bias) + ends


def macs_of(vit: ViT, heads: int) -> int:
    """Products of that network on one picture, in closed form: t (4 d^2 + 2 d m) + 2 t^2 d a block of t tokens."""
    d, t = heads * (vit.width // heads_of(vit)), vit.tokens
    block = t * (4 * d * d + 2 * d * _hidden(vit, d)) + 2 * t * t * d
    patches = (vit.resolution // vit.patch) ** 2 * vit.channels * vit.patch**2 * d
    return patches + vit.depth * block + d * vit.classes


def size_mib(vit: ViT, heads: int) -> float:
    """MiB of its weights in fp32."""
    return 4 * params_of(vit, heads) / 2**20
