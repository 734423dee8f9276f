"""What every kernel is: a matrix product W X with a pruned W [outputs, inputs] and columns X [inputs, N]."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Product(nn.Module):
    """W X for X [inputs, N].

    Attributes:
        outputs, inputs: of W.
        executed_weights: weights that are multiplied per column, zeros included where the kernel multiplies them.
    """

    outputs: int
    inputs: int
    executed_weights: int

    def forward(self, x: Tensor) -> Tensor:
        """[outputs, N] of x [inputs, N]."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def stored_bytes(self) -> int:
        """Bytes of values and indices as they lie in memory."""
        held = [*self.parameters(), *self.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def dense(self) -> Tensor:
        """W with its zeros, [outputs, inputs]: the product with the unit matrix."""
        some = next(self.parameters())
        return self(torch.eye(self.inputs, dtype=some.dtype, device=some.device))


def counted(values: Tensor, x: Tensor, outputs: int) -> Tensor:
    """On the meta device: as many products as there are stored values, with a result of the right shape.

    torch's sparse layouts have no meta kernels; a row of all values times as many rows of x makes the same products.
    """
    flat = values.reshape(1, -1)
    return (flat @ x.new_empty(flat.shape[1], x.shape[1])).expand(outputs, -1)
