"""Activations as papers on model scaling count them: what convolutions and linear layers put out.

Output elements of every convolution and of every matrix product one of whose sides is a weight (a linear layer), in the
forward. Outputs of norms, activation functions, pools and products of activations with each other are none.

Source: Radosavovic et al. 2020, "Designing Network Design Spaces" (arXiv 2003.13678), section 3.2, which counts
convolutions; linear layers are included here as timm's published `infer_macts` includes them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.meters.operator_rules import COMPUTE
from bench.meters.products import Call, convolution, convolution_tbc, first_tensor

#: Convolutions in whatever kernel, by operator.
CONVOLUTIONS = frozenset(name for name, formula in COMPUTE.items() if formula in (convolution, convolution_tbc))
#: What a linear layer reaches the dispatcher as.
PRODUCTS = frozenset(
    f"aten::{name}"
    for name in ["mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "linear", "matmul", "_int_mm", "mkldnn_linear"]
)  # fmt: skip
#: Layers whose weights are packed, so that no operand shows them.
PACKED = frozenset(name for name in COMPUTE if name.startswith(("quantized::linear", "quantized::conv")))


def layer_outputs(operator: str, call: Call, weight: Callable[[Tensor], int | None]) -> int:
    """Output elements of a call if it is a layer in a forward, else 0.

    Args:
        operator: its name with its namespace.
        call: with its result.
        weight: says of a tensor which weight it holds, None of an activation.
    """
    if torch._C._current_autograd_node() is not None:  # a product of the backward
        return 0
    if operator in CONVOLUTIONS or operator in PACKED:
        return first_tensor(call.out).numel()
    if operator not in PRODUCTS:
        return 0
    matrices = [arg for arg in call.args if isinstance(arg, Tensor)]
    is_layer = any(weight(matrix) is not None for matrix in matrices[-2:])
    return first_tensor(call.out).numel() if is_layer else 0
