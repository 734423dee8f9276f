"""Layers of quantised networks: rounded in floats (`simulated`), packed and unpacked (`dequant`), whole numbers.

`RoundedLayer` runs the float layer on rounded weights and rounded inputs. `CodedLayer` keeps codes in bytes and makes
floats of them in every call. `IntLayer` multiplies int8 by int8 into int32 (`torch._int_mm`) and rescales once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.quantization.grids import SMALLEST, Affine
from suites.quantization.network import Layer

Rounding = Callable[[Tensor], Tensor]


def kept(bias: Tensor | None) -> nn.Parameter | None:
    """A bias as a parameter of its own that learns no more."""
    return None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)


class LayerLike(nn.Module):
    """What takes the place of a linear layer or a convolution; `weight` stands for the layer's dtype and device."""

    is_conv: bool
    bias: Tensor | None

    def take_shape(self, layer: Layer) -> None:
        """Keep what the call of the layer needs.

        Raises:
            ValueError: a convolution that pads with anything but zeros.
        """
        self.is_conv = isinstance(layer, nn.Conv2d)
        self.shape = tuple(layer.weight.shape)
        self.pads_same = pads_same(layer)
        if isinstance(layer, nn.Conv2d):
            if layer.padding_mode != "zeros":
                raise ValueError(f'padding_mode="{layer.padding_mode}": a convolution is rounded that pads with zeros')
            self.stride, self.dilation = layer.stride, layer.dilation
            padding: Any = layer.padding
            self.padding = (0, 0) if padding == "valid" else padding
            self.groups = layer.groups
        else:
            self.in_features, self.out_features = layer.in_features, layer.out_features
            self.groups = 1

    def call(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The float operator of the layer."""
        return float_call(self, x, weight, bias)

    def same_padding(self, x: Tensor) -> list[int]:
        """Columns before and after, rows before and after, that give ceil(side / stride) outputs."""
        return same_padding(x.shape[-2:], self.shape[-2:], self.stride, self.dilation)


def float_call(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution with another weight, its padding as the layer has it; or a linear layer's product."""
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    if not getattr(layer, "pads_same", False) and not pads_same(layer):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    x = F.pad(x, same_padding(x.shape[-2:], weight.shape[-2:], layer.stride, layer.dilation))
    return F.conv2d(x, weight, bias, layer.stride, 0, layer.dilation, layer.groups)


def pads_same(layer: nn.Module) -> bool:
    """Whether a convolution pads by its input's size: `padding="same"`, or timm's layer for TensorFlow's weights."""
    return getattr(layer, "padding", None) == "same" or type(layer).__name__ == "Conv2dSame"


def same_padding(
    sides: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Zeros for `F.pad`, of the last axis first; of an odd number the one more stands behind (TensorFlow's "SAME")."""
    found = []
    for side, k, s, d in reversed(list(zip(sides, kernel, stride, dilation, strict=True))):
        total = max((-(-side // s) - 1) * s + (k - 1) * d + 1 - side, 0)
        found += [total // 2, total - total // 2]
    return found


class Static(nn.Module):
    """Rounds inputs to a grid that was fixed by calibration."""

    scale: Tensor
    zero: Tensor
    ends: Tensor

    def __init__(self, grid: Affine):
        super().__init__()
        ends = torch.tensor([grid.low, grid.high], device=grid.scale.device)
        self.register_buffer("ends", ends)
        self.register_buffer("scale", grid.scale)
        self.register_buffer("zero", grid.zero)

    @property
    def grid(self) -> Affine:
        """The grid; its ends are tensors, so that they are part of the state."""
        return Affine(self.scale, self.zero, self.ends[0], self.ends[1])

    def forward(self, x: Tensor) -> Tensor:
        """The rounded values."""
        return self.grid(x)


class Dynamic(nn.Module):
    """Rounds each token (the last axis) to a symmetric grid of its own maximum; a convolution's input as a whole."""

    def __init__(self, bits: int, whole: bool = False):
        super().__init__()
        self.high, self.whole = 2 ** (bits - 1) - 1, whole

    def forward(self, x: Tensor) -> Tensor:
        """The rounded values."""
        largest = x.abs().amax(dim=tuple(range(1, x.ndim)) if self.whole else -1, keepdim=True)
        scale = (largest / self.high).clamp(min=SMALLEST)
        return torch.round(x / scale) * scale


class Through(torch.autograd.Function):
    """A rounding whose gradient is that of the identity where nothing was clipped (straight-through)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor, least: Tensor, largest: Tensor) -> Tensor:
        """The rounded values."""
        ctx.save_for_backward((x >= least) & (x <= largest))
        return rounded

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient inside the range."""
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None, None


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """The rounded values, with the gradient of x."""
    return x + (rounded - x).detach()


class RoundedLayer(LayerLike):
    """The float layer on rounded weights and inputs: what a format would compute, at the cost of floats.

    Args:
        layer: its weight holds the rounded values already.
        weight_bits: nominal bits of a weight, scales included where they are counted.
        inputs: rounding of the inputs; None leaves them.
        activation_bits: nominal bits of an input.
        code_bits: of a weight's code alone, which is what is multiplied; None for `weight_bits`.
    """

    execution = "simulated"

    def __init__(
        self,
        layer: Layer,
        weight_bits: float,
        inputs: nn.Module | None,
        activation_bits: float,
        code_bits: float | None = None,
    ):
        super().__init__()
        self.take_shape(layer)
        self.layer, self.rounding = layer, inputs
        self.nominal_bits, self.nominal_activation_bits = float(weight_bits), float(activation_bits)
        self.nominal_code_bits = self.nominal_bits if code_bits is None else float(code_bits)

    @property
    def weight(self) -> Tensor:
        """The rounded weight."""
        return self.layer.weight

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """Of the layer."""
        return self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        return self.layer(x if self.rounding is None else self.rounding(x))


class CodedLayer(LayerLike):
    """Codes in bytes, made floats in every call: labels `dequant`. A subclass defines `dense`."""

    execution = "dequant"

    def __init__(self, layer: Layer, weight_bits: float, activation_bits: float = 32):
        super().__init__()
        self.take_shape(layer)
        self.register_parameter("bias", kept(layer.bias))
        self.nominal_bits, self.nominal_activation_bits = float(weight_bits), float(activation_bits)

    def dense(self) -> Tensor:
        """The weight, made of its codes."""
        raise NotImplementedError(f"{type(self).__name__} does not define dense")

    @property
    def weight(self) -> Tensor:
        """The weight, made of its codes."""
        return self.dense()

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        return self.call(x, self.dense(), self.bias)


# ---------------------------------------------------------------------------------------------- whole numbers


def as_rows(x: Tensor) -> Tensor:
    """Inputs of a linear layer [.., inputs] as a matrix; a vector is one row."""
    return x.flatten(0, -2) if x.ndim > 1 else x[None]


def int_product(left: Tensor, right: Tensor) -> Tensor:
    """Left [m, k] x right [k, n] of int8 in int32; shapes that the kernel of a GPU refuses are padded with zeros."""
    if left.device.type != "cuda":
        return torch._int_mm(left, right)
    m, k = left.shape
    n = right.shape[1]
    rows, inner, columns = max(0, 17 - m), -k % 8, -n % 8
    left, right = F.pad(left, (0, inner, 0, rows)), F.pad(right, (0, columns, 0, inner))
    return torch._int_mm(left, right)[:m, :n]


class IntLayer(LayerLike):
    """int8 weights per output channel, int8 inputs, products summed in int32: labels `real-int`.

    Inputs are symmetric, of the largest magnitude of each token (of each image in a convolution), or static and affine
    where `grid` is given: then the zero point's share is a constant per output, -z x (sum of its weights), prepared
    once. A convolution gathers its windows first (im2col); a depthwise one has no int8 product and multiplies in
    int32, tap by tap.

    Args:
        layer: the float layer.
        grid: of static inputs (codes 0..255 move down by 128); None for dynamic scales.
        codes: int8 codes of the weight; None rounds the layer's own to the nearest.
        scale: of the codes, per output.
    """

    execution = "real-int"
    codes: Tensor
    scale: Tensor
    input_scale: Tensor | None
    input_zero: Tensor | None
    correction: Tensor | None

    def __init__(
        self, layer: Layer, grid: Affine | None = None, codes: Tensor | None = None, scale: Tensor | None = None
    ):
        super().__init__()
        self.take_shape(layer)
        if codes is None or scale is None:
            matrix = layer.weight.detach().flatten(1)
            scale = (matrix.abs().amax(dim=1) / 127).clamp(min=SMALLEST)
            codes = torch.round(matrix / scale[:, None])
        self.register_buffer("codes", codes.flatten(1).to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_parameter("bias", kept(layer.bias))
        self.register_buffer("input_scale", None if grid is None else grid.scale)
        zero = None if grid is None else (grid.zero - 128 if grid.low == 0 else grid.zero)
        self.register_buffer("input_zero", zero)
        sums = self.codes.to(torch.int32).sum(dim=1, dtype=torch.int32)
        self.register_buffer("correction", None if zero is None else sums)
        self.packed_weights = {"codes": self.codes.numel(), "scale": 0}
        self.nominal_bits = self.nominal_activation_bits = self.nominal_code_bits = 8.0

    @property
    def weight(self) -> Tensor:
        """The scales: they have the dtype and the device of what goes in and comes out."""
        return self.scale

    def dense(self) -> Tensor:
        """The weight that the codes stand for."""
        return (self.codes * self.scale[:, None]).reshape(self.shape)

    def rounded_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """int8 codes of the inputs and their scale, broadcastable to them."""
        if self.input_scale is None or self.input_zero is None:
            dims = tuple(range(1, x.ndim)) if self.is_conv else -1
            scale = (x.abs().amax(dim=dims, keepdim=True) / 127).clamp(min=SMALLEST)
            return torch.round(x / scale).to(torch.int8), scale
        codes = (torch.round(x / self.input_scale) + self.input_zero).clamp(-128, 127)
        return codes.to(torch.int8), self.input_scale

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs in floats."""
        codes, scale = self.rounded_inputs(x)
        if not self.is_conv:
            sums = int_product(as_rows(codes), self.codes.t()).reshape(*x.shape[:-1], len(self.codes))
            made = self._without_zero(sums, -1) * (scale * self.scale)
            return made if self.bias is None else made + self.bias
        sums = self._convolved(codes)
        made = self._without_zero(sums, 1) * (scale * self.scale[:, None, None])
        return made if self.bias is None else made + self.bias[:, None, None]

    def _without_zero(self, sums: Tensor, axis: int) -> Tensor:
        if self.correction is None or self.input_zero is None:
            return sums
        share = self.input_zero.to(torch.int32) * self.correction
        return sums - (share if axis == -1 else share[:, None, None])

    def _convolved(self, codes: Tensor) -> Tensor:
        """Sums of products in int32, [batch, outputs, rows, columns]; outside the picture is the zero point."""
        padded = self._padded(codes)
        windows, rows, columns = self._windows(padded)  # [batch, channels, places, rows x columns]
        if self.groups == 1:
            flat = windows.flatten(1, 2).transpose(1, 2).flatten(0, 1)
            sums = int_product(flat.contiguous(), self.codes.t())
            return sums.unflatten(0, (len(codes), -1)).transpose(1, 2).unflatten(2, (rows, columns))
        each = windows.unflatten(1, (self.groups, -1)).flatten(2, 3).to(torch.int32)  # [b, groups, c x places, area]
        filters = self.codes.unflatten(0, (self.groups, -1)).to(torch.int32)
        if each.device.type == "cuda":  # no int32 products of matrices there
            sums = (filters[None, :, :, :, None] * each[:, :, None]).sum(dim=3, dtype=torch.int32)
        else:
            sums = filters @ each
        return sums.flatten(1, 2).unflatten(2, (rows, columns))

    def _padded(self, codes: Tensor) -> Tensor:
        if self.pads_same:
            sides = self.same_padding(codes)
        else:
            high, wide = map(int, self.padding)
            sides = [wide, wide, high, high]
        if not any(sides):
            return codes
        value = 0 if self.input_zero is None or codes.is_meta else int(self.input_zero)
        return torch.constant_pad_nd(codes, sides, value)  # F.pad makes a float of the value

    def _windows(self, padded: Tensor) -> tuple[Tensor, int, int]:
        (kh, kw), (sh, sw), (dh, dw) = self.shape[2:], self.stride, self.dilation
        rows = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
        columns = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
        taps = [
            padded[:, :, u * dh : u * dh + (rows - 1) * sh + 1 : sh, v * dw : v * dw + (columns - 1) * sw + 1 : sw]
            for u in range(kh)
            for v in range(kw)
        ]
        return torch.stack(taps, dim=2).flatten(3), rows, columns
