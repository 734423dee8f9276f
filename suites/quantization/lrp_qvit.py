"""LRP-QViT: bits by relevance, clipped channel-wise norms (Ranjan and Savakis 2024, arXiv 2401.11243).

A reconstruction. The score of a layer is the mean absolute relevance that reaches its output, normalised over layers of
its kind and averaged over a calibration set (`suites.quantization.lrp`); bits are proportional to the score around a
target, rounded to target - 2..target + 2 and corrected greedily until the parameter-weighted mean is the target.
Outputs of layer norms are rounded per channel, ranges of outlier channels clipped, and one scale is left after the
channels' ratios have moved into the norm's affine and the next weight. Outputs of softmax are rounded to powers of two.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.vit import Attention, Heads, ViT, attention_probabilities
from suites.quantization.cost import costed
from suites.quantization.layers import Static
from suites.quantization.lrp import relevances, scores
from suites.quantization.network import calibration_batches, layers_of, on_meta, shown
from suites.quantization.rounding import rounded_network
from suites.quantization.whitepaper import activation_grids, rounded_weight

SPREAD = 2
#: Of a probability on its grid of powers of two.
LOG2_BITS = 4


@costed
def lrp_qvit(
    model: nn.Module,
    *,
    target: Annotated[int, Field(ge=4, le=8)] = 6,
    mixed: bool = True,
    clip: Annotated[float, Field(gt=0.5, le=1.0)] = 0.99,
    off: bool = False,
    calibration_samples: PositiveInt = 64,
    seed: Count = 0,
) -> nn.Module:
    """The ViT with bits by layer; off leaves it as it is.

    Args:
        model: a ViT that reads its class token.
        target: mean bits of weights in the blocks; activations have as many as the weight beside them.
        mixed: whether bits follow relevance; else all layers have the target's.
        clip: quantile of the channels' ranges behind a norm at which outlier channels are clipped.
        off: nothing is changed.
        calibration_samples: that ranges and relevance are taken from.
        seed: of the samples.

    Raises:
        ValueError: not such a model.
    """
    if not isinstance(model, ViT) or model.pool != "token":
        raise ValueError(f"lrp_qvit explains a ViT by its class token, and this is {type(model).__name__}")
    if off:
        return model
    layers = layers_of(model)
    inside = [path for path in layers if path.startswith("blocks.")]
    widths = dict.fromkeys(layers, 8)
    batches = [] if on_meta(model) else calibration_batches(model, calibration_samples, seed)
    found = dict.fromkeys(inside, 1.0)
    if mixed and batches:
        each = [scores(relevances(model, args[0])) for args in batches]
        found = {path: sum(one[path] for one in each) / len(each) for path in inside}
    sizes = [layers[path].weight.numel() for path in inside]
    widths |= dict(zip(inside, by_relevance([found[p] for p in inside], sizes, target), strict=True))
    if batches:
        _reparameterised(model, batches, clip)
    for block in model.blocks:
        block.attn = Log2Attention(block.attn, LOG2_BITS)  # type: ignore[arg-type]
    grids = {}
    for width in sorted(set(widths.values())):
        grids[width] = activation_grids(model, layers, batches, width)
    model.widths = widths  # type: ignore[assignment]
    return rounded_network(
        model,
        layers,
        lambda path, weight: rounded_weight(weight, widths[path], "channel", True),
        lambda path, _: Static(grids[widths[path]][path]),  # type: ignore[arg-type]
        {path: float(width) for path, width in widths.items()},
        {path: float(width) for path, width in widths.items()},
    )


def by_relevance(score: list[float], sizes: list[int], target: int, spread: int = SPREAD) -> list[int]:
    """Bits target - spread..target + spread by score, with a size-weighted mean as near the target as single steps get.

    Equal scores give the target everywhere.

    Args:
        score: of each layer.
        sizes: parameters of each layer.
        target: mean bits.
        spread: how far a layer may be from it.
    """
    mean = sum(score) / len(score)
    wanted = [target * s / mean if mean > 0 else float(target) for s in score]
    bits = [min(max(round(w), target - spread), target + spread) for w in wanted]
    budget, total = target * sum(sizes), sum(b * n for b, n in zip(bits, sizes, strict=True))
    while total != budget:
        sign = -1 if total > budget else 1
        left = abs(total - budget)
        movable = [
            i
            for i, width in enumerate(bits)
            if abs(width + sign - target) <= spread and abs(total + sign * sizes[i] - budget) < left
        ]
        if not movable:
            break
        pick = max(movable, key=lambda i: (sign * (wanted[i] - bits[i]), -i))
        bits[pick] += sign
        total += sign * sizes[pick]
    return bits


# ---------------------------------------------------------------------------------------------- norms and softmax


def channel_ratios(largest: Tensor, clip: float) -> Tensor:
    """Clipped range of each channel over the mean of all, a power of two, so that moving it is exact.

    Args:
        largest: max |x| of each channel.
        clip: quantile of the ranges that larger ones are cut to.
    """
    cut = torch.minimum(largest, largest.quantile(clip)).clamp(min=1e-12)
    return torch.exp2(torch.round(torch.log2(cut / cut.mean())))


def moved_into_affine(norm: Any, reader: nn.Linear, ratios: Tensor) -> None:
    """Divide a norm's channels by ratios and multiply the next weight: the function stays, one scale suffices."""
    with torch.no_grad():
        norm.weight.div_(ratios)
        if norm.bias is not None:
            norm.bias.div_(ratios)
        reader.weight.mul_(ratios)


def _reparameterised(model: ViT, batches: list[tuple[Tensor, ...]], clip: float) -> None:
    pairs: list[tuple[Any, nn.Linear]] = []
    blocks: Any = model.blocks
    for block in blocks:
        pairs += [(block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)]
    largest: dict[int, Tensor] = {}

    def see(place: int):
        def hook(_: nn.Module, __: object, out: Tensor) -> None:
            new = out.detach().abs().flatten(0, -2).amax(dim=0)
            largest[place] = torch.maximum(largest[place], new) if place in largest else new

        return hook

    handles = [norm.register_forward_hook(see(place)) for place, (norm, _) in enumerate(pairs)]
    shown(model, batches)
    for handle in handles:
        handle.remove()
    for place, (norm, reader) in enumerate(pairs):
        moved_into_affine(norm, reader, channel_ratios(largest[place], clip))


def log2_rounded(p: Tensor, bits: int) -> Tensor:
    """Shares in 0..1 on 2^0, 2^-1, .., 2^-(2^b - 1); what is smaller than half the least becomes 0."""
    least = 2**bits - 1
    exponent = torch.round(-torch.log2(p.clamp(min=1e-30)))
    return torch.where(exponent > least, torch.zeros_like(p), torch.exp2(-exponent.clamp(min=0)))


class Log2Attention(nn.Module):
    """Attention with its probabilities on a grid of powers of two."""

    def __init__(self, attention: Attention, bits: int):
        super().__init__()
        self.heads, self.bits = attention.heads, bits
        self.qkv, self.proj = attention.qkv, attention.proj
        self.keep_probabilities = False

    project = Attention.project

    def forward(self, x: Tensor, key_bias: Tensor | None = None) -> tuple[Tensor, Any]:
        """Attended features [batch, tokens, width], and the heads."""
        q, k, v = self.project(x)  # type: ignore[misc]
        mask = None if key_bias is None else key_bias[:, None, None, :]
        p = log2_rounded(attention_probabilities(q, k, mask), self.bits)
        return self.proj((p @ v).transpose(1, 2).flatten(2)), Heads(q, k, v, None)
