"""VINs, video interface networks: chunks of a long video denoised side by side; Dedhia et al. 2025, arXiv 2503.17539.

Learned global tokens look once at key frames of the noisy video, a few self-attention blocks refine them, and each
chunk is denoised over [context, chunk, global tokens], the context being the last frames of the chunk before it; frames
that two chunks hold are averaged with linear weights while t is early. Ours: the size of the interface network, one key
frame per chunk, and global tokens that start at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.dit import Block, block_macs
from suites.common.finetuning import finetuned, needs_training, teacher_for
from suites.common.rectified_flow import Course, FlowModel, flow_loss
from suites.common.video_dit import VideoDit
from suites.diffusion.subjects import as_kind


@dataclass(frozen=True)
class Chunk:
    """Frames that a chunk owns, `begin` to `end`; it looks at those from `low` on.

    The next chunk looks at those from `after` on, which is `end` where there is no next one.
    """

    begin: int
    end: int
    low: int
    after: int


def vin(
    model: nn.Module,
    *,
    chunk: PositiveInt = 8,
    context: Count = 2,
    global_tokens: Count = 16,
    depth: PositiveInt = 2,
    averaged: Rate = 0.5,
    training_steps: Count = 0,
) -> VideoDit:
    """The video transformer that denoises chunks of a video guided by global tokens.

    Args:
        model: a video transformer.
        chunk: frames of a chunk.
        context: last frames of the chunk before it that a chunk looks at as well.
        global_tokens: that all chunks share; 0 has none, and no interface network.
        depth: blocks that refine the global tokens.
        averaged: time above which frames that two chunks hold are averaged.
        training_steps: batches of 32 to learn from, network and interface together, or the network alone in chunks.

    Raises:
        ValueError: the model is no video transformer.
    """
    video = as_kind(model, VideoDit, "vin", "digit_video")
    teacher = teacher_for(video, training_steps)
    video.course = Vin(chunk, context, averaged)
    fresh: list[nn.Parameter] = []
    if global_tokens:
        heads = video.blocks[0].attn.heads
        video.interface = interface = Interface(video.width, heads, global_tokens, depth, video.ratio)
        fresh = list(interface.parameters())
    settings: dict[str, Any] = {"chunk": chunk, "context": context, "global_tokens": global_tokens, "depth": depth}
    settings["averaged"] = averaged
    loss = _loss(video) if teacher is not None else None
    tuned = finetuned(video, teacher, vin, settings, training_steps, loss=loss, fresh=fresh)
    return needs_training(tuned, "the interface network", training_steps) if global_tokens else tuned


def _loss(video: VideoDit) -> Any:
    generator = torch.Generator().manual_seed(0)
    course: Any = video.course

    def velocity(x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        return course.velocity(video, x, t, classes)

    class Chunked(nn.Module):
        classes, shifted_times = video.classes, video.shifted_times

        def forward(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
            return velocity(x, t, classes)

    return flow_loss(Chunked(), generator)  # type: ignore[arg-type]


class Interface(nn.Module):
    """Global tokens that look at tokens of key frames, and blocks that refine them."""

    def __init__(self, width: int, heads: int, tokens: int, depth: int, ratio: float):
        super().__init__()
        self.heads = heads
        self.tokens = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.norm = nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))

    def forward(self, seen: Tensor, condition: Tensor) -> Tensor:
        """Global tokens for tokens of key frames [batch, tokens, width]."""
        own = self.tokens.expand(len(seen), -1, -1)
        q = self.query(own).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(self.norm(seen)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = own + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        for block in self.blocks:
            x = block(x, condition)
        return x


class Vin(Course):
    """The plain grid of times; every evaluation is one of the interface and one of each chunk."""

    def __init__(self, chunk: int, context: int, averaged: float):
        self.chunk, self.context, self.averaged = chunk, context, averaged

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """Plain steps with the MACs of chunks and interface."""
        assert isinstance(model, VideoDit)
        macs = model.branches * step_macs(model, self.chunk, self.context)
        return [{**step, "mode": "chunks", "macs": macs} for step in model.euler(count)]

    def step(self, model: FlowModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """An Euler step by chunks."""
        assert isinstance(model, VideoDit)
        now = model.steps_planned[index]

        def network(x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
            return self.velocity(model, x, t, classes)

        velocity = model.guided(state["x"], now["t"], state["classes"], network)
        return {**state, "x": state["x"] - now["dt"] * velocity}

    def velocity(self, model: VideoDit, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """Velocities of a whole video, chunk by chunk."""
        condition = model.condition(t, classes)
        chunks = chunks_of(x.shape[2], self.chunk, self.context)
        shared = self._shared(model, x, condition, chunks)
        early = float(t.flatten()[0]) > self.averaged if not t.is_meta else True
        total, weight = torch.zeros_like(x), x.new_zeros(x.shape[2])
        for each in chunks:
            tokens = model.video_tokens(x[:, :, each.low : each.end], each.low)
            count = tokens.shape[1]
            out = model.through(tokens if shared is None else torch.cat([tokens, shared], dim=1), condition)
            found = model.as_video(model.last(out[:, :count], condition), each.end - each.low)
            share = weights_of(each, early).to(x)
            total[:, :, each.low : each.end] += found * share[None, None, :, None, None]
            weight[each.low : each.end] += share
        return total / weight[None, None, :, None, None]

    @staticmethod
    def _shared(model: VideoDit, x: Tensor, condition: Tensor, chunks: list[Chunk]) -> Tensor | None:
        """The global tokens of this step, or None where there are none."""
        interface = getattr(model, "interface", None)
        if interface is None:
            return None
        keys = [(each.begin + each.end) // 2 for each in chunks]
        return interface(torch.cat([model.video_tokens(x[:, :, at : at + 1], at) for at in keys], dim=1), condition)


def chunks_of(frames: int, chunk: int, context: int) -> list[Chunk]:
    """Consecutive chunks with their context; the last one may be shorter."""
    ends = [min(begin + chunk, frames) for begin in range(0, frames, chunk)]
    return [
        Chunk(begin, end, max(0, begin - context), max(0, end - context) if end < frames else end)
        for begin, end in zip(range(0, frames, chunk), ends, strict=True)
    ]


def weights_of(chunk: Chunk, early: bool) -> Tensor:
    """Weights of a chunk's frames, context first: later its own alone count.

    Early they rise linearly over the context, and fall as much over the frames that the next chunk looks at: where a
    context is no longer than a chunk those of a frame add up to 1.
    """
    place = torch.arange(chunk.low, chunk.end, dtype=torch.float32)
    if not early:
        return (place >= chunk.begin).float()
    before, behind = chunk.begin - chunk.low, chunk.end - chunk.after
    rising = ((place - chunk.low + 1) / (before + 1)).clamp(max=1.0)
    falling = ((chunk.end - place) / (behind + 1)).clamp(max=1.0) if behind else torch.ones_like(place)
    return torch.minimum(rising, falling)


def step_macs(model: VideoDit, chunk: int, context: int) -> int:
    """MACs of one evaluation: every chunk with its context and the global tokens, and the interface once."""
    interface = getattr(model, "interface", None)
    shared = 0 if interface is None else interface.tokens.shape[1]
    places, c, depth, ratio = model.places, model.width, len(model.blocks), model.ratio
    chunks = chunks_of(model.frames, chunk, context)
    total = 2 * c**2 * (len(chunks) - 1)  # the last modulation runs for every chunk; time and class once
    for each in chunks:
        n = (each.end - each.low) * places
        total += (
            depth * block_macs(n + shared, c, ratio)
            + model.ends_macs(n)
            - (0 if each.begin == 0 else 3 * c**2 + 256 * c)
        )
    if interface is None:
        return total
    seen = len(chunks) * places
    embedded = seen * model.patch**2 * model.channels * c
    looking = 2 * shared * c**2 + 2 * seen * c**2 + 2 * shared * seen * c
    return total + embedded + looking + len(interface.blocks) * block_macs(shared, c, ratio)
