"""Checkpointing: the inputs of segments are kept and the rest is computed again in the backward.

Chen et al. 2016, arXiv:1604.06174. A segment is some blocks one after another; with blocks of equal size, segments of
about sqrt(L) blocks keep least: L / s inputs of segments and s blocks' activations at a time.
"""

from __future__ import annotations

import math
from typing import Any

from torch import is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint as recomputed

from bench.config.settings import PositiveInt


class Segment(nn.Module):
    """Blocks one after another whose activations are computed again in the backward of a training step."""

    def __init__(self, blocks: list[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, *args: Any) -> Any:
        """What the last block gives; a block that gives one thing passes further arguments on as they are."""
        if not (is_grad_enabled() and self.training):
            return self._run(*args)
        return recomputed(self._run, *args, use_reentrant=False, preserve_rng_state=False)

    def _run(self, *args: Any) -> Any:
        given: Any = args
        for block in self.blocks:
            found = block(*given)
            given = found if isinstance(found, tuple) else (found, *args[1:])
        return given if isinstance(found, tuple) else given[0]


def checkpoint(model: nn.Module, *, every: PositiveInt = 1, sqrt: bool = False) -> nn.Module:
    """The network that keeps the input of every so many blocks and computes the rest again.

    Args:
        model: has lists `blocks` whose parts run one after another: a GPT, a ViT, chains of couplings.
        every: blocks of a segment.
        sqrt: segments of about the square root of the number of blocks instead.

    Raises:
        ValueError: it has no blocks, or batch norms in them, whose statistics would be counted twice.
    """
    owners = [part for part in model.modules() if isinstance(getattr(part, "blocks", None), nn.ModuleList)]
    if not any(len(owner.blocks) for owner in owners):  # type: ignore[arg-type]
        raise ValueError(f"checkpoint works on networks of blocks, and {type(model).__name__} has none")
    for owner in owners:
        blocks = list(owner.blocks)  # type: ignore[arg-type]
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for block in blocks for part in block.modules()):
            raise ValueError("checkpoint runs blocks twice, and running statistics of batch norms would move twice")
        size = max(1, round(math.sqrt(len(blocks)))) if sqrt else every
        owner.blocks = nn.ModuleList(Segment(blocks[start : start + size]) for start in range(0, len(blocks), size))
    return model
