"""NAT and DiNAT: a pyramid of neighborhood attention (Hassani et al. 2023, arXiv 2204.07143; Hassani and Shi 2022,
arXiv 2209.15001).

Two 3 x 3 convolutions of stride two, 3 -> C/2 -> C, and a LayerNorm; four stages; between them a 3 x 3 convolution of
stride two without bias and a LayerNorm; blocks LN - attention - LN - MLP with a relative bias table of (2 k - 1)^2 per
head; mean pooling. Mini, Tiny: C 64, MLP x3; Small and Base: MLP x2 and LayerScale (recalled). DiNAT alternates
dilation 1 with the largest that fits the stage, side // k; parameters and products are the same. The bias makes it
another function than the fused kernels, which have none: `relative=False` is what those compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Counts, PositiveInt
from suites.attention.image_network import ImageNetwork
from suites.attention.neighborhood import grid_neighbors
from suites.common.initial import draw


@dataclass(frozen=True)
class Size:
    """Width of the first stage, depths, width of a head, MLP ratio, LayerScale or none."""

    width: int
    depths: tuple[int, int, int, int]
    ratio: float
    scale: float | None = None
    head: int = 32


SIZES = {
    "mini": Size(64, (3, 4, 6, 5), 3.0),
    "tiny": Size(64, (3, 4, 18, 5), 3.0),
    "small": Size(96, (3, 4, 18, 5), 2.0, 1e-5),
    "base": Size(128, (3, 4, 18, 5), 2.0, 1e-5),
}


class NeighborhoodBlockAttention(nn.Module):
    """Attention of every token to its neighbourhood on a square grid, keys and values gathered.

    Args of the constructor: width, heads, side of the grid, window, dilation, whether there is a relative bias.
    """

    index: Tensor
    offset: Tensor

    def __init__(self, width: int, heads: int, side: int, kernel: int, dilation: int = 1, relative: bool = True):
        super().__init__()
        self.heads, self.side, self.kernel, self.dilation = heads, side, kernel, dilation
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(heads, (2 * kernel - 1) ** 2)) if relative else None
        if self.bias is not None:
            draw(self.bias)
        with torch.device("cpu"):
            index, _ = grid_neighbors([side, side], [kernel, kernel], [dilation, dilation], [False, False])
            offset = window_offsets(index, side, kernel, dilation)
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attended features, [batch, tokens, width]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        keys, values = k[:, :, self.index], v[:, :, self.index]  # [batch, heads, tokens, neighbours, size]
        scores = (keys @ q[..., None])[..., 0] * q.shape[-1] ** -0.5
        if self.bias is not None:
            scores = scores + self.bias[:, self.offset]
        out = (scores.softmax(dim=-1)[..., None, :] @ values)[..., 0, :]
        return self.proj(out.transpose(1, 2).flatten(2))


def window_offsets(index: Tensor, side: int, kernel: int, dilation: int) -> Tensor:
    """Place of each neighbour's offset in a table of (2 k - 1)^2, [tokens, neighbours]; offsets in steps of the
    dilation.
    """
    place = torch.arange(side**2)[:, None]
    rows = torch.div(index, side, rounding_mode="floor") - torch.div(place, side, rounding_mode="floor")
    columns = index % side - place % side
    steps = [torch.div(part, dilation, rounding_mode="floor") + kernel - 1 for part in (rows, columns)]
    return steps[0] * (2 * kernel - 1) + steps[1]


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a LayerScale where there is one."""

    def __init__(self, width: int, attention: nn.Module, ratio: float, scale: float | None):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = attention
        hidden = int(width * ratio)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale1 = None if scale is None else nn.Parameter(torch.full((width,), scale))
        self.scale2 = None if scale is None else nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape, [batch, tokens, width]."""
        x = x + _scaled(self.attn(self.norm1(x)), self.scale1)
        return x + _scaled(self.fc2(F.gelu(self.fc1(self.norm2(x)))), self.scale2)


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale


class Down(nn.Module):
    """A 3 x 3 convolution of stride two to twice the channels, and LayerNorm, on a square grid."""

    def __init__(self, width: int, side: int):
        super().__init__()
        self.side = side
        self.conv = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)
        self.norm = nn.LayerNorm(2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Half the side, twice the width, [batch, tokens, width]."""
        images = x.transpose(1, 2).unflatten(2, (self.side, self.side))
        return self.norm(self.conv(images).flatten(2).transpose(1, 2))


