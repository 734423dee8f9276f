"""MCUFormer's network: a vision transformer whose linear layers are three factors, and its memory by formula.

Every linear layer of a block, in -> out, is in -> k -> k -> out with k = int(rho min(in, out)), no bias in the first
two; the k x k in the middle can be folded into the first (arXiv:2310.16898). rho = 1 leaves layers whole. The head and
the patch embedding stay whole.

Memory (engine, int8, picture not charged), N patches of width C, r the MLP's ratio:
C [(N + 1)(1 + r) + C r rho] bytes: tokens that enter and the hidden ones of the MLP, and the rank part of its weights.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import KeepRate, Positive, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_vit import digits_vit
from suites.common.vit import Heads, ViT, vit

__all__ = ["engine_bytes", "load_checkpoint", "low_rank_vit", "low_rank_weights", "rank_of", "scheduled_bytes"]

BUDGET = 320 * 1024


def rank_of(inputs: int, outputs: int, rho: float) -> int:
    """K = int(rho min(in, out)), safe against a product that is a hair below a whole number."""
    return int(rho * min(inputs, outputs) + 1e-9)


def low_rank_weights(inputs: int, outputs: int, rho: float, factors: int = 3) -> int:
    """Weights of a linear layer in two or three factors, or whole with `factors=1`; biases apart."""
    k = rank_of(inputs, outputs, rho)
    return inputs * outputs if factors == 1 else k * (inputs + outputs) + (k * k if factors == 3 else 0)


def engine_bytes(width: int, tokens: int, ratio: float, rho: float) -> float:
    """C [(N + 1)(1 + r) + C r rho], in bytes of int8.

    Args:
        width: C.
        tokens: N, patches of the picture.
        ratio: r, hidden width of the MLP over C.
        rho: share of the full rank.
    """
    return width * ((tokens + 1) * (1 + ratio) + width * ratio * rho)


def operator_bytes(width: int, tokens: int, ratio: float, rows: int | None = None, element: int = 1) -> float:
    """Live bytes of an MLP: N C (1 + r) whole, N C + slice C (1 + r) where it overwrites tokens slice by slice."""
    if rows is None:
        return element * tokens * width * (1 + ratio)
    return element * (tokens * width + rows * width * (1 + ratio))


def scheduled_bytes(width: int, tokens: int, ratio: float, rho: float, inner: int, rows: int) -> float:
    """Bytes of int8 that a block needs over slices of tokens: the larger of its MLP's and its attention's; ours.

    MLP: C [T + s (1 + r) + C r rho], all tokens, a slice with its hidden ones, and the rank part of the weights as in
    `engine_bytes`. Attention: C T + 2 D T + s (C + D + T), all tokens, keys and values, and of a slice the norm's
    outputs, the queries and a head's scores.

    Args:
        width: C.
        tokens: T, that of the class included.
        ratio: r, hidden width of the MLP over C.
        rho: share of the full rank.
        inner: D, features of all heads.
        rows: s, tokens of a slice.
    """
    mlp = width * (tokens + rows * (1 + ratio) + width * ratio * rho)
    return max(mlp, tokens * (width + 2 * inner) + rows * (width + inner + tokens))


class LowRank(nn.Module):
    """A linear layer as in -> k -> k -> out; folded it is in -> k -> out."""

    def __init__(self, inputs: int, outputs: int, rank: int):
        super().__init__()
        self.inner = nn.Linear(inputs, rank, bias=False)
        self.middle: nn.Module = nn.Linear(rank, rank, bias=False)
        self.outer = nn.Linear(rank, outputs)
        for layer in (self.inner, self.middle, self.outer):  # each factor keeps the size of what goes through it
            nn.init.orthogonal_(layer.weight)
        nn.init.zeros_(self.outer.bias)

    @property
    def weight(self) -> Tensor:
        """The outer factor, by which the whole layer can be scaled."""
        return self.outer.weight

    @property
    def bias(self) -> Tensor:
        """The bias, which the outer factor has."""
        return self.outer.bias

    def low(self, x: Tensor) -> Tensor:
        """The rank features, [..., k]."""
        return self.middle(self.inner(x))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the outer width."""
        return self.outer(self.low(x))

    def fold(self) -> None:
        """Multiply the middle factor into the first, in place."""
        if isinstance(self.middle, nn.Linear):
            self.inner.weight = nn.Parameter((self.middle.weight @ self.inner.weight).detach())
            self.middle = nn.Identity()


