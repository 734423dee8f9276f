"""Blocks of the restoration network by what mixes their tokens, on maps [batch, height, width, C].

`scan` is Serpent's block (arXiv:2403.17902), `long` the same block with long convolutions along the scans' paths; the
others are plain blocks of their kind: depthwise convolution, attention in windows (Swin), over all tokens, and between
channels (Restormer, arXiv:2111.09881, section 3.1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.conv_blocks import Residual, depthwise
from suites.ssm.long import PathConvolution
from suites.ssm.orders import CROSS, Orders
from suites.ssm.ss2d import Ss2d

STATE = 16
#: Side of a window, channels of a head, and the hidden width of an MLP over its width.
WINDOW, HEAD, EXPAND = 8, 16, 2


def heads_of(channels: int) -> int:
    """The most heads of `HEAD` channels or more into which the channels divide; one where there are fewer."""
    return next(count for count in range(max(1, channels // HEAD), 0, -1) if channels % count == 0)


class _Depthwise(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = depthwise(channels, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _Attention(nn.Module):
    """Attention over all tokens, or inside windows; maps smaller than a window are one window."""

    def __init__(self, channels: int, windows: bool):
        super().__init__()
        self.heads, self.windows = heads_of(channels), windows
        self.qkv = nn.Linear(channels, 3 * channels)
        self.leave = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width, channels = x.shape[1:]
        high, wide = (min(WINDOW, height), min(WINDOW, width)) if self.windows else (height, width)
        x = F.pad(x, (0, 0, 0, -width % wide, 0, -height % high))
        grid = (x.shape[0], x.shape[1] // high, high, x.shape[2] // wide, wide, channels)
        tokens = x.reshape(grid).transpose(2, 3).reshape(-1, high * wide, channels)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.leave(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = y.reshape(grid[0], grid[1], grid[3], high, wide, channels).transpose(2, 3).reshape(x.shape)
        return y[:, :height, :width]


class _ChannelAttention(nn.Module):
    """A map between the channels of each head, [C / heads, C / heads], over all pixels: linear in pixels."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = heads_of(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.local = depthwise(3 * channels, 3, bias=False)
        self.temperature = nn.Parameter(torch.ones(self.heads, 1, 1))
        self.leave = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        mixed = self.local(self.qkv(x).permute(0, 3, 1, 2)).flatten(2)
        q, k, v = mixed.unflatten(1, (3, self.heads, -1)).unbind(1)
        share = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature).softmax(-1)
        y = (share @ v).flatten(1, 2).unflatten(2, (height, width))
        return self.leave(y.permute(0, 2, 3, 1))


class _Mlp(nn.Sequential):
    def __init__(self, channels: int):
        hidden = EXPAND * channels
        super().__init__(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))


def mixer_block(kind: str, channels: int, form: str = "parallel", raster4: bool = False) -> nn.Module:
    """A residual block of a kind; all but `scan` and `long` have an MLP of twice the width beside the mixer."""
    if kind in ("scan", "long"):
        orders = Orders(CROSS, 1, raster4)
        along = PathConvolution(2 * channels, orders) if kind == "long" else None
        mixed: nn.Module = Ss2d(channels, STATE, orders, form, along)
        return Residual(nn.Sequential(nn.LayerNorm(channels), mixed))
    if kind == "conv":
        mixed = _Depthwise(channels)
    elif kind == "mdta":
        mixed = _ChannelAttention(channels)
    else:
        mixed = _Attention(channels, windows=kind == "window")
    return nn.Sequential(
        Residual(nn.Sequential(nn.LayerNorm(channels), mixed)),
        Residual(nn.Sequential(nn.LayerNorm(channels), _Mlp(channels))),
    )


def matched_count(kind: str, channels: int, scans: int) -> int:
    """How many blocks of a kind have the parameters of so many scan blocks, to the nearest; one at least."""
    if kind == "scan":
        return scans
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in mixer_block(name, channels).parameters()) for name in ("scan", kind)]
    return max(1, round(scans * sizes[0] / sizes[1]))
