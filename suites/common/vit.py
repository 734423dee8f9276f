"""A plain vision transformer with two places where tokens may be removed.

They are before a block, and between attention and MLP. Parameter names are those of DeiT and timm, so their checkpoints
load by name. Everything that travels with the tokens (sizes, attention bias, source map) is in `Tokens`; a `Reducer` is
the only thing that changes their number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from suites.common.checkpoint import load_checkpoint

__all__ = [
    "Attention",
    "Block",
    "Heads",
    "Reducer",
    "Tokens",
    "ViT",
    "attention_probabilities",
    "load_checkpoint",
    "vit",
]

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Tokens:
    """Tokens between two blocks.

    Attributes:
        x: features, [batch, tokens, width]; the `protected` special tokens come first.
        protected: how many leading tokens (class, distillation) are never removed.
        size: how many patches each token stands for, [batch, tokens], fp32; None while every token is one patch.
        key_bias: what attention adds to every logit of a key, [batch, tokens]; None for nothing.
        owner: for each token of the input the index of the token that holds it now, or -1 where it was dropped,
            [batch, input tokens]; None unless the model traces sources.
    """

    x: Tensor
    protected: int = 1
    size: Tensor | None = None
    key_bias: Tensor | None = None
    owner: Tensor | None = None

    @property
    def count(self) -> int:
        """Number of tokens per image."""
        return self.x.shape[1]

    @property
    def sizes(self) -> Tensor:
        """Patches per token, [batch, tokens], ones where nothing has been merged yet."""
        return self.x.new_ones(self.x.shape[:2], dtype=torch.float32) if self.size is None else self.size

    def moved(self, x: Tensor) -> Tokens:
        """The same tokens in the same order with new features."""
        return replace(self, x=x)


class Heads(NamedTuple):
    """Queries, keys and values of one attention, each [batch, heads, tokens, head width].

    `probabilities` [batch, heads, tokens, tokens] are there only where the attention was told to keep them.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    probabilities: Tensor | None = None


class Reducer(nn.Module):
    """What turns many tokens into fewer. Its own work (matching, scoring) is charged to its own module path.

    A subclass defines `forward(tokens, heads) -> Tokens`. `heads` are those of the block's attention; a reducer that
    stands before a block gets None. `charged_to` tells a meter that the matrix products below this path are the
    method's own work: papers leave them out of a network's MACs and name them apart.
    """

    charged_to = "method"

    def forward(self, tokens: Tokens, heads: Heads | None) -> Tokens:
        """The tokens that go on."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")


class Attention(nn.Module):
    """Multi-head self-attention through the fused kernel; also returns its heads, which reducers judge tokens by.

    With `keep_probabilities` the products are written out, because the fused kernel does not give them.
    """

    def __init__(self, width: int, heads: int, qkv_bias: bool = True):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)
        self.keep_probabilities = False

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> tuple[Tensor, Heads]:
        """Attended features [batch, tokens, width] and the heads; `key_bias` [batch, tokens] is added to the logits."""
        batch, count, width = x.shape
        q, k, v = self.project(x)
        mask = None if key_bias is None else key_bias[:, None, None, :]
        probabilities = None
        if self.keep_probabilities:
            probabilities = attention_probabilities(q, k, mask)
            y = probabilities @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(y.transpose(1, 2).reshape(batch, count, width)), Heads(q, k, v, probabilities)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [batch, heads, tokens, head width]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v


def attention_probabilities(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(head width) + mask), [batch, heads, queries, keys]."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (logits if mask is None else logits + mask).softmax(dim=-1)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block with optional reducers: `enter` before attention, `reduce` before the MLP."""

    def __init__(self, width: int, heads: int, hidden: int, qkv_bias: bool = True):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, hidden)
        self.enter: Reducer | None = None
        self.reduce: Reducer | None = None

    def residual_outputs(self) -> tuple[nn.Linear, nn.Linear]:
        """The two maps through which the block adds to its input."""
        return self.attn.proj, self.mlp.fc2

    def forward(self, tokens: Tokens) -> Tokens:
        """The tokens after the block; their number is the number that entered its MLP."""
        if self.enter is not None:
            tokens = self.enter(tokens, None)
        attended, heads = self.attn(self.norm1(tokens.x), tokens.key_bias)
        tokens = tokens.moved(tokens.x + attended)
        if self.reduce is not None:
            tokens = self.reduce(tokens, heads)
        return tokens.moved(tokens.x + self.mlp(self.norm2(tokens.x)))


