"""The kernels by name, and how one takes the place of a layer."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.pruning.kernels.compressed import BsrProduct, CsrProduct
from suites.pruning.kernels.gather import GatherProduct
from suites.pruning.kernels.lscd import LscdProduct, tiles_divide
from suites.pruning.kernels.product import Product
from suites.pruning.kernels.runtime import RuntimeProduct
from suites.pruning.kernels.semi24 import Semi24Product, fits
from suites.pruning.structures import Pattern

Kernel = Literal["mask", "csr", "bsr", "gather", "semi24", "lscd", "runtime"]
#: Those that take the place of a layer; `mask` leaves zeros in it, and `slim` makes another network.
PRODUCTS: dict[str, type[Product]] = {
    "csr": CsrProduct,
    "bsr": BsrProduct,
    "gather": GatherProduct,
    "semi24": Semi24Product,
    "lscd": LscdProduct,
    "runtime": RuntimeProduct,
}


class SparseLinear(nn.Module):
    """A linear layer by a product: the activations are transposed to [inputs, N] and back."""

    def __init__(self, product: Product, bias: nn.Parameter | None):
        super().__init__()
        self.product, self.bias = product, bias
        self.in_features, self.out_features = product.inputs, product.outputs
        self.executed_weights = product.executed_weights

    @property
    def weight(self) -> Tensor:
        """The stored values, for those who ask a layer's weight for its dtype and device; its shape is the kernel's."""
        return next(self.product.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """[..., outputs] of x [..., inputs]."""
        flat = x.reshape(-1, self.in_features)
        y = self.product(flat.t().contiguous()).t()
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)


class SparseConv2d(nn.Module):
    """A convolution by a product over [I kh kw, N] columns; a 1x1 of stride 1 needs no unfolding."""

    def __init__(self, product: Product, conv: nn.Conv2d):
        super().__init__()
        self.product, self.bias = product, conv.bias
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self.padding, self.dilation = conv.padding, conv.dilation
        self.executed_weights = product.executed_weights

    @property
    def weight(self) -> Tensor:
        """The stored values, for those who ask a layer's weight for its dtype and device; its shape is the kernel's."""
        return next(self.product.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, outputs, height, width] of maps [batch, inputs, ...]."""
        batch = len(x)
        sizes = [self._side(x.shape[2 + axis], axis) for axis in (0, 1)]
        columns = self._columns(x)
        flat = columns[0] if batch == 1 else columns.transpose(0, 1).flatten(1)
        y = self.product(flat)
        y = y[None] if batch == 1 else y.unflatten(1, (batch, -1)).transpose(0, 1)
        y = y if self.bias is None else y + self.bias[:, None]
        return y.reshape(batch, self.out_channels, *sizes)

    def _columns(self, x: Tensor) -> Tensor:
        """[batch, I kh kw, places]."""
        if tuple(self.kernel_size) == (1, 1) and not any(self.padding):
            strided = x[:, :, :: self.stride[0], :: self.stride[1]] if any(s > 1 for s in self.stride) else x
            return strided.flatten(2)
        return F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)  # type: ignore[arg-type]

    def _side(self, side: int, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
        return (side + 2 * int(self.padding[axis]) - reach - 1) // self.stride[axis] + 1


def runs(layer: nn.Module) -> bool:
    """Whether a sparse kernel can take the place of this layer: plain linear layers and convolutions of one group."""
    if type(layer) is nn.Linear:
        return True
    return (
        type(layer) is nn.Conv2d
        and layer.groups == 1
        and isinstance(layer.padding, tuple)
        and layer.padding_mode == "zeros"
    )


def place(layer: nn.Module, pattern: Pattern, kernel: Kernel) -> nn.Module:
    """The module that runs this layer by the kernel; the layer itself for `mask`, or where no sparse kernel runs it.

    Raises:
        ValueError: an unknown kernel, or one that does not run the pattern's structure.
    """
    if kernel == "mask":
        return layer
    if kernel not in PRODUCTS:
        raise ValueError(f"kernel={kernel!r}: one of mask, {', '.join(PRODUCTS)} is wanted here")
    if not runs(layer) or not _taken(kernel, layer.weight.flatten(1).shape):  # type: ignore[operator]
        return layer
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    product = PRODUCTS[kernel](weight.flatten(1), pattern)
    return SparseLinear(product, layer.bias) if isinstance(layer, nn.Linear) else SparseConv2d(product, layer)  # type: ignore[arg-type]


def _taken(kernel: Kernel, shape: torch.Size) -> bool:
    """Whether a kernel takes a matrix [outputs, inputs] of this size."""
    if kernel == "semi24":
        return fits(shape)
    return kernel != "lscd" or tiles_divide(shape)
