"""EcoFormer's PVTv2: no spatial reduction, three coded stages, a softmax stage (Liu et al. 2022, arXiv 2209.09004).

What it costs by the authors' counter: multiplications and additions, and the energy that a table makes of them, 3.7 pJ
per multiplication and 0.9 pJ per addition (45 nm). That is a model: codes run as floats here, so time does not fall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Counts, PositiveInt
from suites.attention.ecoformer import ANCHORS, BITS, Attention, learn_hash
from suites.attention.image_network import ImageNetwork

MULTIPLICATION_J, ADDITION_J = 3.7e-12, 0.9e-12


class Block(nn.Module):
    """PVTv2's block: attention, and an MLP with a depth-wise 3 x 3 convolution inside."""

    def __init__(self, width: int, heads: int, ratio: int, coded: bool):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, coded)
        self.fc1, self.fc2 = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)
        self.dwconv = nn.Conv2d(ratio * width, ratio * width, 3, padding=1, groups=ratio * width)

    def forward(self, x: Tensor, side: int) -> Tensor:
        """Features, [batch, side^2, width]."""
        x = x + self.attn(self.norm1(x))
        h = self.fc1(self.norm2(x)).transpose(1, 2).unflatten(2, (side, side))
        return x + self.fc2(F.gelu(self.dwconv(h).flatten(2).transpose(1, 2)))


@dataclass(frozen=True)
class Pyramid:
    """Widths, heads, MLP ratios and depths of the four stages."""

    widths: tuple[int, ...] = (32, 64, 160, 256)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    ratios: tuple[int, ...] = (8, 8, 4, 4)
    depths: tuple[int, ...] = (2, 2, 2, 2)


_WIDE = (64, 128, 320, 512)
PVT = {
    "b0": Pyramid(),
    "b1": Pyramid(_WIDE),
    "b2": Pyramid(_WIDE, depths=(3, 4, 6, 3)),
    "b3": Pyramid(_WIDE, depths=(3, 4, 18, 3)),
    "b4": Pyramid(_WIDE, depths=(3, 8, 27, 3)),
}


class EcoPvt(ImageNetwork):
    """PVTv2 without spatial reduction, its first three stages coded or not."""

    def __init__(self, shape: Pyramid, coded: bool, resolution: int, classes: int, channels: int):
        super().__init__(resolution, channels, classes)
        self.patches, self.stages = nn.ModuleList(), nn.ModuleList()
        self.patch_norms, self.norms = nn.ModuleList(), nn.ModuleList()
        before = channels
        for stage, (width, heads, ratio, depth) in enumerate(
            zip(shape.widths, shape.heads, shape.ratios, shape.depths, strict=True)
        ):
            kernel, stride = (7, 4) if stage == 0 else (3, 2)
            self.patches.append(nn.Conv2d(before, width, kernel, stride, padding=kernel // 2))
            self.patch_norms.append(nn.LayerNorm(width))
            self.stages.append(nn.ModuleList(Block(width, heads, ratio, coded and stage < 3) for _ in range(depth)))
            self.norms.append(nn.LayerNorm(width, eps=1e-6))
            before = width
        self.head = nn.Linear(before, classes)
        self.draw_linear_maps()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = images
        for patch, first, blocks, last in zip(self.patches, self.patch_norms, self.stages, self.norms, strict=True):
            x = patch(x)
            side = x.shape[-1]
            tokens = first(x.flatten(2).transpose(1, 2))
            for block in blocks.children():
                tokens = block(tokens, side)
            tokens = last(tokens)
            x = tokens.transpose(1, 2).unflatten(2, (side, side))
        return self.head(tokens.mean(dim=1))

    def learn_hashes(self, images: Tensor, steps: int = 100) -> None:
        """Learn every coded layer's hash on what reaches it, first layer first."""
        for module in self.modules():
            if isinstance(module, Attention) and module.hash is not None:
                learn_hash(module, lambda: self(images), steps)


def eco_pvt(
    *,
    size: Literal["b0", "b1", "b2", "b3", "b4"] = "b0",
    coded: bool = True,
    widths: Counts | None = None,
    depths: Counts | None = None,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
    channels: PositiveInt = 3,
) -> EcoPvt:
    """PVTv2 without spatial reduction in evaluation mode with random weights.

    Args:
        size: b0 to b4.
        coded: whether the first three stages attend by codes; else by softmax.
        widths: per stage instead of the size's, multiples of its heads.
        depths: per stage instead of the size's.
        resolution: side of the image, a multiple of 32.
        classes: logits.
        channels: colour channels.

    Raises:
        ValueError: sizes that do not fit.
    """
    chosen = PVT[size]
    shape = Pyramid(tuple(widths or chosen.widths), chosen.heads, chosen.ratios, tuple(depths or chosen.depths))
    if resolution % 32 or any(w % h for w, h in zip(shape.widths, shape.heads, strict=True)):
        raise ValueError("resolution must be a multiple of 32 and every width of its stage's heads")
    return EcoPvt(shape, coded, resolution, classes, channels).eval()


@dataclass(frozen=True)
class Work:
    """Multiplications and additions, and the energy that the 45 nm table makes of them."""

    multiplications: int
    additions: int

    def __add__(self, other: Work) -> Work:
        return Work(self.multiplications + other.multiplications, self.additions + other.additions)

    @property
    def joules(self) -> float:
        """Modelled energy."""
        return MULTIPLICATION_J * self.multiplications + ADDITION_J * self.additions


def coded_work(tokens: int, width: int, heads: int, bits: int = BITS, anchors: int = ANCHORS) -> Work:
    """One coded attention without its projections."""
    c = width // heads
    return Work(
        heads * tokens * (2 * anchors + bits * anchors + bits + 1 + c),
        heads * tokens * (2 * anchors * c + bits * anchors + 2 * bits + 2 * bits * c + c),
    )


def softmax_work(tokens: int, width: int, heads: int) -> Work:
    """One softmax attention without its projections."""
    return Work(2 * tokens**2 * width + heads * tokens**2, 2 * tokens**2 * width)


def pvt_work(
    size: str = "b0", coded: bool = True, resolution: int = 224, classes: int = 1000, channels: int = 3
) -> Work:
    """A whole network by the authors' counter: convolution biases per position, linear biases once, 2 per norm."""
    shape, total, before = PVT[size], Work(0, 0), channels
    for stage, (width, heads, ratio, depth) in enumerate(
        zip(shape.widths, shape.heads, shape.ratios, shape.depths, strict=True)
    ):
        tokens = (resolution // (4 * 2**stage)) ** 2
        kernel = 7 if stage == 0 else 3
        is_coded, hidden = coded and stage < 3, ratio * width
        total += _both(kernel**2 * before * width * tokens + width * tokens + 4 * tokens * width)
        maps = (3 if is_coded else 4) * (tokens * width**2 + width)
        mlp = 2 * tokens * width * hidden + hidden + width + 10 * hidden * tokens
        attention = (coded_work if is_coded else softmax_work)(tokens, width, heads)
        for _ in range(depth):
            total += attention + _both(maps + mlp + 4 * tokens * width)
        before = width
    return total + _both(before * classes + classes)


def _both(count: int) -> Work:
    return Work(count, count)
