"""Layer-wise relevance propagation through a ViT, written out for its blocks.

Linear layers by the epsilon rule (Bach et al. 2015, formula 58): R_j = sum_i x_j w_ij R_i / (z_i + eps sign z_i),
biases left out. The two products of attention share relevance equally between their operands; softmax, norms and
activations pass it on; a residual sum splits it by magnitude. Relevance of a class starts as its logit at the class
token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suites.common.vit import attention_probabilities

EPSILON = 1e-6


def stable(z: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Z moved away from zero by epsilon, in its own direction."""
    return z + epsilon * torch.where(z >= 0, 1.0, -1.0)


def through_linear(x: Tensor, weight: Tensor, relevance: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Relevance of the inputs x [.., in] of a linear layer [out, in] from that of its outputs [.., out]."""
    z = x @ weight.t()
    return x * ((relevance / stable(z, epsilon)) @ weight)


def through_product(a: Tensor, b: Tensor, relevance: Tensor, epsilon: float = EPSILON) -> tuple[Tensor, Tensor]:
    """Relevance of both operands of a @ b, half each."""
    share = relevance / (2 * stable(a @ b, epsilon))
    return a * (share @ b.transpose(-2, -1)), b * (a.transpose(-2, -1) @ share)


def through_sum(a: Tensor, b: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of two summands by their magnitudes."""
    whole = a.abs() + b.abs()
    share = torch.where(whole > 0, a.abs() / whole.clamp(min=1e-30), torch.full_like(whole, 0.5))
    return share * relevance, (1 - share) * relevance


def through_block(block: Any, x: Tensor, relevance: Tensor, found: dict[str, Tensor], path: str) -> Tensor:
    """Relevance of a block's input from that of its output; what reaches each layer's output goes to `found`."""
    seen = block.norm1(x)
    q, k, v = block.attn.project(seen)
    p = attention_probabilities(q, k)
    mixed = p @ v
    joined = mixed.transpose(1, 2).flatten(2)
    attended = block.attn.proj(joined)
    middle = x + attended
    inside = block.norm2(middle)
    hidden = block.mlp.fc1(inside)
    active = block.mlp.act(hidden)
    added = block.mlp.fc2(active)

    beside, through = through_sum(middle, added, relevance)
    found[f"{path}.mlp.fc2"] = through
    through = through_linear(active, block.mlp.fc2.weight, through)
    found[f"{path}.mlp.fc1"] = through
    relevance = beside + through_linear(inside, block.mlp.fc1.weight, through)

    beside, through = through_sum(x, attended, relevance)
    found[f"{path}.attn.proj"] = through
    through = through_linear(joined, block.attn.proj.weight, through)
    heads = through.unflatten(2, (block.attn.heads, -1)).transpose(1, 2)
    of_p, of_v = through_product(p, v, heads)
    of_q, of_k = through_product(q * q.shape[-1] ** -0.5, k.transpose(-2, -1), of_p)
    parts = torch.stack([of_q, of_k.transpose(-2, -1), of_v])  # [3, batch, heads, tokens, size]
    of_qkv = parts.permute(1, 3, 0, 2, 4).flatten(2)
    found[f"{path}.attn.qkv"] = of_qkv
    return beside + through_linear(seen, block.attn.qkv.weight, of_qkv)


@torch.no_grad()
def relevances(model: Any, images: Tensor, classes: Tensor | None = None) -> dict[str, Tensor]:
    """Relevance that reaches the output of every layer of a ViT's blocks, the head and the input, by path.

    Args:
        model: a `ViT` that reads its class token.
        images: [batch, channels, side, side].
        classes: whose logit is explained; None for the largest.
    """
    tokens = model.embed(images)
    inputs = []
    for block in model.blocks:
        inputs.append(tokens.x)
        tokens = block(tokens)
    last = model.norm(tokens.x)[:, 0]
    logits = model.head(last)
    picked = logits.argmax(dim=1) if classes is None else classes
    start = torch.zeros_like(logits).scatter(1, picked[:, None], logits.gather(1, picked[:, None]))
    found = {"head": start}
    relevance = torch.zeros_like(tokens.x)
    relevance[:, 0] = through_linear(last, model.head.weight, start)
    for place in reversed(range(len(model.blocks))):
        relevance = through_block(model.blocks[place], inputs[place], relevance, found, f"blocks.{place}")
    found["input"] = relevance
    return found


def scores(found: dict[str, Tensor]) -> dict[str, float]:
    """Mean |relevance| at each layer's output, over the sum of its kind (the last name of its path)."""
    raw = {path: float(value.abs().mean()) for path, value in found.items() if path.startswith("blocks.")}
    sums: dict[str, float] = {}
    for path, value in raw.items():
        kind = path.rpartition(".")[2]
        sums[kind] = sums.get(kind, 0.0) + value
    return {path: value / max(sums[path.rpartition(".")[2]], 1e-30) for path, value in raw.items()}
