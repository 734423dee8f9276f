"""EET, a reconstruction: content-based pruning in stages for fine-grained retrieval (Jiang et al. 2025).

A patch counts by its feature response and by the class token's attention. In training a student that drops patches
learns from the teacher that keeps them: its embedding (representation transfer) and where it looks (region guidance).
The paper's formulas could not be read: how the two scores are joined, the stages and the weights of the loss are
choices of ours.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, KeepRate, Rate
from suites.common.finetuning import finetuned, needs_class_token_read, teacher_for
from suites.common.training import Loss
from suites.common.vit import Heads, Reducer, Tokens, ViT
from suites.vit_tokens.schedules import check_blocks, rates_per_stage
from suites.vit_tokens.scores import as_reducible, class_attention, install, kept_in_order


def eet(
    model: nn.Module,
    *,
    keep_rate: KeepRate | list[KeepRate] = 0.7,
    balance: Rate = 0.5,
    at: Blocks | None = None,
    training_steps: Count = 0,
) -> ViT:
    """The ViT that drops the patches with the least response and attention between attention and MLP of some blocks.

    Args:
        model: a ViT of suites.common with a class token.
        keep_rate: share of the patches kept, rounded up; one number, or one per block in `at`.
        balance: weight of the feature response against the class token's attention, both scaled to sum to one.
        at: blocks, counted from 1, that drop patches; None for the quarters, which are 4, 7 and 10 of 12.
        training_steps: distils from the plain model on the task the model was loaded by; 0 leaves the weights.

    Raises:
        ValueError: not such a model, numbers out of range, or nothing to train on.
    """
    vit = as_reducible(model, "eet", needs_class_token=True)
    blocks = check_blocks(at, vit.depth)
    rates = rates_per_stage(keep_rate, len(blocks), "keep_rate", vit.depth)
    if not 0 <= balance <= 1:
        raise ValueError(f"balance={balance} must lie in 0..1 (depth {vit.depth})")
    teacher = teacher_for(vit, training_steps)
    if teacher is not None:
        needs_class_token_read(vit, "eet")
    install(vit, {b: KeepContent(rate, balance) for b, rate in zip(blocks, rates, strict=True) if rate < 1})
    pruned = any(rate < 1 for rate in rates)
    wanted = loss(vit, teacher) if teacher is not None and pruned else None
    settings = {"rates": list(rates), "balance": balance, "at": list(blocks)}
    return finetuned(vit, teacher, eet, settings, training_steps, loss=wanted)


def content_score(x: Tensor, heads: Heads, tokens: Tokens, balance: float) -> Tensor:
    """Balance x response + (1 - balance) x attention of each patch, both summing to one, [batch, patches]."""
    response = x[:, tokens.protected :].norm(dim=-1)
    attention = class_attention(heads, tokens.key_bias, tokens.protected)
    response, attention = (s / s.sum(dim=-1, keepdim=True) for s in (response, attention))
    return balance * response + (1 - balance) * attention


class KeepContent(Reducer):
    """Keeps the ceil(rate x patches) patches with the highest content score, in raster order."""

    def __init__(self, keep_rate: float, balance: float):
        super().__init__()
        self.keep_rate, self.balance = keep_rate, balance
        self.score: Tensor | None = None

    def forward(self, tokens: Tokens, heads: Heads | None) -> Tokens:
        """Special tokens and the kept patches."""
        assert heads is not None
        patches = tokens.count - tokens.protected
        keep = math.ceil(self.keep_rate * patches)
        if keep >= patches:
            return tokens
        score = content_score(tokens.x, heads, tokens, self.balance)
        self.score = score if self.training else None
        return kept_in_order(tokens, score, keep)


def loss(student: ViT, teacher: ViT) -> Loss:
    """Cross-entropy + representation transfer + region guidance.

    The student's first scores of its patches are drawn towards where the teacher's last block looks.
    """
    first = next(b.reduce for b in student.blocks if isinstance(b.reduce, KeepContent))

    def value(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted, looked = _embedding_and_region(teacher, images)
        embedding, _ = _embedding_and_region(student, images)
        total = F.cross_entropy(_answer(student, embedding), labels)
        total = total + (1 - F.cosine_similarity(embedding[:, 0], wanted[:, 0], dim=-1)).mean()
        if first.score is not None:
            total = total + F.kl_div(first.score.clamp(min=1e-9).log(), looked, reduction="batchmean")
            first.score = None  # its graph ends with this step
        return total

    return value


def _answer(vit: ViT, embedding: Tensor) -> Tensor:
    """Logits of the special tokens' embeddings [batch, special, width]."""
    if vit.head_dist is not None:
        return (vit.head(embedding[:, 0]) + vit.head_dist(embedding[:, 1])) / 2
    return vit.head(embedding[:, 0])


def _embedding_and_region(vit: ViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Special embeddings [batch, special, width], and the last block's class attention to patches, summing to 1."""
    tokens = vit.embed(images)
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
    last = vit.blocks[-1]
    _, heads = last.attn(last.norm1(tokens.x))  # type: ignore[operator]
    region = class_attention(heads, tokens.key_bias, tokens.protected)
    return vit.norm(last(tokens).x)[:, : tokens.protected], region / region.sum(dim=-1, keepdim=True)
