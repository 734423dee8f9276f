"""DiffRate: prune the unimportant, merge the next, at rates that can be learned (Chen et al. 2023, "DiffRate")."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Counts, Positive, PositiveInt
from suites.common.finetuning import finetuned, teacher_for
from suites.common.task import learning_task
from suites.common.vit import Heads, Reducer, Tokens, ViT
from suites.vit_tokens.diffrate_learning import LEAST_SIZE, learn
from suites.vit_tokens.schedules import kept_per_block
from suites.vit_tokens.scores import as_reducible, class_attention, follow, install, selected


def diffrate(
    model: nn.Module,
    *,
    prune: Counts | None = None,
    merge: Counts | None = None,
    target_gmacs: Positive | None = None,
    granularity: PositiveInt = 4,
    learning_steps: PositiveInt = 50,
    training_steps: Count = 0,
) -> ViT:
    """The ViT that sorts tokens by importance, cuts the tail and merges what is left of it into the head.

    Args:
        model: a ViT of suites.common with a class token.
        prune: tokens kept by pruning in each block, special tokens included; a count above what is there prunes none.
        merge: tokens kept by merging in each block, likewise. Effective is min(N, prune, merge). The first entry of
            both is not used: the method never compresses the first block.
        target_gmacs: learns both lists for this cost (matmul convention, 10^9 MACs per image) on the task that the
            model was loaded by; the weights stay as they are.
        granularity: step between the kept counts that learning considers.
        learning_steps: batches to learn the lists from.
        training_steps: fine-tunes with the method in place, with the plain model's answers beside the labels, on the
            task the model was loaded by; 0 leaves the weights: off the shelf.

    Raises:
        ValueError: not such a model, neither lists nor target given or both, or numbers that do not fit its depth.
    """
    vit = as_reducible(model, "diffrate", needs_class_token=True)
    given = prune is not None or merge is not None
    if given == (target_gmacs is not None):
        raise ValueError(
            f"diffrate needs either prune=[...] and merge=[...], kept counts for each of {vit.depth} blocks (one of "
            "them may be left out), or target_gmacs to learn them for"
        )
    if target_gmacs is not None:
        prune, merge = _learned(vit, target_gmacs, granularity, learning_steps)
    kept = kept_per_block(prune, "prune", vit.depth, vit.protected + 1)
    left = kept_per_block(merge, "merge", vit.depth, vit.protected + 1)
    pairs = list(enumerate(zip(kept, left, strict=True), start=1))[1:]
    teacher = teacher_for(vit, training_steps)
    install(vit, {number: PruneThenMerge(p, m) for number, (p, m) in pairs if (p, m) != (None, None)})
    return finetuned(vit, teacher, diffrate, {"prune": kept, "merge": left}, training_steps)


def _learned(vit: ViT, target_gmacs: float, granularity: int, steps: int) -> tuple[list[int], list[int]]:
    """Both lists for a target, learned once and then read from the task's cache."""
    task = learning_task(vit, "diffrate(target_gmacs)", "give prune=[...] and merge=[...], or take a digits model")

    def make() -> dict[str, Tensor]:
        lists = learn(vit, target_gmacs * 1e9, task.training_batches(32, steps, 0), granularity=granularity)
        return {name: torch.tensor(values) for name, values in zip(("prune", "merge"), lists, strict=True)}

    key = {"target_gmacs": target_gmacs, "granularity": granularity, "steps": steps}
    found = task.remembered("diffrate", key, make)
    return found["prune"].tolist(), found["merge"].tolist()


class PruneThenMerge(Reducer):
    """Keeps the first `prune` tokens in order of importance and merges those beyond `merge` into the ones before."""

    def __init__(self, prune: int | None, merge: int | None):
        super().__init__()
        self.prune, self.merge = prune, merge

    def forward(self, tokens: Tokens, heads: Heads | None) -> Tokens:
        """min(N, prune, merge) tokens, special ones first, then by importance."""
        assert heads is not None
        prune = tokens.count if self.prune is None else min(self.prune, tokens.count)
        merge = prune if self.merge is None else min(self.merge, prune)
        if merge >= tokens.count:
            return tokens
        tokens = keep_important(tokens, class_attention(heads, tokens.key_bias, tokens.protected), prune)
        return merge_tail(tokens, merge) if merge < prune else tokens


def keep_important(tokens: Tokens, importance: Tensor, keep: int) -> Tokens:
    """The special tokens and the most important patches, most important first; `keep` in all."""
    special = tokens.protected
    index = importance.argsort(dim=-1, descending=True)[:, : keep - special] + special
    index = torch.cat([torch.arange(special, device=index.device).expand(len(index), -1), index], dim=1)
    return selected(tokens, index)


def merge_tail(tokens: Tokens, keep: int) -> Tokens:
    """The first `keep` tokens, each the plain mean of itself and the later tokens most similar to it.

    Similarity is the cosine of the features; special tokens receive nothing. A size grows by the sizes of the sources
    times their cosine, and its logarithm is the attention bias from here on.
    """
    head, tail, special = tokens.x[:, :keep], tokens.x[:, keep:], tokens.protected
    unit = F.normalize(tokens.x[:, special:], dim=-1)
    cosine, pick = (unit[:, keep - special :] @ unit[:, : keep - special].transpose(-2, -1)).max(dim=-1)
    pick = pick + special
    index = pick[..., None].expand_as(tail)
    x = head.scatter_reduce(1, index, tail, reduce="mean", include_self=True)
    size = tokens.sizes[:, :keep].scatter_add(1, pick, tokens.sizes[:, keep:] * cosine.float()).clamp(min=LEAST_SIZE)
    owner = tokens.owner
    if owner is not None:
        stay = torch.arange(keep, device=pick.device).expand(len(pick), -1)
        owner = follow(owner, torch.cat([stay, pick], dim=1))
    return replace(tokens, x=x, size=size, key_bias=size.log().to(x.dtype), owner=owner)
