"""Kernels as long as the sequence, by name, and the layers and operators around them.

long        learned tap by tap, soft-thresholded (suites.ops.long_layer)
full        learned tap by tap and used as it is
multiscale  SGConv's (suites.ops.sgconv)
s4d         of a diagonal state space (suites.ops.s4d)
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt, Rate
from suites.common.operators import Operator
from suites.ops.long_layer import KernelLayer, LongKernel, LongLayer, Smoothing
from suites.ops.s4d import DiagonalKernel
from suites.ops.sgconv import MultiscaleKernel, SGLayer


def kernel_of(
    kind: str, width: int, length: int, *, channels: int = 1, two_sided: bool = False, size: int = 64,
    threshold: float = 0.1,
    smoothing: Smoothing = "none",
) -> nn.Module:  # fmt: skip
    """A kernel module by name, its norm taken.

    Raises:
        ValueError: a two-sided state space, which looks back only.
    """
    if kind == "s4d":
        if two_sided:
            raise ValueError("kind='s4d' makes a causal kernel: two_sided=True is for the other kinds")
        return DiagonalKernel(channels, width, length)
    if kind == "multiscale":
        kernel = MultiscaleKernel(channels, width, length, size, two_sided=two_sided)
        kernel.freeze()
        return kernel
    taps = 2 * length if two_sided else length
    if kind == "long":
        return LongKernel(channels, width, taps, threshold, smoothing)
    return LongKernel(channels, width, taps, 0.0, "none")


def long_conv_layer(
    *,
    width: PositiveInt = 64,
    length: PositiveInt = 1024,
    channels: PositiveInt = 1,
    two_sided: bool = False,
    threshold: Rate = 0.001,
    smoothing: Literal["none", "time", "frequency"] = "none",
    transform: Literal["fft", "monarch", "learned"] = "fft",
    backward: bool = False,
) -> LayerOperator:
    """A layer with a directly learned kernel, as an operator on [batch, width, length].

    Args:
        width: features, H.
        length: positions, L.
        channels: kernels a feature.
        two_sided: 2 L taps, half of which look forward.
        threshold: lambda of the soft threshold on every tap.
        smoothing: a moving average of 7 taps in time, or a Gaussian in frequency.
        transform: torch's, dense products, or dense products with learned matrices a channel.
        backward: a run also takes the gradients.
    """
    kernel = kernel_of(
        "long", width, length, channels=channels, two_sided=two_sided, threshold=threshold, smoothing=smoothing
    )
    return LayerOperator(LongLayer(width, length, channels, kernel, transform), transform, backward=backward).eval()


def sgconv_layer(
    *,
    width: PositiveInt = 64,
    length: PositiveInt = 1024,
    kernel: Literal["multiscale", "full", "s4d"] = "multiscale",
    size: PositiveInt = 64,
    channels: PositiveInt = 1,
    two_sided: bool = False,
    backward: bool = False,
) -> LayerOperator:
    """SGConv's layer, or the same layer with another kernel, as an operator on [batch, width, length].

    Args:
        width: features, H.
        length: positions, L.
        kernel: multiscale is SGConv; full has L free taps; s4d that of a diagonal state space.
        size: taps of a piece, kd.
        channels: kernels a feature.
        two_sided: a second kernel looks forward.
        backward: a run also takes the gradients.

    Raises:
        ValueError: a two-sided state space.
    """
    made = kernel_of(kernel, width, length, channels=channels, two_sided=two_sided, size=size)
    return LayerOperator(SGLayer(width, length, made, channels), kernel, backward=backward).eval()


def long_kernel(
    *,
    width: PositiveInt = 64,
    length: PositiveInt = 1024,
    kernel: Literal["multiscale", "full", "s4d"] = "multiscale",
    size: PositiveInt = 64,
    channels: PositiveInt = 1,
    two_sided: bool = False,
    backward: bool = False,
) -> KernelOperator:
    """The construction of a kernel alone, without the convolution: what SGConv saves against a state space.

    Args:
        width: features, H.
        length: positions, L.
        kernel: multiscale is SGConv's; full is a table, whose construction is nothing; s4d a Vandermonde product.
        size: taps of a piece, kd.
        channels: kernels a feature.
        two_sided: a second kernel looks forward.
        backward: a run also takes the gradients.

    Raises:
        ValueError: a two-sided state space.
    """
    made = kernel_of(kernel, width, length, channels=channels, two_sided=two_sided, size=size)
    return KernelOperator(made, kernel, backward=backward).eval()


class LayerOperator(Operator):
    """A layer on [batch, width, length] beside its convolution summed term by term."""

    tolerance_fp32 = 1e-4

    def __init__(self, layer: KernelLayer, form: str, *, backward: bool):
        super().__init__(form=form, backward=backward)
        self.layer = layer

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random features."""
        return (torch.randn(batch, self.layer.width, self.layer.length).to(self.like),)

    def check_args(self, seed: int) -> tuple[Tensor, ...]:
        """One sample of at most 512 positions; the transform keeps its size."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, self.layer.width, min(self.layer.length, 512))
        return (torch.randn(shape, generator=generator).to(self.like),)

    def function(self, u: Tensor) -> Tensor:
        """The layer."""
        return self.layer(u)

    def definition(self, u: Tensor) -> Tensor:
        """The layer, its convolution summed term by term."""
        return self.layer.by_definition(u)


class KernelOperator(Operator):
    """The construction of a kernel; the argument only scales it, so that a run has something to read."""

    def __init__(self, kernel: nn.Module, form: str, *, backward: bool):
        super().__init__(form=form, backward=backward)
        self.built = kernel

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """One number a sample."""
        return (torch.randn(batch).to(self.like),)

    def function(self, scale: Tensor) -> Tensor:
        """The kernel times the first number."""
        return self.built() * scale[0]

    def definition(self, scale: Tensor) -> Any:
        """The same construction in float64."""
        return self.built() * scale[0]


__all__ = ["KernelOperator", "LayerOperator", "kernel_of", "long_conv_layer", "long_kernel", "sgconv_layer"]
