"""MACs of one image for each system of this suite from its settings alone, in the matmul convention; no tensors.

Each is `function(model, method) -> MACs`: settings of the network and of the method by name, defaults left out. A
method's own matching and scoring is not in this convention, except where it is part of the network (Token
Transforming). The cards (`systems.yaml`) name them, and the battery holds the executed count to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from suites.vit_tokens import schedules
from suites.vit_tokens.analytic import Shape, matmul_macs

Settings = Mapping[str, Any]


def shape_of(model: Settings) -> Shape:
    """The plain ViT that the settings of `suites.common.vit:vit` describe."""
    special = int(model.get("class_token", True)) + int(model.get("distilled", False))
    return Shape(
        width=model["width"],
        depth=model["depth"],
        patch=model["patch"],
        resolution=model.get("resolution", 224),
        heads=model["heads"],
        classes=model.get("classes", 1000),
        special=special,
        mlp_ratio=model.get("mlp_ratio", 4.0),
        head_count=1 + int(model.get("distilled", False)),
    )


def tome(model: Settings, method: Settings) -> int:
    """ToMe: r tokens fewer from each block's MLP on."""
    shape = shape_of(model)
    merges = schedules.merges_per_block(method.get("r", 8), shape.depth)
    return matmul_macs(shape, schedules.tome_counts(merges, shape.tokens, shape.special))


def evit(model: Settings, method: Settings) -> int:
    """EViT: a share of the patches and one fused token from some blocks' MLP on."""
    return _kept_after(shape_of(model), method, fuse=method.get("fuse_token", True))


def eet(model: Settings, method: Settings) -> int:
    """EET: a share of the patches from some blocks' MLP on."""
    return _kept_after(shape_of(model), method, fuse=False)


def _kept_after(shape: Shape, method: Settings, *, fuse: bool) -> int:
    at = schedules.check_blocks(method.get("at"), shape.depth)
    rates = schedules.rates_per_stage(method.get("keep_rate", 0.7), len(at), "keep_rate", shape.depth)
    return matmul_macs(shape, schedules.evit_counts(rates, at, shape.depth, shape.tokens, shape.special, fuse=fuse))


def diffrate(model: Settings, method: Settings) -> int:
    """DiffRate with given rates: min(N, P, M) tokens from each block's MLP on."""
    shape = shape_of(model)
    everything = [None] * shape.depth
    counts = schedules.diffrate_counts(
        method.get("prune") or everything, method.get("merge") or everything, shape.tokens
    )
    return matmul_macs(shape, counts)


def dynamicvit(model: Settings, method: Settings) -> int:
    """DynamicViT: int(P rho^s) patches from the attention of stage s on."""
    shape, rho = shape_of(model), method.get("rho", 0.7)
    at = schedules.check_blocks(method.get("at"), shape.depth)
    counts, kept = [], shape.patches
    for block in range(1, shape.depth + 1):
        if block in at:
            kept = max(1, int(shape.patches * rho ** (at.index(block) + 1)))
        counts.append(kept + shape.special)
    return matmul_macs(shape, counts, counts)


def token_transforming(model: Settings, method: Settings) -> int:
    """Token Transforming: fewer tokens from some blocks' MLP on, and 2 M N C for each product with W and its making."""
    shape = shape_of(model)
    total, tokens = _kept_after(shape, method, fuse=False), shape.tokens
    at = schedules.check_blocks(method.get("at"), shape.depth)
    rates = schedules.rates_per_stage(method.get("keep_rate", 0.7), len(at), "keep_rate", shape.depth)
    for rate in rates:
        kept = math.ceil(rate * (tokens - shape.special))
        total += 2 * kept * tokens * shape.width if kept < tokens - shape.special else 0
        tokens = kept + shape.special
    return total


def stvit(model: Settings, method: Settings) -> int:
    """STViT: base blocks on the grid, two that make n tokens of it, the rest on n tokens; no class token."""
    shape = shape_of(model)
    n, grid, c = method.get("tokens", 16), shape.patches, shape.width
    base = method.get("base") or max(1, shape.depth // 3)
    hidden = int(c * shape.mlp_ratio)

    def generator(context: int) -> int:
        """Queries of n tokens, keys and values of the context, both products, the projection, the MLP."""
        return n * c * c + 2 * context * c * c + 2 * n * context * c + n * c * c + 2 * n * c * hidden

    plain = _blocks(shape, [grid] * base) + _blocks(shape, [n] * (shape.depth - base - 2))
    return _ends(shape, heads=1) + plain + generator(grid) + generator(n + grid)


def lookupvit(model: Settings, method: Settings) -> int:
    """LookupViT (Koner et al. 2024, section 3): per block the exchange with N lookup tokens and a plain block on M."""
    shape = shape_of(model)
    m, n, c = method.get("tokens", 25), shape.patches, shape.width
    light = max(1, round(method.get("ratio", 1.0) * c))
    gather = 2 * m * c * c + 2 * n * c * c + 2 * m * n * c
    back = m * c * c + n * c * c + m * n * c + 2 * n * c * light
    return _ends(shape, heads=2) + shape.depth * (gather + back) + _blocks(shape, [m] * shape.depth)


def _ends(shape: Shape, heads: int) -> int:
    """Patch embedding and classifier heads."""
    return shape.patches * shape.width * shape.channels * shape.patch**2 + heads * shape.classes * shape.width


def _blocks(shape: Shape, tokens: Sequence[int]) -> int:
    """Plain blocks on these numbers of tokens."""
    c, hidden = shape.width, int(shape.width * shape.mlp_ratio)
    return sum(4 * n * c * c + 2 * n * n * c + 2 * n * c * hidden for n in tokens)
