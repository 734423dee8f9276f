"""A-priori compressed convolutions: every filter a sum of outer products of vectors, chosen before training.

Source: Boukraichi et al. 2023, arXiv:2304.04964. Ranks and networks are ours: the paper's could not be read. Nothing is
decomposed here; factors are trained.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.feature_operator import FeatureOperator


class RankConv(nn.Module):
    """A k x k convolution of R (inputs + 2 k) outputs parameters and a bias.

    `kernel` puts the kernel together and convolves: MACs are unchanged. `factors` mixes channels, then runs along
    rows and columns: R outputs (inputs + 2 k) MACs a pixel, fewer only where R (inputs + 2 k) < inputs k k.
    """

    def __init__(self, inputs: int, outputs: int, size: int, rank: int, form: str):
        super().__init__()
        self.size, self.rank, self.form = size, rank, form
        self.channel = nn.Parameter(torch.randn(rank, outputs, inputs) * (inputs * rank) ** -0.5)
        self.row = nn.Parameter(torch.randn(rank, outputs, size) * size**-0.5)
        self.column = nn.Parameter(torch.randn(rank, outputs, size) * size**-0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def kernel(self) -> Tensor:
        """[outputs, inputs, k, k]."""
        return torch.einsum("roi,roh,row->oihw", self.channel, self.row, self.column)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, h, w]."""
        pad, outputs = self.size // 2, self.bias.shape[0]
        if self.form == "kernel":
            kernel = (self.channel[..., None] * self.row[:, :, None]).flatten(2)  # [R, out, in k]
            kernel = (kernel[..., None] * self.column[:, :, None]).sum(0).view(outputs, -1, self.size, self.size)
            return F.conv2d(x, kernel, self.bias, padding=pad)
        groups = self.rank * outputs
        y = F.conv2d(x, self.channel.flatten(0, 1)[..., None, None])
        y = F.conv2d(y, self.row.reshape(groups, 1, self.size, 1), padding=(pad, 0), groups=groups)
        y = F.conv2d(y, self.column.reshape(groups, 1, 1, self.size), padding=(0, pad), groups=groups)
        return y.unflatten(1, (self.rank, outputs)).sum(1) + self.bias.view(1, -1, 1, 1)


def layer_of(inputs: int, outputs: int, size: int, rank: int, form: str) -> nn.Module:
    """A convolution in one of the forms; `full` has all its weights."""
    if form == "full":
        return nn.Conv2d(inputs, outputs, size, padding=size // 2)
    return RankConv(inputs, outputs, size, rank, form)


class WaveNetwork(nn.Module):
    """Two fields of a wave, [batch, 2, side, side], to the next one, [batch, 1, side, side].

    What is added to the last.
    """

    takes = "fields"

    def __init__(self, width: int, depth: int, size: int, rank: int, form: str):
        super().__init__()
        layers, before = list[nn.Module](), 2
        for _ in range(depth):
            layers += [layer_of(before, width, size, rank, form), nn.GELU()]
            before = width
        self.layers = nn.Sequential(*layers, layer_of(before, 1, size, rank, form))

    def forward(self, fields: Tensor) -> Tensor:
        """The next field."""
        return fields[:, 1:] + self.layers(fields)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random fields."""
        side = int(self.resolution)  # type: ignore[arg-type]
        like = next(self.parameters())
        return (torch.randn(batch, 2, side, side, device=like.device, dtype=like.dtype),)

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Random fields to come."""
        side = int(self.resolution)  # type: ignore[arg-type]
        return torch.randn(batch, 1, side, side, generator=torch.Generator().manual_seed(seed))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(outputs, targets)


def wave_network(
    *,
    form: Literal["kernel", "factors", "full"] = "factors",
    width: PositiveInt = 24,
    depth: PositiveInt = 3,
    size: PositiveInt = 3,
    rank: PositiveInt = 3,
    resolution: PositiveInt = 32,
) -> WaveNetwork:
    """A network that foretells a wave, with full or compressed kernels.

    Args:
        form: `full`, or compressed and run as `kernel` or as `factors`.
        width: channels.
        depth: hidden layers.
        size: of kernels, odd.
        rank: outer products a filter.
        resolution: side of a field.

    Raises:
        UsageError: an even kernel.
    """
    if size % 2 == 0:
        raise UsageError(f"wave_network: size={size} must be odd")
    return at(WaveNetwork(width, depth, size, rank, form), resolution)


def apriori_layer(
    *,
    form: Literal["kernel", "factors", "full"] = "factors",
    width: PositiveInt = 64,
    size: PositiveInt = 3,
    rank: PositiveInt = 3,
    resolution: PositiveInt = 28,
) -> FeatureOperator:
    """One layer as an operator on [batch, width, resolution, resolution], beside its dense kernel.

    Raises:
        UsageError: an even kernel.
    """
    if size % 2 == 0:
        raise UsageError(f"apriori_layer: size={size} must be odd")
    layer, feature = layer_of(width, width, size, rank, form), (width, resolution, resolution)
    if form == "full":
        return FeatureOperator(layer, feature, form=form)
    return FeatureOperator(layer, feature, reference=_by_the_kernel, form=form)


def _by_the_kernel(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, RankConv)
    return F.conv2d(x, layer.kernel(), layer.bias, padding=layer.size // 2)
