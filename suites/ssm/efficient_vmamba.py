"""EfficientVMamba: scans of quarters of the map beside convolutions, early; inverted residuals, late.

Source: Pei et al. 2024, EfficientVMamba, arXiv:2403.09977, sections 3.2 to 3.4. `step=1` is the same network, with the
same parameters, whose four scans read all of the map: four times the states.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt
from bench.errors import UsageError
from suites.common.checkpoint import load_checkpoint
from suites.common.conv_blocks import at, depthwise
from suites.common.inverted import InvertedBottleneck
from suites.common.scan_forms import parse_form
from suites.ssm.orders import CROSS, Orders
from suites.ssm.scan_network import ScanNetwork
from suites.ssm.ss2d import PatchMerging, Ss2d

__all__ = ["EfficientVMamba", "efficient_vmamba", "load_checkpoint"]

#: Widths and depths of the published sizes (table 2).
SIZES = {
    "T": ([48, 96, 192, 384], [2, 2, 4, 2]),
    "S": ([64, 128, 256, 512], [2, 2, 4, 2]),
    "B": ([96, 192, 384, 768], [2, 2, 9, 2]),
}
STATE = 16


class ChannelGate(nn.Module):
    """A map times a gate of its channels: LayerNorm, mean over space, C -> C/8, GELU, C/8 -> C, sigmoid."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, channels // 8)
        self.up = nn.Linear(channels // 8, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, height, width, C]."""
        gate = self.up(F.gelu(self.down(self.norm(x).mean((1, 2))))).sigmoid()
        return x * gate[:, None, None]


class ConvBranch(nn.Module):
    """Depthwise 3x3 with bias, BatchNorm, GELU, 1x1 with bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            depthwise(channels, 3), nn.BatchNorm2d(channels), nn.GELU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, height, width, C]."""
        return self.layers(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ScanBlock(nn.Module):
    """x + g(SSM(LN x)) + g(CONV(LN x)), g one gate that both branches share; either branch may be left out."""

    def __init__(self, channels: int, orders: Orders, branch: str, form: str):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.ssm = Ss2d(channels, STATE, orders, form) if branch != "conv" else None
        self.conv = ConvBranch(channels) if branch != "ssm" else None
        self.gate = ChannelGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, height, width, C]."""
        seen = self.norm(x)
        for branch in (self.ssm, self.conv):
            if branch is not None:
                x = x + self.gate(branch(seen))
        return x


class ResidualBlock(nn.Module):
    """An inverted residual of four times the channels with squeeze-excite, on maps [batch, height, width, C]."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = InvertedBottleneck(
            channels, channels, hidden=4 * channels, gate=4 * channels // 8, gate_act=nn.Sigmoid
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.body(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class EfficientVMamba(ScanNetwork):
    """Patches, stages with patch merging between them, LayerNorm, mean over the map, a linear layer."""

    def __init__(self, dims: list[int], stages: list[nn.Module], patch: int, classes: int):
        super().__init__()
        self.classes, self.patch = classes, patch
        self.embed = nn.Conv2d(3, dims[0], patch, patch)
        self.embed_norm = nn.LayerNorm(dims[0])
        self.stages = nn.ModuleList(stages)
        merge = [PatchMerging(before, after) for before, after in pairwise(dims)]
        self.merge = nn.ModuleList(merge)
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of images [batch, 3, height, width]."""
        x = self.embed_norm(self.embed(images).permute(0, 2, 3, 1))
        for place, stage in enumerate(self.stages):
            x = self.merge[place - 1](x) if place else x
            x = stage(x)
        return self.head(self.norm(x).mean((1, 2)))


def efficient_vmamba(
    *,
    size: Literal["T", "S", "B"] = "T",
    step: Literal[1, 2] = 2,
    ssm_stages: Literal["12", "34", "1234", "none"] = "12",
    branch: Literal["both", "ssm", "conv"] = "both",
    scan: str = "parallel",
    order: Literal["paper", "raster4"] = "paper",
    dims: Blocks | None = None,
    depths: Blocks | None = None,
    patch: PositiveInt = 4,
    classes: PositiveInt = 1000,
    resolution: PositiveInt = 224,
) -> EfficientVMamba:
    """A classifier in evaluation mode with random weights.

    Args:
        size: widths and depths as published.
        step: 2, four scans of a quarter of the map each; 1, four scans of all of it.
        ssm_stages: stages whose blocks scan; the others are inverted residuals.
        branch: of the scanning blocks: the scan, the convolution, or both.
        scan: form of the scan: sequential, parallel, chunk=c, mamba_ssm, or the control identity.
        order: the paper's paths, or the control whose four scans all read in raster order.
        dims: widths of other stages than the size's, 8 or more where they scan.
        depths: their blocks.
        patch: side of a patch in pixels.
        classes: number of logits.
        resolution: side of the input in pixels, a patch or more; any other will do.

    Raises:
        UsageError: no such form of scan, widths and depths that are not as many, a width of which a gate has no eighth,
            or an input smaller than a patch.
    """
    parse_form(scan)  # also where no stage scans: a form that does not exist is never taken
    widths, blocks = dims or SIZES[size][0], depths or SIZES[size][1]
    if len(widths) != len(blocks):
        raise UsageError(f"efficient_vmamba: dims={widths} and depths={blocks} must be as many")
    if resolution < patch:
        raise UsageError(f"efficient_vmamba: resolution={resolution} is less than one patch={patch}")
    stages: list[nn.Module] = []
    for place, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        scans = str(place + 1) in ssm_stages
        if scans and width < 8:
            raise UsageError(f"efficient_vmamba: a gate has an eighth of the channels, and {width} are less than 8")
        orders = Orders(CROSS, step, order == "raster4")
        made = [ScanBlock(width, orders, branch, scan) if scans else ResidualBlock(width) for _ in range(count)]
        stages.append(nn.Sequential(*made))
    return at(EfficientVMamba(widths, stages, patch, classes), resolution)
