"""SLAB-Swin: Swin with linear attention over the whole map in the first two stages (Guo et al. 2024, arXiv 2405.11582).

Swin's pyramid (Liu et al. 2021, arXiv 2103.14030): patches of 4, stages of C, 2 C, 4 C, 8 C, between them 2 x 2
neighbours merged by a norm and a linear map 4 C -> 2 C without bias, windows of 7 with a relative bias table of (2 w -
1)^2 per head, every second block shifted by half a window. Here the first two stages attend linearly with a window as
large as the map (slab.py), the last two stay softmax windows; all norms are RepBN and melt into the linear maps beside
them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Counts, PositiveInt
from suites.attention.image_network import ImageNetwork
from suites.attention.slab import Block, LinearAttention, ProgressiveNorm, check_foldable, linear_attention_macs, melt
from suites.common.initial import draw

#: Stages that attend linearly.
LINEAR_STAGES = 2


class WindowAttention(nn.Module):
    """Softmax attention inside square windows of a grid, shifted or not, with a relative bias."""

    index: Tensor
    mask: Tensor

    def __init__(self, width: int, heads: int, side: int, window: int, shifted: bool):
        super().__init__()
        self.heads, self.side, self.window = heads, side, min(window, side)
        self.shift = self.window // 2 if shifted and self.window < side else 0
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros((2 * self.window - 1) ** 2, heads))
        draw(self.bias)
        with torch.device("cpu"):
            index, mask = offsets_in_window(self.window), apart(side, self.window, self.shift)
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attended features, [batch, tokens, width]."""
        windows = self._cut(x)
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        bias = self.bias[self.index].permute(2, 0, 1).to(q.dtype)
        seen = bias + self.mask[:, None].to(q.dtype) if self.shift else bias[None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen.expand(q.shape[1], -1, -1, -1)[None])
        return self._joined(self.proj(out.transpose(2, 3).flatten(3)))

    def _cut(self, x: Tensor) -> Tensor:
        """[batch, windows, tokens of one, width]."""
        w, grid = self.window, x.unflatten(1, (self.side, self.side))
        if self.shift:
            grid = grid.roll((-self.shift, -self.shift), (1, 2))
        cells = grid.unflatten(2, (-1, w)).unflatten(1, (-1, w))
        return cells.transpose(2, 3).flatten(1, 2).flatten(2, 3)

    def _joined(self, windows: Tensor) -> Tensor:
        w, count = self.window, self.side // self.window
        cells = windows.unflatten(2, (w, w)).unflatten(1, (count, count)).transpose(2, 3)
        grid = cells.flatten(3, 4).flatten(1, 2)
        if self.shift:
            grid = grid.roll((self.shift, self.shift), (1, 2))
        return grid.flatten(1, 2)


def offsets_in_window(window: int) -> Tensor:
    """Place of the offset from query to key in the table, [w^2, w^2]."""
    place = torch.arange(window**2)
    rows, columns = torch.div(place, window, rounding_mode="floor"), place % window
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def apart(side: int, window: int, shift: int) -> Tensor:
    """0 for pairs of a shifted window that were neighbours before the roll, -inf for those that it brought together."""
    line = torch.zeros(side, dtype=torch.long)
    if shift:
        line[side - window : side - shift] = 1
        line[side - shift :] = 2
    zone = line[:, None] * 3 + line[None, :]
    cells = zone.unflatten(1, (-1, window)).unflatten(0, (-1, window)).transpose(1, 2).flatten(0, 1).flatten(1)
    return torch.where(cells[:, :, None] == cells[:, None, :], 0.0, -torch.inf)


