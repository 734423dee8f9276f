"""EET: content-based pruning in stages for fine-grained retrieval, distilled from the whole-token model.

A patch counts by its feature response and by the class token's attention. In training a student that drops patches learns from
the teacher that keeps them: its embedding (representation transfer) and where it looks (region guidance).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.settings import Blocks, Count, KeepRate, Rate
from suites.common.task import learning_task
from suites.common.vit import Heads, Reducer, Tokens, ViT
from suites.vit_tokens.schedules import check_blocks, rates_per_stage
from suites.vit_tokens.scores import as_reducible, class_attention, follow, install, new_positions, rows


def eet(
    model: nn.Module,
    *,
    keep_rate: KeepRate | list[KeepRate] = 0.7,
    balance: Rate = 0.5,
    at: Blocks = [4, 7, 10],  # noqa: B006 - read, never changed
    training_steps: Count = 0,
) -> ViT:
    """The ViT that drops the patches with the least response and attention between attention and MLP of some blocks.

    Args:
        model: a ViT of suites.common with a class token.
        keep_rate: share of the patches kept, rounded up; one number, or one per block in `at`.
        balance: weight of the feature response against the class token's attention, both scaled to sum to one.
        at: blocks, counted from 1, that drop patches.
        training_steps: distils from the plain model on the task the model was loaded by; 0 leaves the weights.

    Raises:
        ValueError: not such a model, numbers out of range, or nothing to train on.
    """
    vit = as_reducible(model, "eet", needs_class_token=True)
    blocks = check_blocks(at, vit.depth)
    rates = rates_per_stage(keep_rate, len(blocks), "keep_rate", vit.depth)
    if not 0 <= balance <= 1:
        raise ValueError(f"balance={balance} must lie in 0..1 (depth {vit.depth})")
    teacher = copy.deepcopy(vit) if training_steps else None
    install(vit, {b: KeepContent(rate, balance) for b, rate in zip(blocks, rates, strict=True)})
    if teacher is not None:
        task = learning_task(vit, "eet(training_steps)", "set training_steps=0 or take a digits model")

        def make() -> dict[str, Tensor]:
            distil(vit, teacher, task.training_batches(32, training_steps, 0), training_steps)
            return vit.state_dict()

        key = {"rates": list(rates), "balance": balance, "at": list(blocks), "steps": training_steps}
        vit.load_state_dict(task.remembered("eet", key, make))
    return vit


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
        special, patches = tokens.protected, tokens.count - tokens.protected
        keep = math.ceil(self.keep_rate * patches)
        if keep >= patches:
            return tokens
        score = content_score(tokens.x, heads, tokens, self.balance)
        self.score = score if self.training else None
        kept = score.topk(keep, dim=-1).indices.sort(dim=-1).values + special
        index = torch.cat([torch.arange(special, device=kept.device).expand(len(kept), -1), kept], dim=1)
        owner = follow(tokens.owner, new_positions(index, tokens.count)) if tokens.owner is not None else None
        return Tokens(rows(tokens.x, index), special, owner=owner)


def distil(
    student: ViT, teacher: ViT, batches: Iterator[tuple[Tensor, Tensor]], steps: int, rate: float = 3e-4
) -> list[float]:
    """Train the student; cross-entropy + representation transfer + region guidance, per step."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    first = next(b.reduce for b in student.blocks if isinstance(b.reduce, KeepContent))
    losses = []
    student.train()
    for images, labels in batches:
        with torch.no_grad():
            wanted, looked = _embedding_and_region(teacher, images)
        embedding, _ = _embedding_and_region(student, images)
        loss = F.cross_entropy(student.head(embedding), labels)
        loss = loss + (1 - F.cosine_similarity(embedding, wanted, dim=-1)).mean()
        if first.score is not None:
            loss = loss + F.kl_div(first.score.clamp(min=1e-9).log(), looked, reduction="batchmean")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    student.eval()
    return losses


def _embedding_and_region(vit: ViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Class embedding [batch, width] and the last block's class attention to its patches, summing to one."""
    tokens = vit.embed(images)
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
    last = vit.blocks[-1]
    _, heads = last.attn(last.norm1(tokens.x))  # type: ignore[operator]
    region = class_attention(heads, tokens.key_bias, tokens.protected)
    return vit.norm(last(tokens).x)[:, 0], region / region.sum(dim=-1, keepdim=True)
