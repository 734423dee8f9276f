"""DCLS: a depthwise layer whose few weights sit at learned places between the taps of a large window.

Source: Khalfaoui-Hassani et al. 2023, Dilated Convolution with Learnable Spacings, arXiv:2112.03740; section 3.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.feature_operator import FeatureOperator
from suites.common.timm_bridge import import_timm

WINDOW = 17
#: Standard deviation of the places at the start, in taps.
SPREAD = 0.5


def constructed(weight: Tensor, places: Tensor, window: int) -> Tensor:
    """The dense kernel [channels, 1, window, window] of weights that are shared among their four neighbouring taps.

    Args:
        weight: [channels, n].
        places: [2, channels, n], rows and columns from the middle of the window; those outside are moved to its edge.
        window: its side, odd.
    """
    middle = window // 2
    row, column = (places + middle).clamp(0, window - 1)
    top, left = row.detach().floor().clamp(max=window - 2), column.detach().floor().clamp(max=window - 2)
    down, right = row - top, column - left
    start = (top * window + left).long()
    kernel = weight.new_zeros(weight.shape[0], window * window)
    for step, share in (
        (0, (1 - down) * (1 - right)), (1, (1 - down) * right), (window, down * (1 - right)), (window + 1, down * right)
    ):  # fmt: skip
        kernel = kernel.scatter_add(1, start + step, weight * share)
    return kernel.view(-1, 1, window, window)


class SpacedDepthwise(nn.Module):
    """A depthwise layer that makes its kernel anew at every call: the form that is trained.

    Training treats places apart: five times the learning rate and no weight decay.
    """

    def __init__(self, channels: int, count: int, places: nn.Parameter, window: int = WINDOW):
        super().__init__()
        self.window = window
        self.weight = nn.Parameter(torch.randn(channels, count) / count**0.5)
        self.places = places
        self.bias = nn.Parameter(torch.zeros(channels))

    def kernel(self) -> Tensor:
        """The dense kernel."""
        return constructed(self.weight, self.places.to(self.weight.dtype), self.window)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        pad = self.window // 2
        return nn.functional.conv2d(x, self.kernel(), self.bias, padding=pad, groups=x.shape[1])

    def frozen(self) -> nn.Conv2d:
        """A plain depthwise layer with the kernel as it is now: the form that is deployed."""
        channels = self.weight.shape[0]
        layer = nn.Conv2d(channels, channels, self.window, padding=self.window // 2, groups=channels)
        layer.weight = nn.Parameter(self.kernel().detach())
        layer.bias = nn.Parameter(self.bias.detach().clone())
        return layer


def new_places(channels: int, count: int) -> nn.Parameter:
    """Places [2, channels, count], normal around the middle."""
    return nn.Parameter(torch.randn(2, channels, count) * SPREAD)


def convnext_dcls(
    *,
    size: Literal["atto", "femto", "pico", "nano", "tiny", "small", "base", "large"] = "tiny",
    count: PositiveInt = 34,
    form: Literal["constructed", "frozen"] = "constructed",
    resolution: PositiveInt = 224,
) -> nn.Module:
    """A ConvNeXt of timm with spaced depthwise layers; the blocks of a stage share one set of places.

    Args:
        size: of the ConvNeXt.
        count: weights a channel.
        form: `constructed` makes kernels at every call, `frozen` made them once.
        resolution: side of the input.

    Raises:
        UsageError: timm is missing.
    """
    network = import_timm().create_model(f"convnext_{size}")
    for stage in network.stages:
        channels = stage.blocks[0].conv_dw.in_channels
        places = new_places(channels, count)
        for block in stage.blocks:
            layer = SpacedDepthwise(channels, count, places)
            block.conv_dw = layer.frozen() if form == "frozen" else layer
    return at(network, resolution)


def spaced_depthwise(
    *, width: PositiveInt = 64, count: PositiveInt = 34, window: PositiveInt = WINDOW,
    form: Literal["constructed", "frozen"] = "constructed", resolution: PositiveInt = 28,
) -> FeatureOperator:  # fmt: skip
    """The bare layer as an operator on [batch, width, resolution, resolution], beside a loop over its weights.

    Raises:
        UsageError: the window is even or of one tap.
    """
    if window % 2 == 0 or window < 3:
        raise UsageError(f"spaced_depthwise: window={window} must be odd and at least 3")
    layer = SpacedDepthwise(width, count, new_places(width, count), window)
    size = (width, resolution, resolution)
    if form == "frozen":
        return FeatureOperator(layer.frozen(), size, form=form)
    return FeatureOperator(layer, size, reference=_weight_by_weight, form=form)


def _weight_by_weight(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer as a sum over weights of the map sampled at their places."""
    assert isinstance(layer, SpacedDepthwise)
    middle, pad = layer.window // 2, layer.window // 2 + 1
    around = nn.functional.pad(x, [pad] * 4)
    height, width = x.shape[-2:]
    total = layer.bias.view(1, -1, 1, 1).expand_as(x).clone()
    for channel in range(x.shape[1]):
        for number in range(layer.weight.shape[1]):
            row, column = (layer.places[:, channel, number].double() + middle).clamp(0, layer.window - 1).tolist()
            top, left = int(row), int(column)
            for dy, share_y in ((0, 1 - (row - top)), (1, row - top)):
                for dx, share_x in ((0, 1 - (column - left)), (1, column - left)):
                    y, z = top + dy + 1, left + dx + 1
                    seen = around[:, channel, y : y + height, z : z + width]
                    total[:, channel] += layer.weight[channel, number] * share_y * share_x * seen
    return total
