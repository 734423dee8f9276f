"""How a reader of digit scenes learns: its tower to read first, then the whole model from many questions of each scene.

All questions of a scene share one pass over it. None sees another: each stands in the place right behind the pictures,
where it will stand when it is asked alone, so what is learned is what is judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.common import digit_scenes as scenes
from suites.common.predecessors import with_predecessors
from suites.common.training import Pace, fit
from suites.common.visual_decoder import turning

#: Weight of reading each visual token's digit straight from the projector, which teaches the tower.
READING = 0.5


@dataclass(frozen=True)
class Batch:
    """Prompts of one batch.

    Attributes:
        head: the words and pictures before the questions, [n, tokens].
        cells: digit of every cell of every picture, [n, pictures, 16].
        questions: in no order.
        mask: words [n, 4] and cells [n, 16] of a question for a mask, of kinds that have it.
    """

    head: Tensor
    cells: Tensor
    questions: tuple[scenes.Questions, ...]
    mask: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Training:
    """How a reader is trained, on scenes that are all different.

    `reading_steps` teach the tower and the projector alone which digit each visual token is of; `steps` the whole model
    with `repeats` questions of each type a scene.
    """

    reading_steps: int = 200
    reading_rate: float = 3e-3
    steps: int = 400
    batch: int = 16
    repeats: int = 4
    rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.02
    clip: float = 1.0

    def pace(self, steps: int, rate: float) -> Pace:
        """Of one of the two parts."""
        return Pace(steps, rate, warmup=self.warmup, weight_decay=self.weight_decay, clip=self.clip)


def teach(module: Any, how: Training, batches: Iterator[Batch]) -> list[float]:
    """The loss of each step of the second part; the module is trained in place.

    Args:
        module: the reader.
        how: the recipe.
        batches: at least `reading_steps + steps` of them.
    """
    module.requires_grad_(False)
    module.tower.requires_grad_(True)
    module.projector.linear.requires_grad_(True)
    first = ((b, b) for b in islice(batches, how.reading_steps))
    if how.reading_steps:
        fit(module, first, lambda b, _: reading_loss(module, b), how.pace(how.reading_steps, how.reading_rate))  # type: ignore[arg-type]
    module.requires_grad_(True)
    second = ((b, b) for b in islice(batches, how.steps))
    return fit(module, second, lambda b, _: loss_of(module, b), how.pace(how.steps, how.rate))  # type: ignore[arg-type]


def reading_loss(module: Any, batch: Batch) -> Tensor:
    """Cross-entropy of each visual token's own digit, read from the projector by the decoder's norm and head."""
    return _reading(module, module.see(batch.head).tokens, batch.cells)


def loss_of(module: Any, batch: Batch) -> Tensor:
    """Cross-entropy of all answers, of each visual token's own digit, and of the mask."""
    asked = [question.words for question in batch.questions]
    if batch.mask is not None:
        asked.append(batch.mask[0])
    seen, ends = answered(module, batch.head, torch.stack(asked, dim=1))
    count = len(batch.questions)
    wanted = torch.stack([question.answers for question in batch.questions], dim=1)
    total = F.cross_entropy(module.decoder.head(ends[:, :count]).flatten(0, 1), wanted.flatten())
    total = total + READING * _reading(module, seen.tokens, batch.cells)
    if batch.mask is not None:
        cell = scenes.cell_of(module.patch, module.views)
        given = module.mask_logits(ends[:, -1], seen.view.features.reshape(len(batch.head), -1, ends.shape[-1]))
        total = total + F.binary_cross_entropy_with_logits(given, batch.mask[1][:, cell].float())
    return total


def answered(module: Any, head: Tensor, words: Tensor) -> tuple[Any, Tensor]:
    """What was seen, and the normalised features [n, questions, width] of the last word of each question.

    Args:
        module: the reader.
        head: what stands before the questions, [n, tokens].
        words: of questions that do not see each other, [n, questions, 4].
    """
    n, questions, length = words.shape
    before = head.shape[1]
    ids = torch.cat([head, words[:, 0]], dim=1)
    seen = module.see(ids)
    stream = module.stream(ids, seen)
    asked = with_predecessors(module.decoder.embed(words.flatten(0, 1)), length - 1)
    x = torch.cat([stream.x[:, :before], asked.reshape(n, questions * length, -1)], dim=1)
    places = torch.cat([stream.places[:before], stream.places[before:].repeat(questions)])
    by, visible = turning(module.decoder, places), _apart(before, questions, length)
    for block in module.decoder.blocks:
        attention = block.attention
        q, k, v = attention.project(block.norm1(x), by)
        x = x + attention.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=visible))
        x = x + block.network(block.norm2(x))
    return seen, module.decoder.norm(x[:, before:].unflatten(1, (questions, length))[:, :, -1])


def _apart(before: int, questions: int, length: int) -> Tensor:
    """Who sees whom, [tokens, tokens]: what came before, but of the words behind the pictures only the own question."""
    count = before + questions * length
    which = (torch.arange(count) - before).div(length, rounding_mode="floor").clamp(min=-1)
    causal = torch.ones(count, count, dtype=torch.bool).tril()
    return causal & ((which[None] < 0) | (which[None] == which[:, None]))


def _reading(module: Any, tokens: Tensor, cells: Tensor) -> Tensor:
    own = cells[:, :, scenes.cell_of(module.patch, module.views)].flatten(1)
    return F.cross_entropy(module.decoder.head(module.decoder.norm(tokens)).flatten(0, 1), own.flatten())
