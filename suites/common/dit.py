"""A diffusion transformer with adaptive layer norm, after Peebles and Xie 2023 (DiT, section 3.2, adaLN-Zero).

Positions are sines and cosines of coordinates in 0..1, so that one network knows every resolution it was trained at.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.rectified_flow import FlowModel, time_features

__all__ = ["Dit", "dit", "load_checkpoint"]

FREQUENCIES = 256
#: Spread of a class at the start: about that of the embedded time, so that few batches are enough to hear it.
CLASS_SPREAD = 0.3


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attended features, [batch, tokens, width]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and MLP, each scaled, shifted and gated by the condition; the gates start at zero."""

    def __init__(self, width: int, heads: int, ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        hidden = int(ratio * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Features of the same shape; `condition` [batch, width]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulated(self.norm1(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulated(self.norm2(x), shift2, scale2))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """X (1 + scale) + shift, the same for all tokens."""
    return x * (1 + scale[:, None]) + shift[:, None]


class Dit(FlowModel):
    """Patches in, velocities out; the condition is the time and the class."""

    shifted_times = True

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        depth: int,
        patch: int,
        resolution: int,
        channels: int,
        classes: int,
        ratio: float,
        variances: bool = False,
        stored_positions: bool = False,
    ):
        super().__init__()
        self.width, self.patch, self.ratio, self.variances = width, patch, ratio, variances
        self.resolution, self.channels, self.classes = resolution, channels, classes
        self.patch_embed = nn.Conv2d(channels, width, patch, patch)
        self.time_embed = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.class_embed = nn.Embedding(classes + 1, width)
        self.blocks: Any = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, patch * patch * channels * (2 if variances else 1))
        self.pos_embed = None
        if stored_positions:
            self.pos_embed = nn.Parameter(positions(resolution // patch, width, self.head.weight), requires_grad=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.class_embed.weight, std=CLASS_SPREAD)
        told: list[Any] = [module.modulation for module in [self, *self.blocks]]
        for linear in [self.head, *(layers[1] for layers in told)]:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def velocity(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """Velocities [batch, channels, side, side]; any side that the patch divides."""
        side = x.shape[-1] // self.patch
        condition = self.condition(t, classes)
        return self.unpatched(self.last(self.through(self.embedded(x), condition), condition), side)

    def through(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens after the blocks, [batch, tokens, width]; blocks that are run in their own way say so by `run`."""
        if hasattr(self.blocks, "run"):
            return self.blocks.run(tokens, condition)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return tokens

    def embedded(self, x: Tensor) -> Tensor:
        """Tokens that know their places, [batch, tokens, width]."""
        side = x.shape[-1] // self.patch
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        stored = self.pos_embed is not None and self.pos_embed.shape[1] == tokens.shape[1]
        return tokens + (self.pos_embed if stored else positions(side, self.width, tokens))

    def evaluation_macs(self, side: int) -> int:
        """L (4 + 2 ratio) N C^2 + 2 N^2 C + 6 C^2 a block, and what precedes and follows the blocks."""
        n, c = (side // self.patch) ** 2, self.width
        return len(self.blocks) * block_macs(n, c, self.ratio) + self.ends_macs(n)

    def ends_macs(self, n: int) -> int:
        """MACs of n tokens outside the blocks: patches in and out, time, the last modulation."""
        c, pixels = self.width, self.patch**2 * self.channels
        return n * pixels * c * (3 if self.variances else 2) + 2 * c**2 + FREQUENCIES * c + c**2

    def condition(self, t: Tensor, classes: Tensor) -> Tensor:
        """What the blocks are told, [batch, width]."""
        return self.time_embed(time_features(t, FREQUENCIES)) + self.class_embed(classes)

    def last(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Pixels of every token, [batch, tokens, patch^2 x channels]; variances are told and left out."""
        shift, scale = self.modulation(condition).chunk(2, dim=1)
        return self.head(modulated(self.norm(tokens), shift, scale))[..., : self.patch**2 * self.channels]

    def unpatched(self, pixels: Tensor, side: int) -> Tensor:
        """Tokens put back in their places, [batch, channels, side x patch, side x patch]."""
        grid = pixels.reshape(len(pixels), side, side, self.patch, self.patch, self.channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(pixels), self.channels, side * self.patch, side * self.patch)


def block_macs(n: int, c: int, ratio: float = 4.0) -> int:
    """MACs of a block of n tokens of width c: linear layers, attention products, modulation."""
    hidden = int(ratio * c)
    return 4 * n * c**2 + 2 * n * c * hidden + 2 * n**2 * c + 6 * c**2


def positions(side: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of row and column centres in 0..1, [1, side^2, width]."""
    centre = (torch.arange(side, device=like.device, dtype=torch.float32) + 0.5) / side
    angles = centre[:, None] * (math.pi * 2.0 ** torch.linspace(0, 4, width // 4, device=like.device))
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = line[:, None].expand(side, side, -1)
    columns = line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(1, side * side, width).to(like.dtype)


def dit(
    *,
    width: PositiveInt = 64,
    heads: PositiveInt = 4,
    depth: PositiveInt = 6,
    patch: PositiveInt = 2,
    resolution: PositiveInt = 16,
    channels: PositiveInt = 1,
    classes: PositiveInt = 10,
    mlp_ratio: Positive = 4.0,
    variances: bool = False,
    stored_positions: bool = False,
) -> Dit:
    """A diffusion transformer in evaluation mode with random weights.

    Args:
        width: features per token; a multiple of 4 and of `heads`.
        heads: attention heads per block.
        depth: number of blocks.
        patch: side of a patch in pixels; divides `resolution`.
        resolution: side of the square picture in pixels.
        channels: of the picture.
        classes: that pictures may be asked for, beside the empty one.
        mlp_ratio: hidden width of the MLP over `width`.
        variances: the head also tells a variance for every pixel, as the released networks do; nothing reads it.
        stored_positions: positions are stored beside the weights, as the released networks have them.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % heads or width % 4:
        raise ValueError(f"width={width} must be a multiple of 4 and of heads={heads}")
    if resolution % patch:
        raise ValueError(f"resolution={resolution} is not a multiple of patch={patch}")
    return Dit(
        width=width,
        heads=heads,
        depth=depth,
        patch=patch,
        resolution=resolution,
        channels=channels,
        classes=classes,
        ratio=mlp_ratio,
        variances=variances,
        stored_positions=stored_positions,
    ).eval()
