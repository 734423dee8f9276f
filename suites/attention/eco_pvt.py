"""EcoFormer's PVTv2: no spatial reduction, three coded stages, a softmax stage (Liu et al. 2022, arXiv 2209.09004).

The network states its multiplications and additions by the authors' counter (eco_work.py), of which the row makes a
modelled energy. Codes run as floats here, so time does not fall.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Counts, PositiveInt
from suites.attention.eco_work import PVT, Pyramid, pvt_work
from suites.attention.ecoformer import Attention, learn_hash
from suites.attention.image_network import ImageNetwork


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
        self.stated_work = pvt_work(shape, coded, resolution, classes, channels).stated()
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
    if len(shape.widths) != 4 or len(shape.depths) != 4:
        raise ValueError(f"widths={list(shape.widths)} and depths={list(shape.depths)}: four stages are wanted of both")
    if resolution % 32 or any(w % h or not w for w, h in zip(shape.widths, shape.heads, strict=True)):
        raise ValueError(f"resolution must be a multiple of 32, every width of its stage's heads, {list(shape.heads)}")
    return EcoPvt(shape, coded, resolution, classes, channels).eval()
