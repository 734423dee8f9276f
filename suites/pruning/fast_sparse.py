"""Fast Sparse ConvNets: the 1x1 convolutions are unstructured sparse, all the rest stays dense.

Source: Elsen et al. 2020, arXiv:1911.09723, sections 3 and 4.1: channels before places (CHW), so that a 1x1 convolution
is a sparse matrix times a dense one; the last block of MobileNet-v1 in blocks of 4 rows.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.pruning.layers import install, prunable, weights_of
from suites.pruning.scores import magnitude
from suites.pruning.structures import blocks, unstructured


def is_pointwise(_: str, layer: nn.Module) -> bool:
    """Whether a layer is a 1x1 convolution of one group."""
    return isinstance(layer, nn.Conv2d) and layer.groups == 1 and tuple(layer.kernel_size) == (1, 1)


def fast_sparse(
    model: nn.Module,
    *,
    sparsity: Rate = 0.9,
    kernel: Literal["mask", "csr", "gather"] = "csr",
    blocked: Count = 0,
    rows: PositiveInt = 4,
) -> nn.Module:
    """A network whose 1x1 convolutions keep their largest weights, int(s n) of each gone.

    Args:
        model: any network with 1x1 convolutions.
        sparsity: of each of them.
        kernel: csr is the paper's product in torch; gather runs the blocks.
        blocked: how many of the last 1x1 convolutions are pruned in blocks of `rows` outputs: 2 in the paper's v1.
        rows: of a block.

    Raises:
        ValueError: no 1x1 convolution, or rows that do not divide a blocked layer.
    """
    weights = weights_of(prunable(model, "fast_sparse", is_pointwise, "1x1 convolutions of one group"))
    last = list(weights)[len(weights) - blocked :] if blocked else []
    patterns = {
        name: blocks(magnitude(weight), (rows, 1), sparsity, balanced=kernel == "gather")
        if name in last
        else unstructured(magnitude(weight), sparsity)
        for name, weight in weights.items()
    }
    return install(model, patterns, kernel)
