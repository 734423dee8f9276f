"""ReViT: the shapes that NViT derives from its pruned networks by one rule of the embedding width.

Source: Yang et al. 2023, "Global Vision Transformer Pruning with Hessian-Aware Saliency" (NViT), arXiv:2110.04869,
section 5.3: twelve blocks, thin at both ends; r rounds half to even.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from bench.config.settings import Blocks, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.cut_attention import CutAttention, CutMlp
from suites.common.vit import ViT, vit

__all__ = ["load_checkpoint", "revit", "shaped_vit"]

DEPTH = 12
#: Numbers of a head.
SIZE = 64
#: Half the blocks in the middle, two on each side of them, one at each end.
PROFILE = (0, 1, 1, 2, 2, 2, 2, 2, 2, 1, 1, 0)


def revit_shape(embed: int) -> dict[str, list[int] | int]:
    """Heads, query/key size, value size and hidden features of each block for a width.

    Raises:
        ValueError: a width so small that its rule has no heads.
    """
    a, b = round(0.005 * embed), round(0.05 * embed / 8)
    if not a or not b:
        raise ValueError(f"embed={embed}: the rule leaves no heads below 101; 192, 384 or 768 are usual")
    return {
        "heads": [(10, 2 * a, 4 * a)[place] for place in PROFILE],
        "qk": [(16 * b, 8 * b, 16 * b)[place] for place in PROFILE],
        "v": [64] * DEPTH,
        "ffn": [(3 if i < 3 or i >= 9 else 6) * embed for i in range(DEPTH)],
    }


def shaped_vit(
    *,
    width: PositiveInt = 384,
    heads: Blocks | None = None,
    qk: Blocks | None = None,
    v: Blocks | None = None,
    ffn: Blocks | None = None,
    patch: PositiveInt = 16,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
    distilled: bool = False,
) -> ViT:
    """A ViT whose blocks have shapes of their own, in evaluation mode with random weights; the defaults are DeiT-S.

    Args:
        width: features per token.
        heads: of each block; None for width / 64.
        qk: query and key size of a head, of each block; None for 64.
        v: value size of a head, of each block; None for 64.
        ffn: hidden features of each block; None for four times the width.
        patch: side of a patch.
        resolution: side of the input.
        classes: logits.
        distilled: adds the distillation token and head.

    Raises:
        ValueError: lists of different lengths.
    """
    shapes = _of_each_block(width, {"heads": heads, "qk": qk, "v": v, "ffn": ffn})
    model = vit(
        width=width, heads=1, depth=len(shapes[0]), patch=patch, resolution=resolution, classes=classes, mlp_ratio=1.0,
        distilled=distilled,
    )  # fmt: skip
    for block, *shape, hidden in zip(model.blocks, *shapes, strict=True):
        block.attn = CutAttention(width, *shape)
        block.mlp = CutMlp(width, hidden)
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            if not layer.weight.is_meta:
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
    return model.eval()


def _of_each_block(width: int, given: Mapping[str, list[int] | None]) -> list[list[int]]:
    """Heads, query/key sizes, value sizes and hidden features of each block, as given or as DeiT has them."""
    depths = {name: len(each) for name, each in given.items() if each is not None}
    if len(set(depths.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in depths.items())
        raise ValueError(f"{told} entries: each has one for every block")
    depth = next(iter(depths.values()), DEPTH)
    full = {"heads": max(1, width // SIZE), "qk": SIZE, "v": SIZE, "ffn": 4 * width}
    return [[full[name]] * depth if each is None else list(each) for name, each in given.items()]


def revit(*, embed: PositiveInt = 384, classes: PositiveInt = 1000, resolution: PositiveInt = 224) -> ViT:
    """The ReViT of an embedding width, with both of DeiT's special tokens and heads.

    Args:
        embed: E.
        classes: logits.
        resolution: side of the input.
    """
    shape = revit_shape(embed)
    return shaped_vit(width=embed, classes=classes, resolution=resolution, distilled=True, **shape)  # type: ignore[arg-type]


def shape_macs(width: int, heads: list[int], qk: list[int], v: list[int], ffn: list[int], tokens: int) -> int:
    """Products of the blocks: 2 d h q + 2 d h v + 2 d f a token, N h (q + v) more for the attention itself."""
    rows = zip(heads, qk, v, ffn, strict=True)
    return tokens * sum(2 * width * (h * q + h * s + f) + tokens * h * (q + s) for h, q, s, f in rows)