class Merge(nn.Module):
    """Four neighbours side by side, a norm, and a linear map to half of it."""

    def __init__(self, width: int, side: int, norm: nn.Module):
        super().__init__()
        self.side, self.norm = side, norm
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Half the side, twice the width."""
        grid = x.unflatten(1, (self.side, self.side))
        parts = [grid[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, dim=-1).flatten(1, 2)))


class SlabSwin(ImageNetwork):
    """The pyramid."""

    def __init__(
        self, width: int, depths: list[int], heads: list[int], window: int, variant: str, steps: int, resolution: int,
        classes: int, channels: int,
    ):  # fmt: skip
        super().__init__(resolution, channels, classes)
        progressive, linear = variant in ("slab", "prepbn"), variant in ("slab", "sla")

        def norm(size: int) -> nn.Module:
            return ProgressiveNorm(size, steps) if progressive else nn.LayerNorm(size)

        side = resolution // 4
        self.patch_embed = nn.Conv2d(channels, width, 4, 4)
        self.patch_norm = norm(width)
        stages: list[nn.Module] = []
        for number, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            if number:
                stages.append(Merge(width, side, norm(4 * width)))
                width, side = 2 * width, side // 2
            for place in range(depth):
                attention: nn.Module = (
                    LinearAttention(width, count, side)
                    if linear and number < LINEAR_STAGES
                    else WindowAttention(width, count, side, window, shifted=place % 2 == 1)
                )
                stages.append(Block(width, (norm(width), norm(width)), attention))
        self.stages = nn.Sequential(*stages)
        self.norm = norm(width)
        self.head = nn.Linear(width, classes)
        self.draw_linear_maps()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = self.patch_norm(self.patch_embed(images).flatten(2).transpose(1, 2))
        return self.head(self.norm(self.stages(x)).mean(dim=1))


def slab_swin(
    *, width: PositiveInt = 96, depths: Counts | None = None, heads: Counts | None = None, window: PositiveInt = 7,
    variant: Literal["slab", "prepbn", "sla", "plain"] = "slab", folded: bool = False, lambda_steps: Count = 300_000,
    resolution: PositiveInt = 224, classes: PositiveInt = 1000, channels: PositiveInt = 3,
) -> SlabSwin:  # fmt: skip
    """SLAB-Swin in evaluation mode with random weights; the defaults are its tiny size.

    Args:
        width: C of the first stage.
        depths: blocks per stage; None for 2, 2, 6, 2.
        heads: heads per stage; None for 3, 6, 12, 24.
        window: side of a softmax window, a divisor of every grid that it is used on.
        variant: slab is norm and attention, prepbn the norm only, sla the attention only, plain neither (Swin).
        folded: melts the norms into the linear maps beside them.
        lambda_steps: training forwards over which lambda falls from 1 to 0.
        resolution: side of the image, a multiple of 32.
        classes: logits.
        channels: colour channels.

    Raises:
        ValueError: sizes that do not fit, or nothing to fold.
    """
    plan, counts = list(depths or (2, 2, 6, 2)), list(heads or (3, 6, 12, 24))
    if len(plan) != 4 or len(counts) != 4 or any(width * 2**i % h for i, h in enumerate(counts)):
        raise ValueError(f"depths and heads need four stages whose heads divide {width}, {2 * width}, ...")
    first = LINEAR_STAGES if variant in ("slab", "sla") else 0
    grids = [resolution // (4 * 2**i) for i in range(first, 4)]
    if resolution % 32 or any(side > window and side % window for side in grids):
        raise ValueError(f"window={window} does not divide the grids {grids} of resolution={resolution}")
    model = SlabSwin(width, plan, counts, window, variant, lambda_steps, resolution, classes, channels).eval()
    return folded_swin(model) if folded else model


def folded_swin(model: SlabSwin) -> SlabSwin:
    """The model with every progressive norm melted into a linear map; the same function in evaluation.

    Raises:
        ValueError: the model is in training mode, or has no norm that can be folded.
    """
    check_foldable(model, model.norm, model.patch_norm)
    with torch.no_grad():
        _melt_into_patches(model.patch_norm, model.patch_embed)
        for part in model.stages:
            if isinstance(part, Merge):
                part.reduction.bias = nn.Parameter(part.reduction.weight.new_zeros(part.reduction.out_features))
                melt(part.norm, part.reduction)
                part.norm = nn.Identity()
                continue
            assert isinstance(part, Block)
            melt(part.norm1, part.attn.qkv)  # type: ignore[arg-type]
            melt(part.norm2, part.fc1)
            part.norm1 = part.norm2 = nn.Identity()
        melt(model.norm, model.head)
    model.norm = model.patch_norm = nn.Identity()
    return model


def _melt_into_patches(norm: nn.Module, conv: nn.Conv2d) -> None:
    """The norm stands behind this map: its scale multiplies the map's outputs."""
    assert isinstance(norm, ProgressiveNorm)
    scale, shift = norm.rep.scale_and_shift()
    assert conv.bias is not None
    conv.weight.mul_(scale[:, None, None, None])
    conv.bias.copy_(conv.bias * scale + shift)


def macs(
    *,
    width: int = 96,
    depths: tuple[int, ...] = (2, 2, 6, 2),
    heads: tuple[int, ...] = (3, 6, 12, 24),
    window: int = 7,
    resolution: int = 224,
    classes: int = 1000,
    channels: int = 3,
    linear: bool = True,
) -> int:
    """Products of one image with folded norms."""
    side, total = resolution // 4, (resolution // 4) ** 2 * 16 * channels * width
    for number, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        if number:
            total += (side // 2) ** 2 * 8 * width**2
            width, side = 2 * width, side // 2
        tokens = side**2
        square = 2 * tokens * min(window, side) ** 2 * width
        attention = linear_attention_macs(tokens, width, count) if linear and number < LINEAR_STAGES else square
        total += depth * (tokens * 12 * width**2 + attention)
    return total + classes * width
