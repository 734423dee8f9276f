"""LookupViT: heavy work on few compressed tokens, light work on all of them (Koner et al. 2024, "LookupViT").

What the paper's text left open is decided here: the class token is dropped, each set of tokens has a head that reads
its mean, both heads learn alike and the answer is the mean of their logits, and the rows of the transposed map are
scaled to sum to one. The compressed tokens' blocks keep the plain model's weights, and the exchange between the two
sets starts from those of the block's attention, which is where training goes on from; the lookup tokens' MLP is new.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.finetuning import REBUILT_RATE, finetuned, needs_training, teacher_for
from suites.common.training import Loss, taught
from suites.common.vit import Attention, Block, Mlp, Tokens, ViT, attention_probabilities
from suites.vit_tokens.scores import as_reducible
from suites.vit_tokens.stvit import read_the_mean, split_heads


def lookupvit(model: nn.Module, *, tokens: PositiveInt = 25, ratio: Positive = 1.0, training_steps: Count = 0) -> ViT:
    """The ViT with every block replaced by a pair of compressed and lookup streams.

    Args:
        model: a ViT of suites.common without a distillation token.
        tokens: compressed tokens; a square number.
        ratio: hidden width over width of the lookup tokens' MLP.
        training_steps: trains all of it, with the plain model's answers beside the labels, on the task the model was
            loaded by; 0 leaves the new weights untrained, which is right for cost and meaningless for accuracy.

    Raises:
        ValueError: not such a model, nothing to train on, or a number of tokens that is no square below its patches.
    """
    vit = as_reducible(model, "lookupvit")
    side = math.isqrt(tokens)
    if side * side != tokens or side > vit.grid:
        raise ValueError(f"tokens={tokens} must be a square number in 1..{vit.grid**2} (depth {vit.depth})")
    if vit.head_dist is not None:
        raise ValueError("lookupvit reads a mean over tokens: build the model with distilled=False")
    teacher = teacher_for(vit, training_steps)
    read_the_mean(vit)
    pairs = [PairedBlock(block, vit.width, side, vit.grid, ratio) for block in vit.blocks]  # type: ignore[arg-type]
    vit.blocks = nn.ModuleList(pairs).to(vit.pos_embed)
    vit.reader = BothHeads(vit)
    needs_training(vit, "LookupViT's exchange", training_steps)
    fresh = [p for pair in pairs for p in pair.mlp.parameters()]
    settings = {"tokens": tokens, "ratio": ratio}
    wanted = None if teacher is None else loss(vit, teacher)
    return finetuned(vit, teacher, lookupvit, settings, training_steps, loss=wanted, fresh=fresh, rate=REBUILT_RATE)


def _copy(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    with torch.no_grad():
        linear.weight.copy_(weight)
        nn.init.zeros_(linear.bias)
        if bias is not None:
            linear.bias.copy_(bias)


@dataclass(frozen=True)
class PairedTokens(Tokens):
    """Compressed tokens, with all the lookup tokens beside them, [batch, patches, width]."""

    lookup: Tensor | None = None


class BothHeads(nn.Module):
    """Logits of both sets of tokens: a norm and a head each for their means; the answer is the mean of both."""

    def __init__(self, vit: ViT):
        """Takes the model's final norm and head over; the lookup tokens' start as copies."""
        super().__init__()
        self.norm, self.head = vit.fc_norm, vit.head
        self.norm_lookup, self.head_lookup = copy.deepcopy(vit.fc_norm), copy.deepcopy(vit.head)
        vit.fc_norm, vit.head = nn.Identity(), nn.Identity()  # type: ignore[assignment]

    def logits(self, tokens: PairedTokens) -> tuple[Tensor, Tensor]:
        """By the compressed and by the lookup tokens, each [batch, classes]."""
        assert tokens.lookup is not None
        looked = self.head_lookup(self.norm_lookup(tokens.lookup.mean(dim=1)))
        return self.head(self.norm(tokens.x.mean(dim=1))), looked

    def forward(self, tokens: PairedTokens) -> Tensor:
        """Logits, [batch, classes]."""
        compressed, lookup = self.logits(tokens)
        return (compressed + lookup) / 2


def loss(vit: ViT, teacher: ViT) -> Loss:
    """Both heads learn alike: labels and the teacher's answers."""

    def value(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(images)
        compressed, lookup = vit.reader.logits(vit.encode(images))  # type: ignore[union-attr, operator]
        return (taught(compressed, labels, wanted) + taught(lookup, labels, wanted)) / 2

    return value


class PairedBlock(nn.Module):
    """Compressed tokens look up, think and write back."""

    def __init__(self, block: Block, width: int, side: int, grid: int, ratio: float):
        super().__init__()
        attn: Attention = block.attn
        self.side, self.grid, self.heads = side, grid, attn.heads
        self.norm_compressed, self.norm_lookup = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.block = block
        self.norm_back = nn.LayerNorm(width, eps=1e-6)
        self.v_back, self.out_back = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_mlp, self.mlp = nn.LayerNorm(width, eps=1e-6), Mlp(width, max(1, round(ratio * width)))
        self._start_from(block)

    def _start_from(self, block: Block) -> None:
        """Give the exchange the weights of the block's norms and attention."""
        width = self.q.out_features
        for norm in (self.norm_compressed, self.norm_lookup, self.norm_back):
            norm.load_state_dict(block.norm1.state_dict())
        self.norm_mlp.load_state_dict(block.norm2.state_dict())
        qkv = block.attn.qkv
        for linear, part in (
            (self.q, slice(width)),
            (self.kv, slice(width, None)),
            (self.v_back, slice(2 * width, None)),
        ):
            _copy(linear, qkv.weight[part], None if qkv.bias is None else qkv.bias[part])
        for linear in (self.out, self.out_back):
            _copy(linear, block.attn.proj.weight, block.attn.proj.bias)

    def forward(self, tokens: Tokens) -> PairedTokens:
        """Both sets after the block."""
        lookup = tokens.lookup if isinstance(tokens, PairedTokens) else None
        lookup = tokens.x if lookup is None else lookup
        compressed = tokens.x if isinstance(tokens, PairedTokens) else self._resize(tokens.x)
        compressed, probabilities = self._gather(compressed, lookup)
        compressed = self.block(Tokens(compressed, 0)).x
        lookup = self._scatter(compressed, lookup, probabilities)
        return PairedTokens(compressed, 0, lookup=lookup + self.mlp(self.norm_mlp(lookup)))

    def _resize(self, x: Tensor) -> Tensor:
        wide = x if x.element_size() >= 4 else x.float()  # a CPU resizes no half precision
        image = wide.transpose(1, 2).unflatten(-1, (self.grid, self.grid))
        small = F.interpolate(image, size=(self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        return small.flatten(2).transpose(1, 2).to(x.dtype)

    def _gather(self, compressed: Tensor, lookup: Tensor) -> tuple[Tensor, Tensor]:
        """Compressed tokens + attention to the lookup tokens, and its map [batch, heads, compressed, lookup]."""
        keys = self.kv(self.norm_lookup(lookup))
        q, k, v = (
            split_heads(t, self.heads) for t in (self.q(self.norm_compressed(compressed)), *keys.chunk(2, dim=-1))
        )
        probabilities = attention_probabilities(q, k)
        return compressed + self.out((probabilities @ v).transpose(1, 2).flatten(2)), probabilities

    def _scatter(self, compressed: Tensor, lookup: Tensor, probabilities: Tensor) -> Tensor:
        """Lookup tokens + values of the compressed ones by the transposed map, whose rows then sum to one."""
        back = probabilities.transpose(-2, -1)
        back = back / back.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(back.dtype).tiny)  # fp16 may underflow
        v = split_heads(self.v_back(self.norm_back(compressed)), self.heads)
        return lookup + self.out_back((back @ v).transpose(1, 2).flatten(2))
