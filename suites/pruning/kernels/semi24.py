"""2 of 4 by the sparse units of a GPU, through torch's semi-structured tensors; refused where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from suites.pruning.kernels.product import Product
from suites.pruning.structures import Pattern

#: Rows and columns of which a matrix of 16-bit values must be multiples (torch's kernels, CUTLASS).
SIDES = (32, 64)


def fits(shape: Sequence[int]) -> bool:
    """Whether the sparse units take a matrix [outputs, inputs]."""
    return not any(size % side for size, side in zip(shape, SIDES, strict=True))


class Semi24Product(Product):
    """W X where two of every four inputs of an output are stored; half precision, an Ampere GPU or later.

    The dense values are the parameter; they are compressed once, at the first call in a dtype.
    """

    def __init__(self, weight: Tensor, pattern: Pattern):
        super().__init__()
        if pattern.nm != (2, 4):
            raise ValueError("kernel='semi24' runs 2:4 alone: prune with structure='n:m', n=2, m=4")
        self.outputs, self.inputs = weight.shape
        self.weight = nn.Parameter(weight.detach().clone())
        self.executed_weights = weight.numel() // 2
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[outputs, N] of x [inputs, N].

        Raises:
            NotImplementedError: no GPU of compute capability 8.0 or above, or a dtype or shape that its sparse units do
                not take: the row is `unsupported`.
        """
        if x.is_meta:
            return self.weight[:, ::2] @ x[::2]
        if not x.is_cuda or torch.cuda.get_device_capability(x.device) < (8, 0):
            raise NotImplementedError(
                "kernel='semi24' needs a GPU of compute capability 8.0 or above; take kernel='mask' here"
            )
        if x.dtype not in (torch.float16, torch.bfloat16):
            raise NotImplementedError(f"kernel='semi24' runs in half precision, not in {x.dtype}: suite.dtypes=[bf16]")
        if not fits(self.weight.shape):
            raise NotImplementedError(
                f"kernel='semi24' takes outputs and inputs in multiples of {SIDES[0]} and {SIDES[1]}, not "
                f"{tuple(self.weight.shape)}: take kernel='mask' for this layer, or other sizes"
            )
        if self._packed is None or self._packed.dtype != x.dtype:
            self._packed = torch.sparse.to_sparse_semi_structured(self.weight.detach().contiguous())
        return torch.mm(self._packed, x.contiguous())
