"""Residual blocks that could be one kernel.

Convolution first, or in the middle (MBConv), with groups of eight channels.

Source: Lavin 2024, On the Efficiency of Convolutional Neural Networks, arXiv:2404.03617; section 4. Blocks are exact;
the network is rebuilt, since its table of stages could not be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import PooledHead, at, conv_norm
from suites.common.feature_operator import FeatureOperator
from suites.common.torchvision_remedy import NotInstalled

#: Bytes of an element in the figures of the paper.
ELEMENT = 2
#: Side of a tile of the reference, which runs a block as one kernel would.
TILE = 4


@dataclass(frozen=True)
class BlockShape:
    """A block's sizes: channels, side of its map, expansion, channels of a group, kernel, samples."""

    channels: int
    side: int
    ratio: int = 4
    group: int = 8
    kernel: int = 3
    batch: int = 1

    @property
    def pixels(self) -> int:
        """Of all samples."""
        return self.batch * self.side**2

    def macs(self, order: str) -> int:
        """Of all samples: C k^2 g + 2 r C^2 a pixel for `convfirst`, 2 r C^2 + r C k^2 g for `mbconv`."""
        wide = self.channels * (self.ratio if order == "mbconv" else 1)
        return self.pixels * (wide * self.kernel**2 * self.group + 2 * self.ratio * self.channels**2)

    def weights(self, order: str) -> int:
        """Numbers in the three layers."""
        return self.macs(order) // self.pixels

    def moved(self, order: str, *, fused: bool) -> int:
        """Elements that go through memory: layer by layer with the residual read again, or input and output once."""
        if fused:
            each = 2 * self.channels
        else:
            each = self.channels * (5 + 2 * self.ratio if order == "convfirst" else 3 + 4 * self.ratio)
        return self.pixels * each + self.weights(order)

    def operations_per_byte(self, order: str, *, fused: bool) -> float:
        """Two operations a MAC, two bytes an element, every weight once a layer, no halo where fused."""
        return 2 * self.macs(order) / (ELEMENT * self.moved(order, fused=fused))

    def halo(self, tile: int) -> float:
        """What a fused tile reads or computes more than its share: ((t + k - 1) / t)^2.

        Convolution first has it in the block's input alone; MBConv has it in a tensor that is r times as wide.
        """
        return ((tile + self.kernel - 1) / tile) ** 2


