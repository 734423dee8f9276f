"""A small U-Net with time, skips and cross-attention to a class word, laid out as in latent diffusion.

After Rombach et al. 2022 ("High-Resolution Image Synthesis with Latent Diffusion Models", appendix E): residual blocks
that are told the time, transformer blocks of self-attention, cross-attention and a gated MLP at the lower resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.rectified_flow import FlowModel, time_features

__all__ = ["Unet", "load_checkpoint", "unet"]

GROUPS = 8


class ResBlock(nn.Module):
    """Two normalised convolutions beside a shortcut; the time is added between them."""

    def __init__(self, inner: int, outer: int, told: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.time = nn.Linear(told, outer)
        self.norm2 = nn.GroupNorm(GROUPS, outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.shortcut = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Maps of `outer` channels; `told` [batch, features] of the time."""
        inside = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(told))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(inside)))


class Attention(nn.Module):
    """Attention of tokens to a context, which is the tokens themselves where none is given."""

    def __init__(self, width: int, context: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context, width, bias=False)
        self.value = nn.Linear(context, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attended features, [batch, tokens, width]."""
        seen = x if context is None else context
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.query(x), self.key(seen), self.value(seen))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the class word and a gated MLP over the places of a map."""

    def __init__(self, width: int, context: int, heads: int):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.enter = nn.Conv2d(width, width, 1)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, width, heads)
        self.cross_attention = Attention(width, context, heads)
        self.gated = nn.Linear(width, 8 * width)
        self.down = nn.Linear(4 * width, width)
        self.leave = nn.Conv2d(width, width, 1)

    def forward(self, maps: Tensor, context: Tensor) -> Tensor:
        """Maps of the same shape; `context` [batch, words, features]."""
        x = self.enter(self.norm(maps)).flatten(2).transpose(1, 2)
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), context)
        value, gate = self.gated(self.norm3(x)).chunk(2, dim=-1)
        x = x + self.down(value * F.gelu(gate))
        return maps + self.leave(x.transpose(1, 2).reshape(maps.shape))


def res_macs(n: int, inner: int, outer: int, told: int) -> int:
    """MACs of a residual block on n places."""
    return 9 * n * (inner + outer) * outer + told * outer + (n * inner * outer if inner != outer else 0)


def transformer_macs(n: int, c: int, words: int, context: int) -> int:
    """MACs of a transformer block on n places of c channels that sees so many words of `context` features."""
    return 20 * n * c**2 + 2 * n**2 * c + 2 * words * context * c + 2 * n * words * c


class Unet(FlowModel):
    """Two resolutions with one residual block on each way, a middle, and a skip between the ways."""

    def __init__(self, *, width: int, heads: int, resolution: int, channels: int, classes: int):
        super().__init__()
        self.width, self.resolution, self.channels, self.classes = width, resolution, channels, classes
        deep, told = 2 * width, 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, told), nn.SiLU(), nn.Linear(told, told))
        self.class_embed = nn.Embedding(classes + 1, width)
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.down1 = ResBlock(width, width, told)
        self.halve = nn.Conv2d(width, width, 3, 2, 1)
        self.down2 = ResBlock(width, deep, told)
        self.down2_attention = TransformerBlock(deep, width, heads)
        self.middle1 = ResBlock(deep, deep, told)
        self.middle_attention = TransformerBlock(deep, width, heads)
        self.middle2 = ResBlock(deep, deep, told)
        self.up2 = ResBlock(2 * deep, deep, told)
        self.up2_attention = TransformerBlock(deep, width, heads)
        self.enlarge = nn.Conv2d(deep, deep, 3, padding=1)
        self.up1 = ResBlock(deep + width, width, told)
        self.norm = nn.GroupNorm(GROUPS, width)
        self.leave = nn.Conv2d(width, channels, 3, padding=1)

    def words(self, classes: Tensor) -> Tensor:
        """What cross-attention looks at, [batch, words, width]: one word, the class."""
        return self.class_embed(classes)[:, None]

    def evaluation_macs(self, side: int) -> int:
        """Convolutions, residual and transformer blocks at two resolutions, and the time once."""
        fine, coarse, mc, deep = side**2, (side // 2) ** 2, self.width, 2 * self.width
        blocks = [(fine, mc, mc), (coarse, mc, deep), (coarse, deep, deep), (coarse, deep, deep)]
        blocks += [(coarse, 2 * deep, deep), (fine, deep + mc, mc)]
        around = 2 * 9 * fine * mc * self.channels + 9 * coarse * mc**2 + 9 * fine * deep**2 + 20 * mc**2
        return sum(res_macs(*each, 4 * mc) for each in blocks) + 3 * transformer_macs(coarse, deep, 1, mc) + around

    def velocity(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """Velocities [batch, channels, side, side]; any even side."""
        told, word = self.told(t), self.words(classes)
        fine = self.beginning(x, told)
        return self.ending(self.deep(fine, told, word), fine, told)

    def told(self, t: Tensor) -> Tensor:
        """What residual blocks are told of the time, [batch, 4 x width]."""
        return self.time_embed(time_features(t, self.width))

    def beginning(self, x: Tensor, told: Tensor) -> Tensor:
        """Maps before the resolution is halved, [batch, width, side, side]: the outer skip."""
        return self.down1(self.enter(x), told)

    def deep(self, fine: Tensor, told: Tensor, word: Tensor) -> Tensor:
        """What the last block upwards is given beside the skip, [batch, 2 x width, side, side]."""
        coarse = self.down2_attention(self.down2(self.halve(fine), told), word)
        middle = self.middle1(coarse, told)
        middle = self.middle2(self.middle_attention(middle, word), told)
        up = self.up2_attention(self.up2(torch.cat([middle, coarse], dim=1), told), word)
        return self.enlarge(F.interpolate(up, scale_factor=2.0, mode="nearest"))

    def ending(self, up: Tensor, fine: Tensor, told: Tensor) -> Tensor:
        """Velocities of what came from below and of the skip."""
        return self.leave(F.silu(self.norm(self.up1(torch.cat([up, fine], dim=1), told))))

    def shallow_macs(self, side: int) -> int:
        """MACs of one evaluation without `deep`."""
        fine, mc = side**2, self.width
        outer = res_macs(fine, mc, mc, 4 * mc) + res_macs(fine, 3 * mc, mc, 4 * mc)
        return outer + 2 * 9 * fine * mc * self.channels + 20 * mc**2


def unet(
    *,
    width: PositiveInt = 32,
    heads: PositiveInt = 4,
    resolution: PositiveInt = 16,
    channels: PositiveInt = 1,
    classes: PositiveInt = 10,
) -> Unet:
    """A U-Net in evaluation mode with random weights.

    Args:
        width: channels at full resolution (twice that at half of it); a multiple of 8 and of `heads`.
        heads: of every attention.
        resolution: side of the square picture in pixels, even.
        channels: of the picture.
        classes: that pictures may be asked for, beside the empty one.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % GROUPS or width % heads:
        raise ValueError(f"width={width} must be a multiple of {GROUPS} and of heads={heads}")
    if resolution % 2:
        raise ValueError(f"resolution={resolution} is not even, and the network halves its picture once")
    return Unet(width=width, heads=heads, resolution=resolution, channels=channels, classes=classes).eval()
