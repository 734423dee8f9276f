"""ConvNeXt with other depthwise layers: the ablations by which InceptionNeXt was found.

Source: Yu et al. 2023, InceptionNeXt, arXiv:2303.16900, tables 1 and 4. InceptionNeXt itself is timm's
`inception_next_*`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import KeepRate, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at, depthwise
from suites.common.timm_bridge import import_timm


class PartialDepthwise(nn.Module):
    """A depthwise layer on the first int(C share) channels; the others pass."""

    def __init__(self, channels: int, kernel: int, share: float):
        super().__init__()
        self.count = int(channels * share)
        if not self.count:
            raise UsageError(f"a share of {share} of {channels} channels is none")
        self.layer = depthwise(self.count, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        taken, kept = x.split((self.count, x.shape[1] - self.count), 1)
        return torch.cat((self.layer(taken), kept), 1)


def convnext_depthwise(
    *, size: Literal["atto", "femto", "pico", "nano", "tiny", "small", "base"] = "tiny", kernel: PositiveInt = 3,
    share: KeepRate = 1.0, resolution: PositiveInt = 224,
) -> nn.Module:  # fmt: skip
    """A ConvNeXt of timm whose depthwise layers have another kernel, on all channels or on the first few.

    Args:
        size: of the ConvNeXt.
        kernel: side of the layers, odd; 7 is ConvNeXt's own.
        share: of the channels that go through them.
        resolution: side of the input.

    Raises:
        UsageError: timm is missing, the kernel is even, or the share leaves no channel.
    """
    if kernel % 2 == 0:
        raise UsageError(f"convnext_depthwise: kernel={kernel} must be odd")
    network = import_timm().create_model(f"convnext_{size}")
    for stage in network.stages:
        for block in stage.blocks:
            channels = block.conv_dw.in_channels
            block.conv_dw = depthwise(channels, kernel) if share == 1 else PartialDepthwise(channels, kernel, share)
    return at(network, resolution)
