"""DynamicViT: small predictors choose the patches that go on (Rao et al. 2021, "DynamicViT")."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.settings import Blocks, Count, KeepRate
from suites.common.task import learning_task
from suites.common.vit import Block, Heads, Reducer, Tokens, ViT, attention_probabilities
from suites.vit_tokens.schedules import check_blocks
from suites.vit_tokens.scores import as_reducible, follow, new_positions, rows

#: Weight of the keep-ratio loss beside cross-entropy and distillation, as in the paper.
RATIO_WEIGHT, DISTILL_WEIGHT = 2.0, 0.5


def dynamicvit(
    model: nn.Module,
    *,
    rho: KeepRate = 0.7,
    at: Blocks = [4, 7, 10],  # noqa: B006 - read, never changed
    training_steps: Count = 0,
) -> ViT:
    """The ViT with a predictor before some blocks that keeps int(P rho^s) of its P patches at stage s.

    Args:
        model: a ViT of suites.common.
        rho: share kept per stage.
        at: blocks, counted from 1, before which patches are dropped.
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
    teacher = copy.deepcopy(vit) if training_steps else None
    for stage, number in enumerate(blocks, start=1):
        keep = max(1, int(patches * rho**stage))
        vit.blocks[number - 1].enter = KeepPredicted(vit.width, keep).to(vit.pos_embed)
    if teacher is not None:
        _train_once(vit, teacher, rho, blocks, training_steps)
    return vit


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
        score = self.predictor(tokens.x[:, special:])[..., 0]
        kept = score.topk(self.keep, dim=-1).indices.sort(dim=-1).values + special
        first = torch.arange(special, device=kept.device).expand(len(kept), -1)
        index = torch.cat([first, kept], dim=1)
        owner = follow(tokens.owner, new_positions(index, tokens.count)) if tokens.owner is not None else None
        return Tokens(rows(tokens.x, index), special, owner=owner)


def _train_once(vit: ViT, teacher: ViT, rho: float, blocks: tuple[int, ...], steps: int) -> None:
    task = learning_task(vit, "dynamicvit(training_steps)", "set training_steps=0 or take a digits model")
    del teacher.task
    key = {"rho": rho, "at": list(blocks), "steps": steps}

    def make() -> dict[str, Tensor]:
        train(vit, teacher, rho, task.training_batches(32, steps, 0), steps)
        return vit.state_dict()

    vit.load_state_dict(task.remembered("dynamicvit", key, make))


def train(
    vit: ViT, teacher: ViT, rho: float, batches: Iterator[tuple[Tensor, Tensor]], steps: int, rate: float = 1e-3
) -> list[float]:
    """Train predictors and model with masked attention; cross-entropy, keep-ratio and distillation losses, per step."""
    fresh = [p for block in vit.blocks if block.enter is not None for p in block.enter.parameters()]  # type: ignore[union-attr]
    known = {id(p) for p in fresh}
    groups = [
        {"params": fresh, "lr": rate},
        {"params": [p for p in vit.parameters() if id(p) not in known], "lr": rate / 10},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    losses = []
    vit.train()
    for images, labels in batches:
        logits, ratios = masked_forward(vit, images)
        with torch.no_grad():
            wanted = teacher(images).log_softmax(dim=-1)
        targets = torch.tensor([rho**s for s in range(1, len(ratios) + 1)])
        loss = F.cross_entropy(logits, labels) + RATIO_WEIGHT * (torch.stack(ratios) - targets).square().mean()
        loss = loss + DISTILL_WEIGHT * F.kl_div(logits.log_softmax(-1), wanted, reduction="batchmean", log_target=True)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vit.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    vit.eval()
    return losses


def masked_forward(vit: ViT, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and the share of patches kept at each stage, with all tokens computed and dropped ones masked.

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
            ratios.append(mask.mean())
        policy = torch.cat([mask.new_ones(len(mask), special), mask], dim=1)
        x = _masked_block(block, x, policy)  # type: ignore[arg-type]
    return vit.classify(Tokens(x, special)), ratios


def _masked_block(block: Block, x: Tensor, policy: Tensor) -> Tensor:
    q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, block.attn.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    own = torch.eye(x.shape[1], dtype=x.dtype)
    allowed = policy[:, None, None, :] * (1 - own) + own
    weights = attention_probabilities(q, k) * allowed
    weights = weights / weights.sum(dim=-1, keepdim=True)
    x = x + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
    return x + block.mlp(block.norm2(x))
