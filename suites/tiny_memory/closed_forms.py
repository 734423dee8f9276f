"""Closed forms of executed products, for the battery and for tests."""

from __future__ import annotations

from typing import Any, cast

import torch

from suites.common.engine_memory import chain_macs, patched_total_macs
from suites.tiny_memory.mcuformer import recomputed_macs
from suites.tiny_memory.mcuformer_net import LowRank, low_rank_vit, low_rank_weights, rank_of
from suites.tiny_memory.networks import chain_of, mobilenet_chain
from suites.tiny_memory.reversible_unet import coupling_macs, reversible_unet


def patched(model: dict[str, Any], method: dict[str, Any]) -> int:
    """Products of one picture through a MobileNetV2 whose first blocks run tile by tile, the classifier included.

    Args:
        model: settings of `mobilenet_chain`.
        method: settings of `mcunetv2`; empty for the plain network.
    """
    with torch.device("meta"):
        net = mobilenet_chain(**model)
    chain, head = chain_of(net.net.features), net.net.last_channel * net.classes
    tiles = method.get("tiles", 4) if method else 1
    if tiles == 1:
        return chain_macs(chain, net.resolution) + head
    return patched_total_macs(chain, net.resolution, method.get("end", 4), tiles) + head


def sliced(model: dict[str, Any], method: dict[str, Any]) -> int:
    """Products of one picture through a low-rank ViT, plainly or over slices of tokens.

    Patches N of side p, tokens T = N + 1, inner width D of attention: 3 p^2 N C + depth (T w + 2 T^2 D) + C classes,
    w the weights of a block's layers in their factors; slices make the rank part of queries again.

    Args:
        model: settings of `low_rank_vit`.
        method: settings of `mcuformer`; empty for the plain network.
    """
    with torch.device("meta"):
        net = low_rank_vit(**model)
    folded, block = bool(method.get("fold")), cast(Any, net.blocks[0])
    layers = [block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2]
    shapes: list[tuple[int, int]] = [(part.inner.in_features, part.outer.out_features) if isinstance(part, LowRank)
              else (part.in_features, part.out_features) for part in layers]  # fmt: skip
    factors = 1 if net.rho == 1 else 2 if folded else 3
    weights = sum(low_rank_weights(inner, outer, net.rho, factors) for inner, outer in shapes)
    inner = shapes[0][1] // 3
    total = net.grid**2 * net.width * net.channels * net.patch**2 + net.width * net.classes
    total += net.depth * (net.tokens * weights + 2 * net.tokens**2 * inner)
    rank = 0 if net.rho == 1 else rank_of(*shapes[0], net.rho)
    return total + (recomputed_macs(net.width, net.tokens, net.depth, rank, folded) if method else 0)


def unet(model: dict[str, Any], method: dict[str, Any]) -> int:
    """Products of a forward of one volume through the reversible U-Net, however its backward runs.

    Args:
        model: settings of `reversible_unet`.
        method: of no account.
    """
    with torch.device("meta"):
        net = reversible_unet(**model)
    widths = [net.stem.out_channels * 2**level for level in range(len(net.encoder))]
    voxels = [(net.side >> level) ** 3 for level in range(len(widths))]
    couplings, expansion = model.get("couplings", 2), model.get("expansion", 4)
    total = voxels[0] * widths[0] * (27 * net.channels + net.classes)
    for level, (width, count) in enumerate(zip(widths, voxels, strict=True)):
        chains = 1 if level == len(widths) - 1 else 2  # on the way down and, but for the coarsest, on the way up
        total += chains * couplings * coupling_macs(width, expansion, count)
    return total + sum(
        2 * 8 * voxels[level + 1] * widths[level] * widths[level + 1] for level in range(len(widths) - 1)
    )
