"""STU-Net: a residual U-Net for volumes, scaled in depth and width together (Huang et al. 2023, arXiv 2304.06716).

Block: convolution 3^3, instance norm, leaky ReLU 0.01, convolution, norm; a 1 x 1 convolution as shortcut wherever
width or stride changes and in the first block of every stage; sum, leaky ReLU. Six stages, stride 2 between them.
Decoder: nearest x 2, 1 x 1 to the next width, joined with the encoder's map, blocks. A 1 x 1 head at each of five
decoder stages: all run in training, the last alone is needed afterwards. Every convolution has a bias.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt
from suites.common.checkpoint import load_checkpoint

__all__ = ["StuNet", "load_checkpoint", "stunet"]

SLOPE = 0.01
#: Widths of the six stages and blocks of a stage, by size.
SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    "S": ((16, 32, 64, 128, 256, 256), 1), "B": ((32, 64, 128, 256, 512, 512), 1),
    "L": ((64, 128, 256, 512, 1024, 1024), 2),
    "H": ((96, 192, 384, 768, 1536, 1536), 3),
}  # fmt: skip


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is a 1 x 1 convolution where `line` says so."""

    def __init__(self, inner: int, outer: int, stride: int, *, line: bool):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(inner, outer, 3, stride, 1), nn.Conv3d(outer, outer, 3, 1, 1)
        self.norm1, self.norm2 = (nn.InstanceNorm3d(outer, affine=True) for _ in range(2))
        self.shortcut = nn.Conv3d(inner, outer, 1, stride) if line else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the outer width."""
        y = F.leaky_relu(self.norm1(self.conv1(x)), SLOPE)
        return F.leaky_relu(self.norm2(self.conv2(y)) + self.shortcut(x), SLOPE)


class Up(nn.Module):
    """Nearest x 2 and a 1 x 1 convolution in either order: they commute, and the convolution first takes an eighth."""

    def __init__(self, inner: int, outer: int, order: str):
        super().__init__()
        self.conv, self.order = nn.Conv3d(inner, outer, 1), order

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the outer width and twice the side."""
        if self.order == "conv_first":
            return F.interpolate(self.conv(x), scale_factor=2.0)
        return self.conv(F.interpolate(x, scale_factor=2.0))


class StuNet(nn.Module):
    """The network on volumes [batch, channels, side, side, side]."""

    def __init__(self, widths: list[int], depth: int, channels: int, classes: int, side: int, heads: str, up: str):
        super().__init__()
        self.side, self.channels, self.heads, self.classes = side, channels, heads, classes
        inners = [channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            _stage(inner, outer, 1 if i == 0 else 2, depth)
            for i, (inner, outer) in enumerate(zip(inners, widths, strict=True))
        )
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.ups = nn.ModuleList(Up(inner, outer, up) for inner, outer in pairs)
        self.decoder = nn.ModuleList(_stage(2 * outer, outer, 1, depth) for _, outer in pairs)
        self.outputs = nn.ModuleList(nn.Conv3d(outer, classes, 1) for _, outer in pairs)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random volumes."""
        like = self.outputs[0].weight
        assert isinstance(like, Tensor)
        return (torch.randn(batch, self.channels, self.side, self.side, self.side).to(like),)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits [batch, classes, side, side, side]; with all heads those of every decoder stage, the finest first."""
        seen = []
        for stage in self.encoder:
            x = stage(x)
            seen.append(x)
        found, last = [], len(self.ups) - 1
        for i, (up, blocks, head) in enumerate(zip(self.ups, self.decoder, self.outputs, strict=True)):
            x = blocks(torch.cat([up(x), seen[-2 - i]], 1))
            if self.heads == "all" or i == last:
                found.append(head(x))
        return found[::-1] if self.heads == "all" else found[0]

    def loss(self, outputs: Tensor | list[Tensor], targets: Tensor) -> Tensor:
        """Cross-entropy of the finest head, and of every coarser one at half the weight of the one before it."""
        listed = outputs if isinstance(outputs, list) else [outputs]
        total = listed[0].new_zeros(())
        for i, logits in enumerate(listed):
            small = targets if i == 0 else F.interpolate(targets[:, None].float(), size=logits.shape[2:])[:, 0].long()
            total = total + F.cross_entropy(logits, small) / 2**i
        return total / sum(0.5**i for i in range(len(listed)))

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Random classes of every voxel."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.classes, (batch, *[self.side] * 3), generator=generator)


def _stage(inner: int, outer: int, stride: int, depth: int) -> nn.Sequential:
    first = ResidualBlock(inner, outer, stride, line=True)
    return nn.Sequential(first, *(ResidualBlock(outer, outer, 1, line=False) for _ in range(depth - 1)))


def stunet(
    *,
    size: Literal["S", "B", "L", "H", "own"] = "S",
    widths: Blocks = [8, 16, 32, 64],  # noqa: B006  read from the source by the planner, never changed
    depth: PositiveInt = 1,
    channels: PositiveInt = 1,
    classes: PositiveInt = 105,
    side: PositiveInt = 64,
    heads: Literal["all", "last"] = "last",
    up: Literal["nearest_first", "conv_first"] = "nearest_first",
) -> StuNet:
    """STU-Net in evaluation mode with random weights.

    Args:
        size: of the paper, or own for the widths and depth below.
        widths: of the stages, of size own.
        depth: blocks of a stage, of size own.
        channels: of the volume.
        classes: logits of a voxel.
        side: of the volume, a multiple of 2^(stages - 1).
        heads: all, as in training, or the last alone.
        up: whether volumes grow before the 1 x 1 convolution, as released, or after it, which gives the same.

    Raises:
        ValueError: a side that cannot be halved so often or leaves a single voxel, or a single stage.
    """
    stages, blocks = (tuple(widths), depth) if size == "own" else SIZES[size]
    if len(stages) < 2:
        raise ValueError(f"widths={list(stages)}: a U has two stages or more")
    if side % 2 ** (len(stages) - 1):
        raise ValueError(
            f"side={side} cannot be halved {len(stages) - 1} times: take a multiple of {2 ** (len(stages) - 1)}"
        )
    if side < 2 ** len(stages):
        raise ValueError(
            f"side={side} leaves one voxel in the last of {len(stages)} stages, and an instance norm needs several: "
            f"take side={2 ** len(stages)} or more, or fewer stages (size='own')"
        )
    return StuNet(list(stages), blocks, channels, classes, side, heads, up).eval()
