"""Sparse-vDiT: one of five patterns for every head of a video transformer; Chen et al. 2025, arXiv 2506.03065.

The choice is made offline: the pattern with the least error + lambda x cost on a few samples and steps;
full attention where every error is above a bound, nothing at all where leaving the head out is below its own. Heads
of a pattern in a layer run as one call. Ours: the error is relative, the cost is the share of the pairs, the global
columns are spread evenly, and one set of choices holds for all steps. No code was released.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.dit import Attention
from suites.common.rectified_flow import Course, FlowModel, noise
from suites.common.video_dit import VideoDit
from suites.diffusion.patterns import PATTERNS, Layout, density
from suites.diffusion.subjects import as_kind, is_of_diffusers, tell_pairs


def sparse_vdit(
    model: nn.Module,
    *,
    lam: Rate = 0.1,
    pattern: Literal["search", "full", "diagonal", "multi_diagonal", "stripe", "skip"] = "search",
    band: Count = 16,
    near: Count = 1,
    columns: PositiveInt = 16,
    bound: Rate = 0.5,
    skip_bound: Rate = 0.02,
    videos: PositiveInt = 2,
) -> nn.Module:
    """The video transformer whose heads attend in the patterns that a search chose; nothing is trained.

    Args:
        model: a video transformer of this house, or one of diffusers, where one pattern holds for all heads.
        lam: lambda, what a dense head costs in units of relative squared error.
        pattern: `search`, or this one for every head.
        band: half width of the diagonal, in tokens.
        near: half width of the multi-diagonal, in places of a frame.
        columns: global tokens of the stripe.
        bound: relative squared error above which a pattern is out of the question.
        skip_bound: relative squared error up to which a head may be left out.
        videos: of the search.

    Raises:
        ValueError: the model is no video transformer, or one of diffusers that is to be searched.
    """
    if is_of_diffusers(model, "sparse_vdit"):
        from suites.diffusion.sparse_vdit_diffusers import with_pattern

        if pattern == "search":
            raise ValueError("sparse_vdit searches networks of this house: name a pattern for one of diffusers")
        return with_pattern(model, pattern, band, near, columns)  # type: ignore[arg-type]
    video = as_kind(model, VideoDit, "sparse_vdit", "digit_video")
    layout = Layout(video.frames, video.places, band, near, columns)
    for block in video.blocks:
        block.attn = PatternAttention(block.attn, layout)
        if pattern != "search":
            block.attn.chosen = (pattern,) * block.attn.heads
    search = None if pattern != "search" else Search(lam, bound, skip_bound, videos)
    video.course = SparseVideo(search)
    return video


class PatternAttention(Attention):
    """Attention whose heads each have a pattern; heads of one pattern run together."""

    def __init__(self, plain: Attention, layout: Layout):
        nn.Module.__init__(self)
        self.heads, self.qkv, self.proj = plain.heads, plain.qkv, plain.proj
        self.layout = layout
        self.chosen: tuple[str, ...] = ("full",) * plain.heads
        self.seen: list[tuple[Tensor, Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Attended features, [batch, tokens, width]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.seen is not None:
            self.seen.append((q, k, v))
        kinds = list(dict.fromkeys(self.chosen))
        if len(kinds) == 1:
            out = PATTERNS[kinds[0]].attend(q, k, v, self.layout)
        else:
            out = torch.empty_like(v)
            for kind in kinds:
                heads = [i for i, each in enumerate(self.chosen) if each == kind]
                out[:, heads] = PATTERNS[kind].attend(q[:, heads], k[:, heads], v[:, heads], self.layout)
        return self.proj(out.transpose(1, 2).flatten(2))


class Search:
    """The offline choice: for every layer and head the pattern with the least error + lambda x density."""

    def __init__(self, lam: float, bound: float, skip_bound: float, videos: int):
        self.lam, self.bound, self.skip_bound, self.videos = lam, bound, skip_bound, videos

    @torch.no_grad()
    def run(self, model: VideoDit, seed: int = 1) -> list[tuple[str, ...]]:
        """Patterns of every layer's heads, told from noise and from half-made videos of the plain sampler."""
        shape = (model.channels, model.frames, model.resolution, model.resolution)
        x = noise(range(self.videos), seed, shape).to(next(model.parameters()))
        classes = (torch.arange(self.videos) % model.classes).to(x.device)
        for block in model.blocks:
            block.attn.seen, block.attn.chosen = [], ("full",) * block.attn.heads
        for t in (1.0, 0.5):
            times = torch.full((len(x),), t, device=x.device, dtype=x.dtype)
            x = x - 0.5 * model.velocity(x, times, classes)
        found = [self._of_layer(block.attn) for block in model.blocks]
        for block in model.blocks:
            block.attn.seen = None
        return found

    def _of_layer(self, attention: PatternAttention) -> tuple[str, ...]:
        assert attention.seen is not None
        errors = {name: errors_of(name, attention.seen, attention.layout) for name in PATTERNS}
        prices = {name: self.lam * density(name, attention.layout) for name in PATTERNS}
        return tuple(
            self.choice({name: float(each[head]) for name, each in errors.items()}, prices)
            for head in range(attention.heads)
        )

    def choice(self, errors: dict[str, float], prices: dict[str, float]) -> str:
        """The pattern of one head from errors and prices by pattern."""
        allowed = [
            name
            for name, error in errors.items()
            if name == "full" or error <= (self.skip_bound if name == "skip" else self.bound)
        ]
        return min(allowed, key=lambda name: errors[name] + prices[name])


