"""CoDe: a large network drafts the first scales, a small one refines the rest; Chen et al. 2024, arXiv 2411.17787.

The refiner's first call reads all drafted maps and the next one under the block-causal mask and so fills its own keys
and values; those of the drafter are given up. Specialised training: each network learns its own scales; ours trains
the refiner alone, on labels.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from bench.config.settings import Count, PositiveInt
from suites.common.finetuning import finetuned, needs_training, teacher_for
from suites.diffusion.subjects import as_kind
from suites.diffusion.var import Var, VarNetwork


def code(
    model: nn.Module,
    *,
    N: PositiveInt = 2,
    width: PositiveInt | None = None,
    depth: PositiveInt | None = None,
    heads: PositiveInt | None = None,
    logits: Literal["all", "last"] = "all",
    training_steps: Count = 0,
) -> Var:
    """The network as the drafter of the first N scales, and a smaller one for the rest.

    Args:
        model: the drafter, a VAR network.
        N: scales that it draws; all of them is the plain network.
        width: of the refiner; None takes half of the drafter's.
        depth: blocks of the refiner; None takes a third of the drafter's.
        heads: of the refiner; None takes half of the drafter's.
        logits: whether the refiner's first call computes those of the drafted maps too, as the release does.
        training_steps: batches of 32 that the refiner learns from.

    Raises:
        ValueError: the model is no VAR network, N is more than its scales, or the refiner's numbers do not fit.
    """
    drafter = as_kind(model, Var, "code", "digit_var")
    if len(drafter.scales) < N:
        raise ValueError(f"N={N}, and the network draws {len(drafter.scales)} scales: choose at most so many")
    if len(drafter.scales) == N:
        return drafter
    wide = width or drafter.width // 2
    many = heads or max(1, drafter.heads // 2)
    if wide % many:
        raise ValueError(f"the refiner's width={wide} is not a multiple of its heads={many}")
    teacher = teacher_for(drafter, training_steps)
    deep = depth or max(1, len(drafter.blocks) // 3)
    refiner = VarNetwork(
        width=wide, heads=many, depth=deep, scales=drafter.scales, codes=drafter.codes, code=drafter.code,
        classes=drafter.classes,
    )  # fmt: skip
    drafter.refiner, drafter.drafted, drafter.prefix_logits = refiner.eval(), N, logits == "all"
    settings: dict[str, Any] = {"N": N, "width": wide, "depth": deep, "heads": many}
    loss = None
    if teacher is not None:
        loss = drafter.code_loss(refiner, torch.Generator().manual_seed(0), after=N)
        for name, parameter in drafter.named_parameters():
            parameter.requires_grad_(name.startswith("refiner."))
    tuned = finetuned(
        drafter, teacher, code, settings, training_steps, loss=loss, fresh=refiner.parameters()
    )  # fmt: skip
    return needs_training(tuned, "the refiner", training_steps)


def cache_bytes(tokens: int, width: int, depth: int, branches: int = 2, key: int = 4, value: int = 2) -> int:
    """Bytes of keys and values of an image: the release keeps keys in single precision and values in half."""
    return tokens * width * depth * branches * (key + value)
