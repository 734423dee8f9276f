"""One small network of digits under every attention of this suite: 64 tokens of one pixel each, mean pooling, equal
widths.

Everything but the attention (and, for SLAB, the norm) is the same, so that accuracy and cost of the variants are of one
kind of artefact. Positions start as sines and cosines of row and column, which small data needs. Reconstruction: the
networks are ours; the attentions are the files beside this one. ViR's own class token and LayerScale are left to
vir.py.

EcoFormer's hashes are learned where the paper learns them: after 100 of 130 parts of the training, in which queries
attend to themselves by softmax through the one projection; the rest trains with codes. The plain network and the coded
one state their work by EcoFormer's counter, so that accuracy and modelled energy stand on one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.attention.eco_work import digits_work
from suites.attention.ecoformer import Attention as EcoAttention
from suites.attention.ecoformer import learn_hash
from suites.attention.kernel_rpe import KernelAttention
from suites.attention.nat import NeighborhoodBlockAttention
from suites.attention.slab import Block, LinearAttention, ProgressiveNorm, SoftmaxAttention, melt_norms
from suites.attention.vir import Retention, mirrored
from suites.common.digits_vit import grid_positions
from suites.common.initial import draw

#: Side of a digit of scikit-learn, and classes.
SIDE, CLASSES = 8, 10
#: Images that hashes are learned from, and steps per row of A.
HASH_IMAGES, HASH_STEPS = 16, 100


class KernelRpeAttention(nn.Module):
    """Kernelised attention with a relative bias over rows and columns, and its linear maps."""

    def __init__(self, width: int, heads: int, side: int, features: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attend = KernelAttention(
            heads, side**2, width // heads, features, relative=True, causal=False, grid=True, temperature=1.0,
            orthogonal=True, seed=0, form="fft",
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Attended features, [batch, tokens, width]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


@dataclass(frozen=True)
class Variant:
    """Which attention a network of digits has, with the settings of all of them; see `digits_attention`."""

    kind: str
    kernel: int = 3
    features: int = 16
    chunk: int = 0
    bidirectional: bool = False
    lambda_steps: int = 420
    hash_after: int = 540

    @property
    def is_progressive(self) -> bool:
        """Whether its norms melt into BatchNorm."""
        return self.kind in ("slab", "prepbn")

    def norm(self, width: int) -> nn.Module:
        """One norm."""
        return ProgressiveNorm(width, self.lambda_steps) if self.is_progressive else nn.LayerNorm(width, eps=1e-6)

    def attention(self, width: int, heads: int) -> nn.Module:
        """One attention with its linear maps."""
        if self.kind in ("slab", "sla"):
            return LinearAttention(width, heads, SIDE)
        if self.kind == "neighborhood":
            return NeighborhoodBlockAttention(width, heads, SIDE, self.kernel)
        if self.kind == "kernel_rpe":
            return KernelRpeAttention(width, heads, SIDE, self.features)
        if self.kind == "vir":
            return Retention(width, heads, self.chunk)
        is_coded = self.kind == "ecoformer"
        return EcoAttention(width, heads, coded=True) if is_coded else SoftmaxAttention(width, heads)


class DigitsNetwork(nn.Module):
    """Pixels, blocks, mean pooling and a head."""

    def __init__(self, variant: Variant, width: int, heads: int, depth: int):
        super().__init__()
        self.kind, self.resolution, self.channels, self.classes = variant.kind, SIDE, 1, CLASSES
        self.bidirectional, self.hash_after = variant.bidirectional, variant.hash_after
        self.pixels = nn.Linear(1, width)
        self.pos_embed = nn.Parameter(0.7 * grid_positions(SIDE, width)[None])
        self.blocks = nn.ModuleList(
            Block(width, (variant.norm(width), variant.norm(width)), variant.attention(width, heads))
            for _ in range(depth)
        )
        self.norm = variant.norm(width)
        self.head = nn.Linear(width, CLASSES)
        if self.kind in ("plain", "ecoformer"):
            work = digits_work(SIDE**2, width, heads, depth, CLASSES, coded=self.kind == "ecoformer")
            self.stated_work = work.stated()
        if self.kind == "ecoformer":
            self.register_buffer("forwards", torch.zeros((), dtype=torch.long))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw(module.weight, 0.05)
        draw(self.pixels.weight, 0.7)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 1, SIDE, SIDE).to(self.pixels.weight),)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        if self.training and self.kind == "ecoformer":
            self._pace(images)
        return self.logits(images)

    def logits(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes], as the network is now."""
        x = self.pixels(images.flatten(2).transpose(1, 2)) + self.pos_embed
        x = mirrored(x) if self.bidirectional else x
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))

    def _pace(self, images: Tensor) -> None:
        """One training forward more of coded attention: softmax, then once the hashes are learned, then codes."""
        done = int(self.get_buffer("forwards"))
        coded = [block.attn for block in self.blocks if isinstance(block.attn, EcoAttention)]
        for attention in coded:
            attention.hashed = done >= self.hash_after
        if done == self.hash_after:
            for attention in coded:  # the first layer first: what follows sees its codes
                learn_hash(attention, lambda: self.logits(images[:HASH_IMAGES]), HASH_STEPS)
        self.get_buffer("forwards").add_(1)


def digits_attention(
    *, kind: Literal["plain", "slab", "prepbn", "sla", "neighborhood", "kernel_rpe", "vir", "ecoformer"] = "plain",
    width: PositiveInt = 64, heads: PositiveInt = 4, depth: PositiveInt = 4,
    kernel: PositiveInt = 3, features: PositiveInt = 16, chunk: Count = 0, bidirectional: bool = False,
    lambda_steps: Count = 420, hash_after: Count = 540,
) -> DigitsNetwork:  # fmt: skip
    """The network in evaluation mode with random weights.

    Args:
        kind: plain softmax; slab (norm and attention), prepbn (norm), sla (attention); neighborhood; kernel_rpe; vir;
            ecoformer.
        width: features per token, a multiple of 4 and of `heads`.
        heads: attention heads.
        depth: blocks.
        kernel: odd side of a neighbourhood, at most 8.
        features: random features per head of kernelised attention.
        chunk: of retention: 0 parallel, 1 recurrent, else the length of a chunk.
        bidirectional: of retention: whether the pixels are read a second time in reverse.
        lambda_steps: training forwards over which SLAB's LayerNorm fades out: 60 % of the task's 700.
        hash_after: training forwards of EcoFormer before its hashes are learned: 100 of 130 parts of the task's 700.

    Raises:
        ValueError: sizes that do not fit.
    """
    if width % heads or width % 4:
        raise ValueError(f"width={width} must be a multiple of 4 and of heads={heads}")
    if kernel % 2 == 0 or kernel > SIDE:
        raise ValueError(f"kernel={kernel}: an odd side of at most {SIDE} is wanted")
    if bidirectional and kind != "vir":
        raise ValueError(
            f"bidirectional=true reads twice what order hides, and kind={kind} hides nothing: take kind=vir"
        )
    variant = Variant(kind, kernel, features, chunk, bidirectional, lambda_steps, hash_after)
    return DigitsNetwork(variant, width, heads, depth).eval()


def folded_digits(model: nn.Module) -> DigitsNetwork:
    """The network with its progressive norms melted into the linear maps behind them; the same function in evaluation.

    Raises:
        ValueError: another model, or one whose norms are LayerNorm.
    """
    if not isinstance(model, DigitsNetwork) or not isinstance(model.norm, ProgressiveNorm):
        raise ValueError("folded_digits works on digits_attention of kind slab or prepbn, whose norms can be folded")
    melt_norms(model)
    return model
