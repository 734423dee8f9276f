"""Training with int16 dynamic fixed point (Das et al. 2018, arXiv 1802.00930): a reconstruction.

A tensor is int16 and one exponent: e = floor(log2 max |x|), step 2^(e - 14), to the nearest. Forward, input gradient
and weight gradient are products of int16 summed in int32; the sum is flushed to fp32 every K products, because two
products of 16 bits overflow 32. Operands are shifted down to `used` bits so that K products fit. Master weights, norms
and the update stay fp32. No library multiplies int16 by int16 here: sums are formed exactly in fp64 (below 2^53) and
the row is `simulated`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import Count
from suites.common.from_scratch import learned
from suites.quantization.cost import costed, told_elsewhere
from suites.quantization.layers import LayerLike, as_rows
from suites.quantization.network import layers_of, replaced

FRACTION = 14
INT32 = 2**31 - 1


def shared_exponent(x: Tensor) -> Tensor:
    """floor(log2 max |x|) of a tensor; 0 where it is all zeros."""
    largest = x.abs().amax()
    _, exponent = torch.frexp(largest)
    return torch.where(largest > 0, exponent - 1, torch.zeros_like(exponent))


def fixed_point(x: Tensor, bits: int = 16) -> tuple[Tensor, Tensor]:
    """Whole numbers in -(2^(b-1) - 1)..2^(b-1) - 1 as floats of x's dtype, and the exponent of their step.

    16 bits: step 2^(e - 14). Fewer bits shift the operand down: step 2^(e - b + 2).
    """
    step = shared_exponent(x) - (bits - 2)
    high = 2 ** (bits - 1) - 1
    return torch.round(torch.ldexp(x, -step)).clamp(-high, high), step


def longest_chain(bits: int, other: int | None = None) -> int:
    """Products of worst-case operands that an int32 holds: 2 of 16 bits, 128 of 13, 516 of 16 by 8."""
    high = 2 ** (bits - 1) - 1
    low = 2 ** ((bits if other is None else other) - 1) - 1
    return INT32 // (high * low)


def chained(left: Tensor, right: Tensor, chain: int) -> Tensor:
    """Left [m, k] times right [k, n], whole numbers as fp64: int32 sums of `chain` products, added in fp32.

    A sum that does not fit int32 wraps around, as hardware without saturation does.
    """
    total = torch.zeros(len(left), right.shape[1], dtype=torch.float32, device=left.device)
    for start in range(0, left.shape[1], chain):
        part = left[:, start : start + chain] @ right[start : start + chain]
        total = total + wrapped(part).to(torch.float32)
    return total


def wrapped(sums: Tensor) -> Tensor:
    """Whole numbers as an int32 register holds them."""
    return torch.remainder(sums + 2.0**31, 2.0**32) - 2.0**31


def fixed_product(left: Tensor, right: Tensor, used: int, chain: int = 0) -> Tensor:
    """The product of two matrices in dynamic fixed point, fp32.

    Args:
        left: [m, k].
        right: [k, n].
        used: bits of the operands.
        chain: K; 0 takes the longest that cannot overflow.
    """
    (a, ea), (b, eb) = fixed_point(left.double(), used), fixed_point(right.double(), used)
    sums = chained(a, b, chain or longest_chain(used))
    return torch.ldexp(sums, ea + eb)


class _FixedLinear(torch.autograd.Function):
    """All three products of a linear layer in fixed point."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, used: int, chain: int) -> Tensor:
        """X W^T; x [tokens, inputs]."""
        ctx.save_for_backward(x, weight)
        ctx.used, ctx.chain = used, chain
        return fixed_product(x, weight.t(), used, chain).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of the weight."""
        x, weight = ctx.saved_tensors
        grad = grads[0]
        to_input = fixed_product(grad, weight, ctx.used, ctx.chain).to(x.dtype)
        to_weight = fixed_product(grad.t(), x, ctx.used, ctx.chain).to(x.dtype)
        return to_input, to_weight, None, None


class FixedLayer(LayerLike):
    """A linear layer, or a convolution by its windows, with float master weights."""

    execution = "simulated"

    def __init__(self, layer: Any, used: int, chain: int):
        super().__init__()
        self.take_shape(layer)
        if self.pads_same:
            raise ValueError(
                "int16_dfp gathers windows of fixed padding, and this convolution pads by its input's size"
            )
        self.layer, self.used, self.chain = layer, used, chain
        self.nominal_bits = self.nominal_activation_bits = 16.0

    @property
    def weight(self) -> Tensor:
        """The master weight."""
        return self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        bias = self.layer.bias
        if not self.is_conv:
            made = _FixedLinear.apply(as_rows(x), self.weight, self.used, self.chain)
            made = made.reshape(*x.shape[:-1], len(self.weight))
            return made if bias is None else made + bias
        conv = self.layer
        windows = nn.functional.unfold(x, conv.kernel_size, conv.dilation, self.padding, conv.stride)
        rows = windows.transpose(1, 2).flatten(0, 1)
        sums = _FixedLinear.apply(rows, self.weight.flatten(1), self.used, self.chain)
        reach = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1
        high = (x.shape[2] + 2 * self.padding[0] - reach) // conv.stride[0] + 1
        made = sums.unflatten(0, (len(x), -1)).transpose(1, 2).unflatten(2, (high, -1))
        return made if bias is None else made + bias[:, None, None]


@costed
def int16_dfp(model: nn.Module, *, used: Count = 13, chain: Count = 0, training_steps: Count = 0) -> nn.Module:
    """The network with all three products of its ungrouped layers in dynamic fixed point; used=0 leaves it as it is.

    Args:
        model: of linear layers and convolutions.
        used: bits of an operand, 2 to 16.
        chain: products of an int32 sum before it is flushed; 0 for the longest that cannot overflow.
        training_steps: batches of 16 to learn on so, to be set beside `full`; 0 gives a step and its cost.

    Raises:
        ValueError: bits outside 2..16, no layer, or no task to learn from.
    """
    if used == 0:
        return model
    if not 2 <= used <= 16:
        raise ValueError(f"used={used}: int16 has 2 to 16 bits to use, and 0 leaves the network as it is")
    layers = {path: layer for path, layer in layers_of(model).items() if getattr(layer, "groups", 1) == 1}
    if not layers:
        raise ValueError(f"int16_dfp changes linear layers and convolutions, and {type(model).__name__} has none")
    for path, layer in layers.items():
        replaced(model, path, FixedLayer(layer, used, chain))
    model.execution = "simulated"  # type: ignore[assignment]
    settings = {"used": used, "chain": chain}
    with told_elsewhere():
        return learned(model, model, int16_dfp, settings, training_steps, from_start=False)


def flushes(macs: int, chain: int) -> int:
    """Vector operations beside the products: one for each chain."""
    return -(-macs // chain)
