"""A small vision transformer for digits, which twelve blocks or more learn in under a minute on one core."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_data import CLASSES
from suites.common.stacking import scale_outputs
from suites.common.vit import ViT, vit

__all__ = ["digits_vit", "load_checkpoint"]


def digits_vit(
    *,
    width: PositiveInt = 48,
    heads: PositiveInt = 3,
    depth: PositiveInt = 12,
    patch: PositiveInt = 4,
    resolution: PositiveInt = 32,
    mlp_ratio: Positive = 4.0,
) -> ViT:
    """A ViT for ten classes that starts from sine and cosine positions, which small data needs.

    Args:
        width: features per token; a multiple of 4 and of `heads`.
        heads: attention heads per block.
        depth: number of blocks.
        patch: side of a patch in pixels.
        resolution: side of the upsampled digit in pixels.
        mlp_ratio: hidden width of the MLP over `width`.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % 4:
        raise ValueError(f"width={width}: positions in two dimensions need a multiple of 4")
    model = vit(
        width=width, heads=heads, depth=depth, patch=patch, resolution=resolution, classes=CLASSES, mlp_ratio=mlp_ratio
    )
    with torch.no_grad():
        model.pos_embed[:, 1:] = 0.7 * grid_positions(model.grid, width)
        nn.init.normal_(model.cls_token, std=0.7)  # type: ignore[arg-type]
    scale_outputs(model.blocks, 5)
    return model


def grid_positions(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, [side^2, width]."""
    frequency = math.pi * torch.linspace(1 / side, 1, width // 4)
    angle = torch.arange(side)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)
