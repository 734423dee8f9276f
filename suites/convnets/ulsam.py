"""ULSAM: one attention map for each subspace of channels, in place of whole bottlenecks.

Source: Saini et al. 2020, ULSAM, arXiv:2006.15102, section 3. Which bottlenecks of MobileNetV2 are replaced is ours:
13 and 16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Blocks, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.feature_operator import FeatureOperator
from suites.common.timm_bridge import import_timm


class SubspaceAttention(nn.Module):
    """For each group of G channels x + x * softmax(map) over all positions.

    5 G + 3 parameters and 2 G MACs a pixel a group.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        if channels % groups:
            raise UsageError(f"ulsam: {channels} channels cannot be cut into {groups} groups")
        self.groups = groups
        # every group has layers of its own; as grouped convolutions they run at once
        self.scale = nn.Sequential(
            nn.Conv2d(channels, channels, 1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, 1, 1),
        )
        self.map = nn.Sequential(nn.Conv2d(channels, groups, 1, groups=groups), nn.BatchNorm2d(groups), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        maps = self.map(self.scale(x))
        shares = maps.flatten(2).softmax(dim=-1).view_as(maps)
        each = x.unflatten(1, (self.groups, -1))
        return (each + each * shares.unsqueeze(2)).flatten(1, 2)


def mobilenetv2_ulsam(
    *, width: PositiveInt = 100, groups: PositiveInt = 4, at_blocks: Blocks = [13, 16],  # noqa: B006
    resolution: PositiveInt = 224,
) -> nn.Module:  # fmt: skip
    """A MobileNetV2 of timm with subspace attention in place of some of its 17 bottlenecks.

    Args:
        width: of the MobileNetV2 in percent, one that timm has: 35, 50, 75, 100 or 140.
        groups: subspaces, a divisor of the replaced bottlenecks' channels.
        at_blocks: which are replaced, counted from 1.
        resolution: side of the input.

    Raises:
        UsageError: timm is missing or has no such width, or a bottleneck changes the shape and cannot be replaced.
    """
    timm = import_timm()
    name = f"mobilenetv2_{width:03d}"
    if not timm.is_model(name):
        raise UsageError(f"ulsam: timm has no {name}; widths are 35, 50, 75, 100 and 140")
    network = timm.create_model(name)
    places = [(stage, number) for stage in network.blocks for number in range(len(stage))]
    for number in at_blocks:
        if number > len(places):
            raise UsageError(f"ulsam: at_blocks={at_blocks}: there are {len(places)} bottlenecks")
        stage, inside = places[number - 1]
        if not getattr(stage[inside], "has_skip", False):
            raise UsageError(f"ulsam: bottleneck {number} changes the shape of its map and cannot be replaced")
        stage[inside] = SubspaceAttention(stage[inside].conv_pwl.out_channels, groups)
    return at(network, resolution)


def subspace_attention(
    *, width: PositiveInt = 96, groups: PositiveInt = 4, resolution: PositiveInt = 14
) -> FeatureOperator:
    """The bare block as an operator on [batch, width, resolution, resolution], beside a loop over groups."""
    size = (width, resolution, resolution)
    return FeatureOperator(SubspaceAttention(width, groups), size, reference=_group_by_group)


def _group_by_group(block: nn.Module, x: Tensor) -> Tensor:
    """The block one subspace at a time."""
    assert isinstance(block, SubspaceAttention)
    conv: Any = block.scale[0]
    norm: Any = block.scale[1]
    point: Any = block.map[0]
    norm_of_map: Any = block.map[1]
    done = []
    for number, part in enumerate(x.chunk(block.groups, dim=1)):
        size = part.shape[1]
        own = slice(number * size, (number + 1) * size)
        y = part * conv.weight[own].view(1, -1, 1, 1) + conv.bias[own].view(1, -1, 1, 1)
        y = F.batch_norm(
            y, norm.running_mean[own], norm.running_var[own], norm.weight[own], norm.bias[own], eps=norm.eps
        )
        y = F.max_pool2d(y.relu(), 3, 1, 1)
        score = (y * point.weight[number].view(1, -1, 1, 1)).sum(1, keepdim=True) + point.bias[number]
        one = slice(number, number + 1)
        statistics = norm_of_map.running_mean[one], norm_of_map.running_var[one]
        score = F.batch_norm(
            score, *statistics, norm_of_map.weight[one], norm_of_map.bias[one], eps=norm_of_map.eps
        ).relu()
        share = torch.softmax(score.flatten(1), dim=-1).view_as(score)
        done.append(part + part * share)
    return torch.cat(done, dim=1)
