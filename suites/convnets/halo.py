"""HaloNet's layer as an operator: attention inside blocks over each block and a halo around it. The layer is timm's.

Source: Vaswani et al. 2021, Scaling Local Self-Attention, arXiv:2103.12731, section 2.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Count, PositiveInt
from bench.errors import UsageError
from suites.common.feature_operator import FeatureOperator
from suites.common.timm_bridge import import_timm

HEAD = 16


def halo_macs(channels: int, side: int, block: int, halo: int) -> int:
    """MACs of a layer on a square map: projections, products over the window, positions of its rows and columns."""
    places, reach = side * side, block + 2 * halo
    projections = places * channels * channels + places * channels * 2 * channels
    return projections + places * reach * reach * 2 * channels + 2 * places * (2 * reach - 1) * channels


def halo_attention(
    *, width: PositiveInt = 64, block: PositiveInt = 8, halo: Count = 3, resolution: PositiveInt = 32
) -> FeatureOperator:
    """The layer of timm on [batch, width, resolution, resolution], heads of 16, beside attention query by query.

    Args:
        width: channels, which 16 divides.
        block: side of a block, which divides the resolution.
        halo: pixels around it that are looked at as well.
        resolution: side of the map.

    Raises:
        UsageError: timm is missing, or a size does not divide.
    """
    if width % HEAD or resolution % block:
        raise UsageError(f"halo_attention: {HEAD} must divide width={width}, and block={block} resolution={resolution}")
    import_timm()
    layer = importlib.import_module("timm.layers.halo_attn").HaloAttn(
        width, num_heads=width // HEAD, dim_head=HEAD, block_size=block, halo_size=halo
    )
    size = (width, resolution, resolution)
    return FeatureOperator(layer, size, reference=_query_by_query, tolerance=1e-4)


def _query_by_query(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer with positions looked up one pair at a time."""
    block, halo, heads = int(layer.block_size), int(layer.halo_size), int(layer.num_heads)  # type: ignore[arg-type]
    batch, _, height, width = x.shape
    reach = block + 2 * halo
    query = layer.get_submodule("q")(x)
    pair = F.pad(layer.get_submodule("kv")(x), [halo] * 4)
    position: Any = layer.get_submodule("pos_embed")
    rows, columns = position.height_rel, position.width_rel
    size = query.shape[1] // heads
    done = torch.zeros(batch, pair.shape[1] - query.shape[1], height, width, dtype=x.dtype)
    for top in range(0, height, block):
        for left in range(0, width, block):
            seen = pair[:, :, top : top + reach, left : left + reach].unflatten(1, (heads, -1))
            key, value = seen[:, :, :size].flatten(3), seen[:, :, size:].flatten(3)
            for row in range(block):
                for column in range(block):
                    q = query[:, :, top + row, left + column].unflatten(1, (heads, size))
                    scores = torch.einsum("bhc,bhcp->bhp", q, key) * size**-0.5
                    by_row = q @ rows[reach - 1 - row : 2 * reach - 1 - row].t()
                    by_column = q @ columns[reach - 1 - column : 2 * reach - 1 - column].t()
                    bias = by_row.unsqueeze(-1) + by_column.unsqueeze(-2)
                    shares = (scores + bias.flatten(2)).softmax(-1)
                    mixed = torch.einsum("bhp,bhcp->bhc", shares, value)
                    done[:, :, top + row, left + column] = mixed.flatten(1)
    return done