class Nat(ImageNetwork):
    """The pyramid."""

    def __init__(
        self, size: Size, kernel: int, dilated: bool, relative: bool, resolution: int, classes: int, channels: int
    ):
        super().__init__(resolution, channels, classes)
        width, side = size.width, resolution // 4
        self.stem1 = nn.Conv2d(channels, width // 2, 3, 2, 1)
        self.stem2 = nn.Conv2d(width // 2, width, 3, 2, 1)
        self.stem_norm = nn.LayerNorm(width)
        stages: list[nn.Module] = []
        for number, depth in enumerate(size.depths):
            if number:
                stages.append(Down(width, side))
                width, side = 2 * width, side // 2
            for place in range(depth):
                step = side // kernel if dilated and place % 2 else 1
                attention = NeighborhoodBlockAttention(width, width // size.head, side, kernel, step, relative)
                stages.append(Block(width, attention, size.ratio, size.scale))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.draw_linear_maps()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = self.stem_norm(self.stem2(self.stem1(images)).flatten(2).transpose(1, 2))
        return self.head(self.norm(self.stages(x)).mean(dim=1))


def nat(
    *,
    size: Literal["mini", "tiny", "small", "base"] = "mini",
    kernel: PositiveInt = 7,
    dilated: bool = False,
    relative: bool = True,
    width: PositiveInt | None = None,
    depths: Counts | None = None,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
    channels: PositiveInt = 3,
) -> Nat:
    """A neighborhood attention network in evaluation mode with random weights.

    Args:
        size: mini, tiny, small or base.
        kernel: odd side of the window; no larger than the last stage's grid.
        dilated: every second block is dilated as far as its grid allows (DiNAT).
        relative: whether there is a relative bias.
        width: of the first stage instead of the size's, a multiple of 32.
        depths: per stage instead of the size's.
        resolution: side of the image, a multiple of 32.
        classes: logits.
        channels: colour channels.

    Raises:
        ValueError: sizes that do not fit.
    """
    chosen = SIZES[size]
    plan = tuple(chosen.depths if depths is None else depths)
    if len(plan) != 4:
        raise ValueError(f"depths={list(plan)}: four stages are wanted")
    if resolution % 32 or kernel % 2 == 0 or kernel > resolution // 32:
        raise ValueError(
            f"resolution={resolution} must be a multiple of 32 whose last grid, {resolution // 32}, holds an odd "
            f"window of {kernel}"
        )
    first = chosen.width if width is None else width
    if first % chosen.head:
        raise ValueError(f"width={first} is not a multiple of {chosen.head}, the width of a head")
    built = Size(first, (plan[0], plan[1], plan[2], plan[3]), chosen.ratio, chosen.scale, chosen.head)
    return Nat(built, kernel, dilated, relative, resolution, classes, channels).eval()


def macs(size: Size, kernel: int = 7, resolution: int = 224, classes: int = 1000, channels: int = 3) -> tuple[int, int]:
    """Products of one image, and of them those of queries with keys and weights with values: 2 N k^2 C a block."""
    width, side, total, attention = size.width, resolution // 4, 0, 0
    total += (resolution // 2) ** 2 * 9 * channels * (width // 2) + side**2 * 9 * (width // 2) * width
    for number, depth in enumerate(size.depths):
        if number:
            total += (side // 2) ** 2 * 9 * width * 2 * width
            width, side = 2 * width, side // 2
        pairs = 2 * side**2 * kernel**2 * width
        attention += depth * pairs
        total += depth * (side**2 * (4 * width**2 + 2 * width * int(width * size.ratio)) + pairs)
    return total + classes * width, attention
