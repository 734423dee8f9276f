"""Several depths of one decoder with one norm and one head (Sorted LLaMA, arXiv 2309.08968): cut, answered, trained."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.common.decoder import Decoder
from suites.common.decoder_shape import DecoderShape
from suites.common.task import learning_task
from suites.common.training import Pace, fit


def depths_of(decoder: Decoder, exits: list[int] | None) -> list[int]:
    """The depths that are trained together: the given ones, or the second layer and every later one.

    Raises:
        ValueError: depths that the decoder does not have.
    """
    most = len(decoder.blocks)
    depths = list(range(min(2, most), most + 1)) if exits is None else sorted(set(exits))
    if not depths or depths[0] < 1 or depths[-1] > most:
        raise ValueError(f"exits={exits}: depths from 1 to {most} are wanted")
    return depths


def train_depths(decoder: Decoder, depths: list[int], steps: int) -> None:
    """Sorted training in place on the task that the decoder was loaded by; nothing for 0 steps."""
    if steps:
        task = learning_task(decoder, "sorted training", "load it with task=text_bytes or set training_steps=0")
        batches = task.training_batches(16, steps, 0)
        fit(decoder, batches, lambda ids, wanted: sorted_loss(decoder, ids, wanted, depths), Pace(steps, rate=2e-3))


def cut(decoder: Decoder, depth: int) -> Decoder:
    """The same decoder, its layers after `depth` removed."""
    decoder.blocks = decoder.blocks[:depth]
    decoder.shape = shape_at(decoder.shape, depth)
    return decoder


def shape_at(shape: DecoderShape, depth: int) -> DecoderShape:
    """The shape of the first `depth` layers."""
    return replace(shape, layers=shape.layers[:depth])


def logits_at(decoder: Decoder, ids: Tensor, depths: list[int]) -> list[Tensor]:
    """Logits of every position at each depth, in one forward."""
    x, by, out = decoder.embed(ids), decoder.rotation(0, ids.shape[1]), []
    for depth, block in enumerate(decoder.blocks, start=1):
        x = block(x, by)
        if depth in depths:
            out.append(decoder.head(decoder.norm(x)))
    return out


def sorted_loss(decoder: Decoder, ids: Tensor, wanted: Tensor, depths: list[int]) -> Tensor:
    """Mean over depths of the cross-entropy of `wanted` [batch, tokens]."""
    losses = [F.cross_entropy(logits.flatten(0, 1), wanted.flatten()) for logits in logits_at(decoder, ids, depths)]
    return torch.stack(losses).mean()
