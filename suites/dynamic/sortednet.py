"""SortedNet: sub-models of one network in the order of their cost, trained together (arXiv 2309.00255, 2309.08968).

Sub-models are the first n blocks with the shared head, and the first share of each MLP's hidden units. Reconstruction:
the hyper-parameters; by default two sub-models a step, drawn from the list, whose gradients are summed before one
update, and the largest beside them if asked for.
"""

from __future__ import annotations

import random
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, Counts, KeepRate, PositiveInt
from suites.common.decoder import Decoder, as_decoder
from suites.common.sorted_exits import cut, depths_of, train_depths
from suites.common.training import Pace, classification, fit
from suites.common.vit import ViT
from suites.dynamic.elastic import extracted
from suites.dynamic.learning import BATCH, remembered
from suites.dynamic.matformer import nest


def sortednet(
    model: nn.Module,
    *,
    depth: PositiveInt | None = None,
    width: KeepRate = 1.0,
    depths: Blocks | None = None,
    widths: list[KeepRate] | None = None,
    form: Literal["slice", "extract"] = "extract",
    drawn: PositiveInt = 2,
    largest: bool = True,
    recipe: Literal["sorted", "truncated", "alone"] = "sorted",
    training_steps: Count = 0,
) -> ViT:
    """A sub-model of the ViT: its first blocks, and the first units of their MLPs.

    Args:
        model: a ViT.
        depth: blocks that run; None for all.
        width: share of the MLPs' hidden units.
        depths: of the sub-models that are trained; None for quarters of the blocks.
        widths: of the sub-models that are trained; None for the whole and a half.
        form: `slice` runs on views of the whole, `extract` on copies.
        drawn: sub-models of a step.
        largest: whether the whole network is one of each step as well.
        recipe: sorted training; or as controls `truncated`, the whole network trained on, and `alone`, this sub-model.
        training_steps: on the model's task; 0 takes the weights as they are.

    Raises:
        ValueError: another network, sizes that it does not have, or nothing to train on.
    """
    if not isinstance(model, ViT):
        raise ValueError(f"sortednet works on a ViT, not on {type(model).__name__}")
    whole = len(model.blocks)
    own = whole if depth is None else depth
    listed = depths or sorted({max(1, whole * quarter // 4) for quarter in (1, 2, 3, 4)})
    if own > whole or max(listed) > whole:
        raise ValueError(f"depth={max(own, *listed)}: the network has {whole} blocks")
    if training_steps:
        subs = [(d, w) for d in listed for w in (widths or [1.0, 0.5])]
        settings: dict[str, Any] = {"recipe": recipe, "steps": training_steps}
        if recipe == "sorted":
            settings |= {"subs": [list(sub) for sub in subs], "drawn": drawn, "largest": largest}
        if recipe == "alone":
            subs = settings["subs"] = [(own, width)]
        found = remembered(
            model, sortednet, settings, lambda task: _learn(model, task, recipe, subs, drawn, largest, training_steps)
        )
        model.load_state_dict(found)
        model.learned = {"method": "sortednet", **settings}  # type: ignore[assignment]
    activate(model, own, width)
    if form == "slice":
        return model.eval()
    small: Any = extracted(model, model.rest)  # type: ignore[arg-type]
    del small.rest
    return small


def activate(model: ViT, depth: int, width: float) -> None:
    """Have the first blocks run, with the first units of their MLPs as views; the others wait as `model.rest`."""
    _every_block(model)
    hidden = int(model.blocks[0].mlp.fc1.out_features)  # type: ignore[union-attr, arg-type]
    nest(model, [max(1, int(width * hidden))] * len(model.blocks))
    blocks = list(model.blocks)
    model.blocks, model.rest = nn.ModuleList(blocks[:depth]), nn.ModuleList(blocks[depth:])


def _every_block(model: ViT) -> None:
    """Put back what an earlier activation left out, at full width."""
    waiting: Any = getattr(model, "rest", None)
    if waiting is None:
        return
    model.blocks = nn.ModuleList([*model.blocks, *waiting])
    del model.rest
    layer: Any = model.blocks[0].mlp.fc1  # type: ignore[union-attr]
    nest(model, [int(getattr(layer, "whole", layer).out_features)] * len(model.blocks))


def _learn(
    model: ViT, task: Any, recipe: str, subs: list[tuple[int, float]], drawn: int, largest: bool, steps: int
) -> dict[str, Tensor]:
    plain, whole, rng = classification(model), len(model.blocks), random.Random(0)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        if recipe == "truncated":
            return plain(images, labels)
        chosen = subs if recipe == "alone" else [rng.choice(subs) for _ in range(drawn)]
        if largest and recipe == "sorted":
            chosen = [*chosen, (whole, 1.0)]
        total = torch.zeros(())
        for sub in chosen:
            activate(model, *sub)
            total = total + plain(images, labels)
        return total

    _every_block(model)
    fit(model, task.training_batches(BATCH, steps, 0), loss, Pace(steps, 1e-3))
    _every_block(model)
    return model.eval().state_dict()


def best_within(costs: list[float], budget: float) -> int | None:
    """The place of the largest sub-model that fits the budget: no search; None where none does."""
    fitting = [place for place, cost in enumerate(costs) if cost <= budget]
    return max(fitting, key=lambda place: costs[place]) if fitting else None


def sorted_lm(
    model: nn.Module, *, depth: PositiveInt = 3, exits: Counts | None = None, training_steps: Count = 0
) -> Decoder:
    """The decoder's first layers with the shared last norm and head; it keeps depth / layers of the cache.

    Args:
        model: a decoder.
        depth: layers that run.
        exits: depths that are trained together, by the mean of their cross-entropies; None for the second and later.
        training_steps: batches of sorted training on the model's task; 0 cuts the plain model.

    Raises:
        ValueError: not such a model, depths that it does not have, or nothing to train on.
    """
    decoder = as_decoder(model, "sorted_lm")
    depths = depths_of(decoder, exits)
    if depth > len(decoder.blocks):
        raise ValueError(f"depth={depth}: the decoder has {len(decoder.blocks)} layers")
    if training_steps:
        settings = {"exits": depths, "steps": training_steps}

        def train(task: Any) -> dict[str, Tensor]:
            train_depths(decoder, depths, training_steps)
            return decoder.state_dict()

        decoder.load_state_dict(remembered(decoder, sorted_lm, settings, train))
        decoder.learned = {"method": "sorted_lm", **settings}  # type: ignore[assignment]
    return cut(decoder, depth)