def errors_of(name: str, seen: list[tuple[Tensor, Tensor, Tensor]], layout: Layout) -> Tensor:
    """Squared error of a pattern's outputs over that of the full ones' squares, [heads]."""
    wrong = total = torch.zeros(())
    for q, k, v in seen:
        full = PATTERNS["full"].attend(q, k, v, layout).double()
        wrong = wrong + (PATTERNS[name].attend(q, k, v, layout).double() - full).square().sum(dim=(0, 2, 3))
        total = total + full.square().sum(dim=(0, 2, 3))
    return wrong / total.clamp(min=1e-30)


class SparseVideo(Course):
    """The plain chain; the search runs when a plan is first made."""

    def __init__(self, search: Search | None):
        self.search = search
        self.done = search is None

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """Plain steps with the MACs of the chosen patterns."""
        assert isinstance(model, VideoDit)
        if not self.done and not next(model.parameters()).is_meta:
            assert self.search is not None
            for block, chosen in zip(model.blocks, self.search.run(model), strict=True):
                block.attn.chosen = chosen
            self.done = True
        macs = model.branches * step_macs(model)
        dense, kept = model.evaluation_macs(model.resolution), step_macs(model, whole_blocks=False)
        tell_pairs(model, *(model.branches * count * each for each in (dense, kept)))
        return [{**step, "mode": "sparse", "macs": macs} for step in model.euler(count)]


def step_macs(model: VideoDit, *, whole_blocks: bool = True) -> int:
    """MACs of one evaluation: 2 pairs d of every head instead of 2 N^2 d.

    Args:
        model: whose heads have their patterns.
        whole_blocks: pairs that run, or else those that the patterns keep.
    """
    total = model.evaluation_macs(model.resolution)
    for block in model.blocks:
        size, layout = model.width // block.attn.heads, block.attn.layout
        for kind in block.attn.chosen:
            pattern = PATTERNS[kind]
            pairs = pattern.executed(layout) if whole_blocks else pattern.pairs(layout)
            total -= 2 * (layout.tokens**2 - pairs) * size
    return total


def kept_pairs(model: VideoDit) -> float:
    """Mean share of the pairs that the chosen patterns keep."""
    shares = [density(kind, block.attn.layout) for block in model.blocks for kind in block.attn.chosen]
    return sum(shares) / len(shares)


def agreement(one: list[tuple[str, ...]], other: list[tuple[str, ...]]) -> float:
    """Share of heads for which two searches chose the same pattern."""
    pairs = [(a, b) for first, second in zip(one, other, strict=True) for a, b in zip(first, second, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)
