"""SLAB: ReLU linear attention and a norm that melts into BatchNorm (Guo et al. 2024, arXiv 2405.11582).

RepBN(x) = BN(x) + alpha x with one learned alpha. Training norms are lambda LN(x) + (1 - lambda) RepBN(x), lambda
falling linearly from 1 to 0 over a number of steps, optionally after steps with LN alone; evaluation uses RepBN.
Folding gives a plain BatchNorm with gamma + alpha sigma and beta + alpha mu, which melts into the linear map that
follows.

Linear attention: q and k + a learned position table go through ReLU; out = q (k^T v) / (q . sum_j k_j + 1e-6) per head
in fp32, plus a 5 x 5 depth-wise convolution of v on the patch grid (one kernel per channel of a head, shared by the
heads). The cheaper order of the product is taken. SLAB-DeiT has no class token and pools by the mean.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.attention.image_network import ImageNetwork
from suites.common.dit import Attention as SoftmaxAttention
from suites.common.initial import draw

EPS_ATTENTION = 1e-6


class RepBN(nn.Module):
    """BN(x) + alpha x over the last dimension of [batch, tokens, width]."""

    def __init__(self, width: int):
        super().__init__()
        self.bn = nn.BatchNorm1d(width)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised features."""
        return self.bn(x.flatten(0, -2)).reshape(x.shape) + self.alpha * x

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel as evaluation uses them."""
        mean, variance = self.bn.running_mean, self.bn.running_var
        assert isinstance(mean, Tensor) and isinstance(variance, Tensor)
        return mean, (variance + self.bn.eps).sqrt()

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What it does in evaluation to each channel: x -> scale x + shift."""
        mean, sigma = self.statistics()
        gamma = self.bn.weight + self.alpha * sigma
        beta = self.bn.bias + self.alpha * mean
        return gamma / sigma, beta - gamma * mean / sigma

    def folded(self) -> nn.BatchNorm1d:
        """A plain BatchNorm that does the same in evaluation."""
        plain = nn.BatchNorm1d(self.bn.num_features, eps=self.bn.eps)
        plain.load_state_dict(self.bn.state_dict())
        mean, sigma = self.statistics()
        with torch.no_grad():
            plain.weight.copy_(self.bn.weight + self.alpha * sigma)
            plain.bias.copy_(self.bn.bias + self.alpha * mean)
        return plain.eval()


class ProgressiveNorm(nn.Module):
    """lambda LN + (1 - lambda) RepBN in training, RepBN in evaluation; a training forward is one schedule step."""

    step: Tensor

    def __init__(self, width: int, steps: int, warmup: int = 0):
        super().__init__()
        self.ln, self.rep = nn.LayerNorm(width, eps=1e-6), RepBN(width)
        self.steps, self.warmup = steps, warmup
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def share(self) -> float:
        """Lambda at the current step: 1 while it warms up, then 1 at the first step and 0 after `steps` of them."""
        done = int(self.step) - self.warmup
        if done < 0:
            return 1.0
        return max(0.0, 1 - done / self.steps) if self.steps else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Normalised features."""
        if not self.training:
            return self.rep(x)
        share = self.share
        self.step.add_(1)
        if share == 1:
            return self.ln(x) + 0 * self.rep(x)  # statistics are gathered from the start
        return share * self.ln(x) + (1 - share) * self.rep(x)


class LinearAttention(nn.Module):
    """The simplified linear attention on a square grid of patches."""

    def __init__(self, width: int, heads: int, grid: int, kernel: int = 5):
        super().__init__()
        self.heads, self.grid = heads, grid
        self.qkv = nn.Linear(width, 3 * width)
        self.position = nn.Parameter(torch.zeros(1, grid**2, width))
        size = width // heads
        self.dwc = nn.Conv2d(size, size, kernel, padding=kernel // 2, groups=size)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attended features, [batch, tokens, width]."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k + self.position, v))
        out = linear_attention(F.relu(q), F.relu(k), v).transpose(1, 2).flatten(2)
        images = v.transpose(2, 3).reshape(-1, v.shape[3], self.grid, self.grid)
        local = self.dwc(images).reshape(*v.shape[:2], v.shape[3], v.shape[2]).permute(0, 3, 1, 2).flatten(2)
        return self.proj(out + local)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Q (k^T v) / (q . sum k + 1e-6), sums in fp32 or better, by the order that multiplies less."""
    exact = torch.promote_types(q.dtype, torch.float32)
    a, b, c = q.to(exact), k.to(exact), v.to(exact)
    total = a @ b.sum(dim=2, keepdim=True).transpose(-2, -1) + EPS_ATTENTION
    out = (
        (a @ b.transpose(-2, -1)) @ c
        if square_is_cheaper(*q.shape[2:], *v.shape[2:])
        else a @ (b.transpose(-2, -1) @ c)
    )
    return (out / total).to(q.dtype)


