"""Closed-form multiply-accumulates of a vision transformer whose blocks see given numbers of tokens.

Two conventions, as papers use them. `matmul`: patch embedding, linear layers and attention products, nothing else.
`fvcore`: that, 5 per element of every affine LayerNorm, and the method's own matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LAYER_NORM_MACS = 5


@dataclass(frozen=True)
class Shape:
    """What the count of a plain ViT depends on; `special` counts class and distillation tokens."""

    width: int
    depth: int
    patch: int
    resolution: int
    heads: int = 1
    classes: int = 1000
    channels: int = 3
    special: int = 1
    mlp_ratio: float = 4.0
    head_count: int = 1

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return (self.resolution // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """Tokens that enter the first block."""
        return self.patches + self.special


def matmul_macs(shape: Shape, mlp: Sequence[int], attention: Sequence[int] | None = None) -> int:
    """MACs of one image in the matmul convention.

    Args:
        shape: the network.
        mlp: tokens that enter the MLP of each block.
        attention: tokens that enter the attention of each block; None for those that left the block before.

    Raises:
        ValueError: the schedule has not one entry per block.
    """
    c, hidden = shape.width, int(shape.width * shape.mlp_ratio)
    total = shape.patches * c * shape.channels * shape.patch**2 + shape.head_count * shape.classes * c
    for n, m in zip(_entering(shape, mlp, attention), mlp, strict=True):
        total += 4 * n * c * c + 2 * n * n * c + 2 * m * c * hidden
    return total


def fvcore_macs(shape: Shape, mlp: Sequence[int], attention: Sequence[int] | None = None, own: int = 0) -> int:
    """MACs of one image in the fvcore convention; `own` are the method's own matrix products."""
    entering = _entering(shape, mlp, attention)
    normalised = sum(entering) + sum(mlp) + mlp[-1]
    return matmul_macs(shape, mlp, attention) + LAYER_NORM_MACS * shape.width * normalised + own


def _entering(shape: Shape, mlp: Sequence[int], attention: Sequence[int] | None) -> list[int]:
    if len(mlp) != shape.depth or (attention is not None and len(attention) != shape.depth):
        raise ValueError(f"a schedule needs one entry for each of the {shape.depth} blocks, got {len(mlp)}")
    return list(attention) if attention is not None else [shape.tokens, *mlp[:-1]]


def tome_matching_macs(shape: Shape, mlp: Sequence[int]) -> int:
    """MACs of ToMe's similarity scores: even against odd tokens in the width of one head, where tokens are merged."""
    entering = _entering(shape, mlp, None)
    head_width = shape.width // shape.heads
    return sum(((n + 1) // 2) * (n // 2) * head_width for n, m in zip(entering, mlp, strict=True) if m < n)