class FusibleBlock(nn.Module):
    """x + three layers; `convfirst` k x k, wider, back; `mbconv` wider, k x k, back."""

    def __init__(self, channels: int, ratio: int, group: int, kernel: int, order: str):
        super().__init__()
        wide = channels * ratio
        if order == "convfirst":
            spatial = conv_norm(channels, channels, kernel, groups=channels // group)
            layers = [*spatial, *conv_norm(channels, wide, act=nn.SiLU), *conv_norm(wide, channels)]
        else:
            spatial = conv_norm(wide, wide, kernel, groups=wide // group, act=nn.SiLU)
            layers = [*conv_norm(channels, wide, act=nn.SiLU), *spatial, *conv_norm(wide, channels)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + self.layers(x)


def _check(name: str, width: int, ratio: int, group: int, kernel: int) -> None:
    """Raise UsageError unless groups divide the channels and the kernel is odd."""
    if width % group:
        raise UsageError(f"{name}: groups of {group} channels do not divide width={width}")
    if kernel % 2 == 0:
        raise UsageError(f"{name}: kernel={kernel} must be odd")


def fusible_block(
    *, order: Literal["convfirst", "mbconv"] = "convfirst", width: PositiveInt = 64, ratio: PositiveInt = 4,
    group: PositiveInt = 8, kernel: PositiveInt = 3, form: Literal["layers", "folded", "spio"] = "layers",
    resolution: PositiveInt = 16,
) -> FeatureOperator:  # fmt: skip
    """One block as an operator on [batch, width, resolution, resolution].

    Args:
        order: where the k x k layer stands.
        width: channels.
        ratio: expansion.
        group: channels of a group of the k x k layer; 1 is depthwise.
        kernel: its side, odd.
        form: layer by layer; with norms folded; or the fused grouped kernel of the package spio, which needs a GPU.
        resolution: side of the map.

    Raises:
        UsageError: groups do not divide the width, or the kernel is even.
        NotImplementedError: spio is asked for without a GPU.
        NotInstalled: spio is not installed.
    """
    _check("fusible_block", width, ratio, group, kernel)
    block, size = FusibleBlock(width, ratio, group, kernel, order).eval(), (width, resolution, resolution)
    if form == "folded":
        from suites.common.folding import fold_sequences

        fold_sequences(block)
    if form == "spio":
        block = _through_spio(block)
    return FeatureOperator(block, size, form=form, reference=None if form == "spio" else tile_by_tile)


def tile_by_tile(block: nn.Module, x: Tensor) -> Tensor:
    """The block as one kernel computes it: of each tile all layers, on the tile and its halo, and nothing is kept."""
    assert isinstance(block, FusibleBlock)
    height, width = x.shape[-2:]
    added = torch.empty_like(x)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            added[:, :, top:bottom, left:right] = _tile(block, x, top, left, bottom, right)
    return x + added


def _tile(block: FusibleBlock, x: Tensor, top: int, left: int, bottom: int, right: int) -> Tensor:
    """What the layers add within a tile; the k x k layer uses the halo up, and sees zeros outside of the picture."""
    halo = max(layer.kernel_size[0] for layer in block.layers if isinstance(layer, nn.Conv2d)) // 2
    rows, columns = slice(top, bottom + 2 * halo), slice(left, right + 2 * halo)
    y = F.pad(x, [halo] * 4)[:, :, rows, columns]
    inside = F.pad(torch.ones_like(x), [halo] * 4)[:, :1, rows, columns]
    for layer in block.layers:
        if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1:
            y = F.conv2d(y * inside, layer.weight, layer.bias, groups=layer.groups)
        else:
            y = layer(y)
    return y


def _through_spio(block: FusibleBlock) -> FusibleBlock:
    """The block with spio's kernels for its grouped layers.

    Raises:
        NotImplementedError: there is no GPU.
        NotInstalled: the package is not there.
    """
    import importlib
    import importlib.util

    if not torch.cuda.is_available():
        raise NotImplementedError(
            "form='spio' is a GPU kernel, and there is no GPU: take form='layers' or backend=compile"
        )
    if importlib.util.find_spec("spio") is None:
        raise NotInstalled("spio is not installed: python -m pip install spio")
    return importlib.import_module("spio.transform").transform(block)


def convfirst_net(
    *, dims: Counts = [64, 128, 256, 512], depths: Counts = [2, 2, 6, 2], ratio: PositiveInt = 4,  # noqa: B006
    group: PositiveInt = 8, kernel: PositiveInt = 3, order: Literal["convfirst", "mbconv"] = "convfirst",
    classes: PositiveInt = 1000, resolution: PositiveInt = 224,
) -> nn.Sequential:  # fmt: skip
    """A classifier of fusible blocks in four stages: a rebuilt network, whose widths and depths are ours.

    Args:
        dims: widths of the stages.
        depths: their blocks.
        ratio: expansion of blocks.
        group: channels of a group.
        kernel: side of the k x k layers.
        order: of the layers of a block.
        classes: logits.
        resolution: side of the input.

    Raises:
        UsageError: widths and depths are not as many, or groups do not divide a width.
    """
    if len(dims) != len(depths) or not dims:
        raise UsageError(f"convfirst_net: dims={dims} and depths={depths} must be as many")
    layers: list[nn.Module] = [conv_norm(3, dims[0], 3, 2, act=nn.SiLU)]
    before = dims[0]
    for width, depth in zip(dims, depths, strict=True):
        _check("convfirst_net", width, ratio, group, kernel)
        layers.append(conv_norm(before, width, 3, 2))
        layers += [FusibleBlock(width, ratio, group, kernel, order) for _ in range(depth)]
        before = width
    return at(nn.Sequential(*layers, PooledHead(before, classes)), resolution)
