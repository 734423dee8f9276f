"""Deep networks of thin blocks, trained by stacking: a part of the blocks first, then copies of each beside it.

After Gong et al. 2019, "Efficient Training of BERT by Progressively Stacking". It works on any module whose `blocks`
add to their input through linear maps that they name in `residual_outputs()`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


def shorten(module: nn.Module, copies: int) -> Callable[[], None] | None:
    """Keep every `copies`-th block of the module; returns what puts all back, or None where that cannot be done.

    The returned call makes each block a copy of the one that was trained in its place, its output divided by `copies`,
    so that the copies together add about what their source did.

    Args:
        module: changed in place.
        copies: blocks that grow from one; must divide the number of blocks.
    """
    blocks: list[Any] = list(getattr(module, "blocks", []))
    if copies < 2 or not blocks or len(blocks) % copies or not all(hasattr(b, "residual_outputs") for b in blocks):
        return None
    module.blocks = nn.ModuleList(blocks[::copies])

    def grow() -> None:
        for i, block in enumerate(blocks):
            source = blocks[i // copies * copies]
            block.load_state_dict(copy.deepcopy(source.state_dict()))
        scale_outputs(blocks, 1 / copies)
        module.blocks = nn.ModuleList(blocks)

    return grow


def scale_outputs(blocks: Iterable[Any], factor: float) -> None:
    """Scale what each block adds to its input, in place."""
    with torch.no_grad():
        for block in blocks:
            for linear in block.residual_outputs():
                linear.weight.mul_(factor)
                linear.bias.mul_(factor)
