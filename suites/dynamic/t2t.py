"""T2T-ViT with performer tokens, the frozen networks of JEI-DNN (Yuan et al. 2021, arXiv 2101.11986).

Three soft splits (overlapping patches unfolded) with two linear-attention layers between them give 196 tokens; a plain
ViT with fixed sine positions follows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.vit import ViT, vit

__all__ = ["load_checkpoint", "t2t_vit"]

TOKEN_WIDTH, FEATURES = 64, 32


class Performer(nn.Module):
    """Attention through random positive features, and an MLP: [batch, tokens, inputs] to [batch, tokens, 64]."""

    features: Tensor

    def __init__(self, inputs: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(inputs), nn.LayerNorm(TOKEN_WIDTH)
        self.kqv = nn.Linear(inputs, 3 * TOKEN_WIDTH)
        self.proj = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.mlp = nn.Sequential(nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH), nn.GELU(), nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH))
        rows = torch.empty(FEATURES, TOKEN_WIDTH)
        self.register_buffer("features", rows if rows.is_meta else nn.init.orthogonal_(rows) * math.sqrt(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        k, q = self._positive(k), self._positive(q)
        scale = q @ k.sum(dim=1)[:, :, None]
        attended = q @ (k.transpose(1, 2) @ v) / (scale + 1e-8)
        x = v + self.proj(attended)
        return x + self.mlp(self.norm2(x))

    @property
    def macs_a_token(self) -> int:
        """Keys, queries and values; features of keys and queries; their sums with values and with 1; three maps."""
        return 3 * self.kqv.in_features * TOKEN_WIDTH + 4 * FEATURES * TOKEN_WIDTH + FEATURES + 3 * TOKEN_WIDTH**2

    def _positive(self, x: Tensor) -> Tensor:
        half = x.square().sum(dim=-1, keepdim=True) / 2
        return (x @ self.features.T - half).exp() / math.sqrt(FEATURES)


class TokensToToken(nn.Module):
    """Images to tokens in raster order, a sixteenth of the side in each direction."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.split0, self.split1, self.split2 = nn.Unfold(7, 1, 2, 4), nn.Unfold(3, 1, 1, 2), nn.Unfold(3, 1, 1, 2)
        self.attention1 = Performer(channels * 49)
        self.attention2 = Performer(TOKEN_WIDTH * 9)
        self.proj = nn.Linear(TOKEN_WIDTH * 9, width)

    def macs(self, side: int) -> int:
        """Products of one image of this side."""
        first, second, last = ((side // by) ** 2 for by in (4, 8, 16))
        tokens = first * self.attention1.macs_a_token + second * self.attention2.macs_a_token
        return tokens + last * self.proj.in_features * self.proj.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Tokens, [batch, (side / 16)^2, width]."""
        side = images.shape[-1] // 4
        x = self.attention1(self.split0(images).transpose(1, 2))
        x = self.split1(x.transpose(1, 2).unflatten(2, (side, side))).transpose(1, 2)
        x = self.attention2(x)
        x = self.split2(x.transpose(1, 2).unflatten(2, (side // 2, side // 2))).transpose(1, 2)
        return self.proj(x)


def t2t_vit(
    *,
    width: PositiveInt = 256,
    heads: PositiveInt = 4,
    depth: PositiveInt = 7,
    mlp_ratio: Positive = 2.0,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
) -> ViT:
    """T2T-ViT with random weights in evaluation mode; the defaults are T2T-ViT-7.

    Args:
        width: features per token, even.
        heads: attention heads per block.
        depth: number of blocks.
        mlp_ratio: hidden width of the MLP over `width`.
        resolution: side of the input, a multiple of 16.
        classes: number of logits.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % 2:
        raise ValueError(f"width={width}: sines and cosines need an even width")
    model = vit(
        width=width, heads=heads, depth=depth, patch=16, resolution=resolution, classes=classes, mlp_ratio=mlp_ratio,
        qkv_bias=False,
    )  # fmt: skip
    model.patch_embed = TokensToToken(3, width)  # type: ignore[assignment]
    model.pos_embed = nn.Parameter(_positions(model.tokens, width)[None], requires_grad=False)
    return model.eval()


def _positions(tokens: int, width: int) -> Tensor:
    """Sines on even places and cosines on odd ones, [tokens, width]."""
    place = torch.arange(width)
    angle = torch.arange(tokens)[:, None] / 10_000 ** (2 * (place // 2) / width)
    return torch.where(place % 2 == 0, angle.sin(), angle.cos())
