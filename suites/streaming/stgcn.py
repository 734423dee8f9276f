"""ST-GCN (Yan et al. 2018, arXiv 1801.07455): graph convolutions over joints, temporal convolutions of nine frames.

A clip is [batch, frames, 3, persons, joints]; persons are streams side by side whose features are averaged. Random
weights: accuracies need recorded skeletons.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.streaming.co3d import Co3d, VideoNet, co3d
from suites.streaming.continual import Chain, Each, Layer, Residual
from suites.streaming.convolution import Conv

__all__ = ["StGcn", "stgcn"]

WIDTHS = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)
#: Layers, from 0, that halve time in the original.
STRIDED = (4, 7)
PARTITIONS = 3


class Graph(nn.Module):
    """A 1 x 1 convolution to three sets of channels, each mixed over joints by a learned matrix, and their sum."""

    def __init__(self, inner: int, outer: int, joints: int):
        super().__init__()
        self.conv = nn.Conv3d(inner, PARTITIONS * outer, 1)
        self.adjacency = nn.Parameter(torch.eye(joints).repeat(PARTITIONS, 1, 1) / PARTITIONS)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outer, frames, 1, joints]."""
        parts = self.conv(x).unflatten(1, (PARTITIONS, -1))
        return (parts @ self.adjacency[:, None, None]).sum(1)


class Normalised(nn.Module):
    """Batch normalisation of every coordinate of every joint."""

    def __init__(self, channels: int, joints: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(channels * joints)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, frames, persons, joints]."""
        flat = x.permute(0, 2, 3, 1, 4).flatten(3)
        normal = self.norm(flat.flatten(0, 2)).view_as(flat)
        return normal.unflatten(3, (x.shape[1], x.shape[4])).permute(0, 3, 1, 2, 4)


class StGcn(VideoNet):
    """Ten layers over skeletons, mean over joints and persons, one linear layer."""

    channels = 3

    def __init__(self, frames: int, classes: int, persons: int, joints: int, kernel: int, *, strided: bool):
        super().__init__()
        self.frames, self.classes, self.persons, self.joints = frames, classes, persons, joints
        self.taps, self.strided = kernel, strided
        layers, inner = list[Layer]([Each(Normalised(self.channels, joints))]), self.channels
        for place, outer in enumerate(WIDTHS):
            layers.append(self._layer(inner, outer, 1 + (strided and place in STRIDED), residual=place > 0))
            inner = outer
        self.body = Chain(*layers)
        self.head = nn.Linear(inner, classes)

    def _layer(self, inner: int, outer: int, stride: int, *, residual: bool) -> Layer:
        graph = Each(Graph(inner, outer, self.joints), nn.BatchNorm3d(outer), nn.ReLU())
        time = Conv(nn.Conv3d(outer, outer, (self.taps, 1, 1), (stride, 1, 1), (self.taps // 2, 0, 0)))
        body = Chain(graph, time, Each(nn.BatchNorm3d(outer)))
        if not residual:
            return Chain(body, Each(nn.ReLU()))
        skip = None if inner == outer else nn.Sequential(nn.Conv3d(inner, outer, 1), nn.BatchNorm3d(outer))
        return Residual(body, skip, nn.ReLU())

    def as_frame(self) -> StGcn:
        """With kernels of one frame."""
        return StGcn(1, self.classes, self.persons, self.joints, 1, strided=False)

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Joints that wander, [batch, length, 3, persons, joints], the same every time."""
        generator = torch.Generator().manual_seed(0)
        shape = (batch, length, self.channels, self.persons, self.joints)
        return (0.1 * torch.randn(*shape, generator=generator).cumsum(1)).to(next(self.parameters()))


def stgcn(
    *, frames: PositiveInt = 300, classes: PositiveInt = 60, persons: PositiveInt = 2, strided: bool = True,
    joints: PositiveInt = 25, kernel: PositiveInt = 9,
) -> StGcn:  # fmt: skip
    """The network in evaluation mode with random weights.

    Args:
        frames: of a clip.
        classes: logits.
        persons: skeletons.
        strided: whether the fifth and the eighth layer halve time, as in the original; without is the star form.
        joints: of a skeleton.
        kernel: frames of a temporal convolution, odd.

    Raises:
        ValueError: an even kernel.
    """
    if kernel % 2 == 0:
        raise ValueError(f"kernel={kernel}: an odd number of frames is wanted")
    return StGcn(frames, classes, persons, joints, kernel, strided=strided).eval()


def co_stgcn(
    model: nn.Module, *, ring: Literal["pointer", "mirror", "roll", "cat"] = "pointer", pool: Count = 0,
    strides: Literal["keep", "drop"] = "keep",
) -> Co3d:  # fmt: skip
    """The skeleton network as a stream, with its weights: strides are kept, answers come when the last layer does.

    Args:
        model: an ST-GCN.
        ring: how kept slices move.
        pool: steps of the running mean; 0: as many as the clip network's mean has positions.
        strides: kept, or dropped: the star form, which answers at every step.

    Raises:
        ValueError: the model is no ST-GCN.
    """
    if not isinstance(model, StGcn):
        raise ValueError(f"co_stgcn makes a stream of an ST-GCN, and {type(model).__name__} is none")
    return co3d(model, ring=ring, pool=pool, strides=strides)