def square_is_cheaper(queries: int, size: int, keys: int, value: int) -> bool:
    """Whether (q k^T) v takes fewer products than q (k^T v): i j (c + d) < c d (i + j)."""
    return queries * keys * (size + value) < size * value * (queries + keys)


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, norms: tuple[nn.Module, nn.Module], attention: nn.Module):
        super().__init__()
        self.norm1, self.norm2 = norms
        self.attn: nn.Module = attention
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class SlabViT(ImageNetwork):
    """Patches, blocks, mean pooling and a head; no class token."""

    def __init__(
        self,
        width: int,
        heads: int,
        depth: int,
        patch: int,
        resolution: int,
        classes: int,
        channels: int,
        variant: str,
        steps: int,
        warmup: int = 0,
    ):
        super().__init__(resolution, channels, classes)
        self.grid = resolution // patch
        self.patch_embed = nn.Conv2d(channels, width, patch, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2, width))
        linear, progressive = variant in ("slab", "sla"), variant in ("slab", "prepbn")

        def norm() -> nn.Module:
            return ProgressiveNorm(width, steps, warmup) if progressive else nn.LayerNorm(width, eps=1e-6)

        def attention() -> nn.Module:
            return LinearAttention(width, heads, self.grid) if linear else SoftmaxAttention(width, heads)

        self.blocks = nn.ModuleList(Block(width, (norm(), norm()), attention()) for _ in range(depth))
        self.norm = norm()
        self.head = nn.Linear(width, classes)
        self.draw_linear_maps()
        draw(self.pos_embed)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


def slab_vit(
    *,
    width: PositiveInt = 192,
    heads: PositiveInt = 3,
    depth: PositiveInt = 12,
    patch: PositiveInt = 16,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
    channels: PositiveInt = 3,
    variant: Literal["slab", "prepbn", "sla", "plain"] = "slab",
    folded: bool = False,
    lambda_steps: Count = 300_000,
    lambda_warmup: Count = 0,
) -> SlabViT:
    """SLAB-DeiT in evaluation mode with random weights.

    Args:
        width: features per token, a multiple of `heads`.
        heads: attention heads.
        depth: blocks.
        patch: side of a patch.
        resolution: side of the image.
        classes: logits.
        channels: colour channels.
        variant: slab is norm and attention, prepbn the norm only, sla the attention only, plain neither.
        folded: melts the norms into the linear maps that follow.
        lambda_steps: training forwards over which lambda falls from 1 to 0; 0 for RepBN from the start.
        lambda_warmup: training forwards with LayerNorm alone before it falls.

    Raises:
        ValueError: sizes that do not divide, or nothing to fold.
    """
    if width % heads or resolution % patch:
        raise ValueError(f"width={width} must be a multiple of heads={heads}, resolution={resolution} of patch={patch}")
    sizes = (width, heads, depth, patch, resolution, classes, channels)
    model = SlabViT(*sizes, variant, lambda_steps, lambda_warmup).eval()
    return fold(model) if folded else model


def fold(model: SlabViT) -> SlabViT:
    """The model with every progressive norm melted into the linear map behind it; the same function in evaluation.

    Raises:
        ValueError: the model is in training mode, or has no norm that can be folded.
    """
    check_foldable(model, model.norm)
    melt_norms(model)
    return model


def check_foldable(model: nn.Module, *norms: nn.Module) -> None:
    """Raise ValueError unless the model is in evaluation mode and its norms are progressive."""
    if model.training:
        raise ValueError("folding takes the statistics of evaluation: call eval() first")
    if not all(isinstance(norm, ProgressiveNorm) for norm in norms):
        raise ValueError("LayerNorm cannot be folded: take variant slab or prepbn")


def melt_norms(model: Any) -> None:
    """Melt the norms of every block and the last one into the maps behind them; all of them are progressive."""
    with torch.no_grad():
        for block in model.blocks:
            melt(block.norm1, block.attn.qkv)
            melt(block.norm2, block.fc1)
            block.norm1 = block.norm2 = nn.Identity()
        melt(model.norm, model.head)
    model.norm = nn.Identity()


def melt(norm: nn.Module, linear: nn.Linear) -> None:
    """Let the linear map behind a progressive norm do in evaluation what both do; it needs a bias."""
    assert isinstance(norm, ProgressiveNorm)
    scale, shift = norm.rep.scale_and_shift()
    linear.bias.add_(linear.weight @ shift)
    linear.weight.mul_(scale)


def linear_attention_macs(tokens: int, width: int, heads: int, kernel: int = 5) -> int:
    """Products of the linear attention without its linear maps: the cheaper order, normaliser, convolution."""
    size = width // heads
    square = square_is_cheaper(tokens, size, tokens, size)
    order = 2 * tokens**2 * width if square else 2 * tokens * width * size
    return order + tokens * width + tokens * width * kernel**2


def macs(
    *,
    width: int = 192,
    heads: int = 3,
    depth: int = 12,
    patch: int = 16,
    resolution: int = 224,
    classes: int = 1000,
    channels: int = 3,
    linear: bool = True,
    kernel: int = 5,
) -> int:
    """Products of one image: products, the normaliser and the depth-wise convolution counted, folded norms free."""
    tokens = (resolution // patch) ** 2
    attention = linear_attention_macs(tokens, width, heads, kernel) if linear else 2 * tokens**2 * width
    block = tokens * 12 * width**2 + attention
    return tokens * patch**2 * channels * width + depth * block + classes * width
