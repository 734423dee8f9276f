"""SparseByteNN: consecutive output channels of a 1x1 convolution share their inputs, after channels were re-ordered.

Source: arXiv:2310.19509; the pattern is 1xN (Lin et al. 2022, arXiv:2105.14713). Reconstruction: the order (by the L1
norm of filters) and the balance within blocks. Depthwise convolutions and the stem stay dense.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from bench.config.settings import PositiveInt, Rate
from suites.pruning.fast_sparse import is_pointwise
from suites.pruning.groups import Group, groups_of
from suites.pruning.layers import install, prunable, weights_of
from suites.pruning.scores import filter_l1, magnitude
from suites.pruning.structures import blocks


def sparsebytenn(
    model: nn.Module,
    *,
    sparsity: Rate = 0.3,
    rows: PositiveInt = 16,
    reorder: bool = True,
    kernel: Literal["mask", "csr", "gather"] = "gather",
) -> nn.Module:
    """A network whose 1x1 convolutions are sparse in blocks of N outputs and one input.

    Args:
        model: MobileNet-v1, whose channel order can be changed; without `reorder` any network with 1x1 convolutions.
        sparsity: share of the inputs that every block loses.
        rows: N; 4, 8 or 16.
        reorder: sorts the channels of every layer by the L1 norm of the filters that make them.
        kernel: gather runs the blocks.

    Raises:
        ValueError: no 1x1 convolution that N divides, or a network whose channels are not described.
    """
    if reorder and not next(model.parameters()).is_meta:
        for group in groups_of(model, "sparsebytenn(reorder=True)"):
            permute(model, group, filter_l1(model, group).argsort(descending=True))

    def divided(name: str, layer: nn.Module) -> bool:
        return isinstance(layer, nn.Conv2d) and is_pointwise(name, layer) and layer.out_channels % rows == 0

    kind = f"1x1 convolutions whose outputs blocks of {rows} divide"
    weights = weights_of(prunable(model, f"sparsebytenn(rows={rows})", divided, kind))
    patterns = {name: blocks(magnitude(weight), (rows, 1), sparsity, True) for name, weight in weights.items()}
    return install(model, patterns, kernel)


@torch.no_grad()
def permute(model: nn.Module, group: Group, order: torch.Tensor) -> None:
    """Put the channels of a group in another order everywhere; the function stays the same."""
    for path, norm, offset in group.outs:
        for part in (model.get_submodule(path), *([model.get_submodule(norm)] if norm else [])):
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                if tensor.ndim:
                    tensor[offset : offset + group.size] = tensor[order + offset].clone()
    for path, offset in group.ins:
        weight: torch.Tensor = model.get_submodule(path).weight  # type: ignore[assignment]
        weight[:, offset : offset + group.size] = weight[:, order + offset].clone()
