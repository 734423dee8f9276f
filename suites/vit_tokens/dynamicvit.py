"""DynamicViT: small predictors choose the patches that go on (Rao et al. 2021, "DynamicViT")."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, KeepRate
from suites.common.finetuning import finetuned, needs_class_token_read, needs_training, teacher_for
from suites.common.training import Loss, divergence
from suites.common.vit import Block, Heads, Reducer, Tokens, ViT, attention_probabilities
from suites.vit_tokens.schedules import check_blocks
from suites.vit_tokens.scores import as_reducible, enter, kept_in_order

#: Weights beside cross-entropy, as in the paper: share of patches kept, the teacher's answers, its tokens.
RATIO_WEIGHT, ANSWER_WEIGHT, TOKEN_WEIGHT = 2.0, 0.5, 0.5


def dynamicvit(
    model: nn.Module,
    *,
    rho: KeepRate = 0.7,
    at: Blocks | None = None,
    training_steps: Count = 0,
) -> ViT:
    """The ViT with a predictor before some blocks that keeps int(P rho^s) of its P patches at stage s.

    Args:
        model: a ViT of suites.common.
        rho: share kept per stage.
        at: blocks, counted from 1, before which patches are dropped; None for the quarters, which are 4, 7 and 10
            of 12.
        training_steps: trains predictors and model on the task the model was loaded by; 0 leaves the predictors random,
            which is right for cost and meaningless for accuracy.

    Raises:
        ValueError: not such a model, a rate outside (0, 1], blocks it does not have, or nothing to train on.
    """
    vit = as_reducible(model, "dynamicvit")
    blocks = check_blocks(at, vit.depth)
    if not 0 < rho <= 1:
        raise ValueError(f"rho={rho}: a keep rate must lie in 0 < rho <= 1 (depth {vit.depth})")
    if rho == 1:
        return vit
    patches = vit.grid**2
    teacher = teacher_for(vit, training_steps)
    if teacher is not None:
        needs_class_token_read(vit, "dynamicvit")
    fresh = []
    for stage, number in enumerate(blocks, start=1):
        keep = max(1, int(patches * rho**stage))
        reducer = KeepPredicted(vit.width, keep).to(vit.pos_embed)
        fresh += list(reducer.parameters())
        enter(vit, number, reducer)
    needs_training(vit, "DynamicViT's predictor", training_steps)
    wanted = None if teacher is None else loss(vit, teacher, rho)
    settings = {"rho": rho, "at": list(blocks)}
    return finetuned(vit, teacher, dynamicvit, settings, training_steps, loss=wanted, fresh=fresh)


class Predictor(nn.Module):
    """Log-probabilities to keep or drop each patch; half of the channels see the mean over all patches."""

    def __init__(self, width: int):
        super().__init__()
        self.enter = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.leave = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[batch, patches, 2]: keep, drop; `mask` [batch, patches] weighs the patches of the mean."""
        local, shared = self.enter(x).chunk(2, dim=-1)
        weight = torch.ones_like(x[..., :1]) if mask is None else mask[..., None].to(x.dtype)
        mean = (shared * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return self.leave(torch.cat([local, mean.expand_as(local)], dim=-1)).log_softmax(dim=-1)


class KeepPredicted(Reducer):
    """Keeps the patches whose predicted probability is highest, in raster order."""

    def __init__(self, width: int, keep: int):
        super().__init__()
        self.keep = keep
        self.predictor = Predictor(width)

    def forward(self, tokens: Tokens, heads: Heads | None) -> Tokens:
        """Special tokens and the kept patches."""
        special = tokens.protected
        if self.keep >= tokens.count - special:
            return tokens
        return kept_in_order(tokens, self.predictor(tokens.x[:, special:])[..., 0], self.keep)


def loss(vit: ViT, teacher: ViT, rho: float) -> Loss:
    """The paper's four terms: labels, the teacher's answers and its tokens, and the share of patches kept per stage."""

    def value(images: Tensor, labels: Tensor) -> Tensor:
        masked = masked_forward(vit, images)
        with torch.no_grad():
            tokens = teacher.encode(images)
            wanted = teacher.classify(tokens)
        targets = masked.x.new_tensor([rho**s for s in range(1, len(masked.ratios) + 1)])
        ratio = (torch.stack(masked.ratios) - targets[:, None]).square().mean()
        apart = (masked.x - tokens.x).square().mean(dim=-1)[:, tokens.protected :]
        features = (apart * masked.mask).sum() / masked.mask.sum().clamp(min=1)
        answers = divergence(masked.logits, wanted)
        return (
            F.cross_entropy(masked.logits, labels)
            + RATIO_WEIGHT * ratio
            + ANSWER_WEIGHT * answers
            + TOKEN_WEIGHT * features
        )

    return value


class Masked(NamedTuple):
    """A forward that computed every token: logits, share of patches kept per stage, final tokens and who is kept.

    `ratios` holds [batch] per stage, `x` is [batch, tokens, width], `mask` [batch, patches].
    """

    logits: Tensor
    ratios: list[Tensor]
    x: Tensor
    mask: Tensor


def masked_forward(vit: ViT, images: Tensor) -> Masked:
    """What the model answers with all tokens computed and dropped ones masked.

    Decisions are hard samples of a Gumbel softmax with straight-through gradients. A dropped token attends
    only itself and what is kept, and no one attends to it (Rao et al. 2021, section 3.3).
    """
    tokens = vit.embed(images)
    x, special = tokens.x, tokens.protected
    mask = x.new_ones(x.shape[0], x.shape[1] - special)
    ratios = []
    for block in vit.blocks:
        if isinstance(block.enter, KeepPredicted):
            decision = F.gumbel_softmax(block.enter.predictor(x[:, special:], mask), hard=True)[..., 0]
            mask = mask * decision
            ratios.append(mask.mean(dim=1))
        policy = torch.cat([mask.new_ones(len(mask), special), mask], dim=1)
        x = _masked_block(block, x, policy)  # type: ignore[arg-type]
    return Masked(vit.classify(Tokens(x, special)), ratios, x, mask)


def _masked_block(block: Block, x: Tensor, policy: Tensor) -> Tensor:
    q, k, v = block.attn.project(block.norm1(x))
    own = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    allowed = policy[:, None, None, :] * (1 - own) + own
    weights = attention_probabilities(q, k) * allowed
    weights = weights / weights.sum(dim=-1, keepdim=True)
    x = x + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
    return x + block.mlp(block.norm2(x))