class WideAttention(nn.Module):
    """Attention whose heads are 64 wide whatever the width of tokens; its two maps may be `LowRank`."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.heads = heads
        self.qkv: nn.Module = nn.Linear(width, 3 * heads * head_width)
        self.proj: nn.Module = nn.Linear(heads * head_width, width)

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> tuple[Tensor, Heads]:
        """Attended features [batch, tokens, width], and the heads."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if key_bias is None else key_bias[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(y.transpose(1, 2).flatten(2)), Heads(q, k, v)


class McuFormerNet(ViT):
    """A plain ViT with low-rank layers in its blocks.

    Attributes:
        engine_peak_bytes: of the formula above, modelled.
    """

    engine_peak_bytes: float
    ratio: float
    rho: float


def low_rank_vit(
    *,
    width: PositiveInt = 192,
    heads: PositiveInt = 3,
    head_width: PositiveInt = 64,
    depth: PositiveInt = 12,
    mlp_ratio: Positive = 4.0,
    patch: PositiveInt = 16,
    resolution: PositiveInt = 240,
    classes: PositiveInt = 1000,
    rho: KeepRate = 0.6,
    digits: bool = False,
) -> McuFormerNet:
    """A vision transformer with linear layers of three factors, in evaluation mode with random weights.

    Args:
        width: C.
        heads: of attention.
        head_width: features of a head; 64 in the paper's space.
        depth: blocks.
        mlp_ratio: r, hidden width of the MLP over C.
        patch: side of a patch in pixels; where it does not divide `resolution` (28 and 32 at 240 in the paper's space)
            the last rows and columns belong to no patch, as a strided convolution leaves them.
        resolution: side of the square picture.
        classes: logits.
        rho: share of the full rank; 1 leaves layers whole.
        digits: starts from positions that small data needs; ten classes and heads of width / heads.

    Raises:
        ValueError: the numbers do not fit together, or a rank of 0.
    """
    if patch > resolution:
        raise ValueError(f"patch={patch} is larger than the picture: resolution={resolution}")
    covered = resolution // patch * patch
    if digits:
        head_width = width // heads
        model: ViT = digits_vit(
            width=width, heads=heads, depth=depth, patch=patch, resolution=covered, mlp_ratio=mlp_ratio
        )
    else:
        model = vit(width=width, heads=1, depth=depth, patch=patch, resolution=covered, classes=classes,
                    mlp_ratio=mlp_ratio)  # fmt: skip
        for block in model.blocks:
            block.attn = WideAttention(width, heads, head_width)
    for block in model.blocks:
        _factor(block.attn, ("qkv", "proj"), rho)
        _factor(block.mlp, ("fc1", "fc2"), rho)
    model.__class__ = McuFormerNet
    assert isinstance(model, McuFormerNet)
    model.ratio, model.rho, model.resolution = mlp_ratio, rho, resolution
    model.engine_peak_bytes = engine_bytes(width, model.grid**2, mlp_ratio, rho)
    return model.eval()


def _factor(owner: Any, names: tuple[str, ...], rho: float) -> None:
    if rho == 1:
        return
    for name in names:
        layer = getattr(owner, name)
        rank = rank_of(layer.in_features, layer.out_features, rho)
        if rank < 1:
            raise ValueError(f"rho={rho}: a layer of {layer.in_features} x {layer.out_features} has no rank left")
        setattr(owner, name, LowRank(layer.in_features, layer.out_features, rank))