class PatchEmbed(nn.Module):
    """Image to patch features by one strided convolution, in raster order."""

    def __init__(self, width: int, patch: int, channels: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Patch features, [batch, patches, width]."""
        return self.proj(images).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """A vision transformer; after a forward `token_counts` holds the tokens that entered the MLP of each block.

    With `trace_sources` set, `source_maps` holds `Tokens.owner` after each block of the last forward.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        depth: int,
        patch: int,
        resolution: int,
        classes: int,
        channels: int,
        mlp_ratio: float,
        qkv_bias: bool,
        distilled: bool,
        class_token: bool,
        pool: str,
    ):
        super().__init__()
        self.width, self.depth, self.patch, self.resolution = width, depth, patch, resolution
        self.classes, self.channels, self.pool = classes, channels, pool
        self.protected = int(class_token) + int(distilled)
        self.grid = resolution // patch
        self.patch_embed = PatchEmbed(width, patch, channels)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width)) if distilled else None
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2 + self.protected, width))
        hidden = int(width * mlp_ratio)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, qkv_bias) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS) if pool == "token" else nn.Identity()
        self.fc_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS) if pool == "mean" else nn.Identity()
        self.head = nn.Linear(width, classes)
        self.head_dist = nn.Linear(width, classes) if distilled else None
        self.reader: nn.Module | None = None  # a method's own way from the final tokens to logits
        self.trace_sources = False
        self.token_counts: list[int] = []
        self.source_maps: list[Tensor] = []
        self.apply(_initialise)
        for special in (self.pos_embed, self.cls_token, self.dist_token):
            if special is not None:
                nn.init.trunc_normal_(special, std=0.02)

    @property
    def tokens(self) -> int:
        """Tokens that enter the first block."""
        return self.grid**2 + self.protected

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the model's resolution, [batch, channels, resolution, resolution]."""
        like = self.patch_embed.proj.weight
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(like),)

    def embed(self, images: Tensor) -> Tokens:
        """The tokens of the images with positions added."""
        if images.shape[-2:] != (self.resolution, self.resolution):
            raise ValueError(
                f"images are {tuple(images.shape[-2:])}, the model was built for "
                f"{self.resolution} x {self.resolution}: build it with resolution={images.shape[-1]} or resize them"
            )
        x = self.patch_embed(images)
        special = [t.expand(len(x), -1, -1) for t in (self.cls_token, self.dist_token) if t is not None]
        x = torch.cat([*special, x], dim=1) + self.pos_embed
        owner = torch.arange(x.shape[1], device=x.device).expand(len(x), -1) if self.trace_sources else None
        return Tokens(x, self.protected, owner=owner)

    def classify(self, tokens: Tokens) -> Tensor:
        """Logits [batch, classes] of the final tokens; a mean over tokens weighs each by its size."""
        if self.reader is not None:
            return self.reader(tokens)
        x = self.norm(tokens.x)
        if self.pool == "mean":
            return self.head(self.fc_norm(_mean_of_patches(x, tokens)))
        if self.head_dist is not None:
            return (self.head(x[:, 0]) + self.head_dist(x[:, 1])) / 2
        return self.head(x[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes], of images [batch, channels, resolution, resolution]."""
        return self.classify(self.encode(images))

    def encode(self, images: Tensor) -> Tokens:
        """The tokens that leave the last block."""
        tokens = self.embed(images)
        counts, maps = [], []
        for block in self.blocks:
            tokens = block(tokens)
            counts.append(tokens.count)
            if tokens.owner is not None:
                maps.append(tokens.owner)
        self.token_counts, self.source_maps = counts, maps
        return tokens


def _mean_of_patches(x: Tensor, tokens: Tokens) -> Tensor:
    patches = x[:, tokens.protected :]
    if tokens.size is None:
        return patches.mean(dim=1)
    weight = tokens.size[:, tokens.protected :, None].to(x.dtype)
    return (patches * weight).sum(dim=1) / weight.sum(dim=1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def vit(
    *,
    width: PositiveInt = 384,
    heads: PositiveInt = 6,
    depth: PositiveInt = 12,
    patch: PositiveInt = 16,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
    channels: PositiveInt = 3,
    mlp_ratio: Positive = 4.0,
    qkv_bias: bool = True,
    distilled: bool = False,
    class_token: bool = True,
    pool: Literal["token", "mean"] = "token",
) -> ViT:
    """A vision transformer in evaluation mode with random weights.

    Args:
        width: features per token; a multiple of `heads`.
        heads: attention heads per block.
        depth: number of blocks.
        patch: side of a square patch in pixels; divides `resolution`.
        resolution: side of the square input in pixels.
        classes: number of logits.
        channels: colour channels of the input.
        mlp_ratio: hidden width of the MLP over `width`.
        qkv_bias: whether queries, keys and values have a bias.
        distilled: adds DeiT's distillation token and head; logits are the mean of both heads.
        class_token: whether there is a class token; without one `pool` must be "mean".
        pool: what the head reads: the class "token" or the "mean" over patches.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % heads:
        raise ValueError(f"width={width} is not a multiple of heads={heads}: choose heads that divide the width")
    if resolution % patch:
        nearest = max(patch, round(resolution / patch) * patch)
        raise ValueError(f"resolution={resolution} is not a multiple of patch={patch}: try resolution={nearest}")
    if not class_token and (pool == "token" or distilled):
        raise ValueError('class_token=False leaves nothing to read: set pool="mean" and distilled=False')
    if distilled and pool == "mean":
        raise ValueError('distilled=True reads its two special tokens: set pool="token"')
    if pool not in ("token", "mean"):
        raise ValueError(f'pool={pool!r} is unknown: use "token" or "mean"')
    return ViT(
        width=width,
        heads=heads,
        depth=depth,
        patch=patch,
        resolution=resolution,
        classes=classes,
        channels=channels,
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
        distilled=distilled,
        class_token=class_token,
        pool=pool,
    ).eval()
