"""Token pruning in a vision state-space model with hidden-state alignment (Zhan et al. 2024, ToP-ViM)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from bench.config.settings import Blocks, Count, KeepRate
from suites.common.finetuning import finetuned, teacher_for
from suites.common.scan import ScanBlock, ScanTokens, VisionScan
from suites.common.vit import Reducer
from suites.vit_tokens.schedules import check_blocks, rates_per_stage
from suites.vit_tokens.scores import rows


def topvim(
    model: nn.Module,
    *,
    keep_rate: KeepRate | list[KeepRate] = 0.7,
    at: Blocks | None = None,
    alignment: Literal["hold", "decay"] = "decay",
    training_steps: Count = 0,
) -> VisionScan:
    """The state-space model that drops its least active patches after some blocks.

    Args:
        model: a model of suites.common.scan.
        keep_rate: share of the patches kept, rounded up; one number, or one per block in `at`.
        at: blocks, counted from 1, after which patches are dropped; None for the quarters, which are 4, 7 and 10 of 12.
        alignment: what later scans do over the gap of a dropped patch: "decay" lets the state decay by as many steps as
            there are patches missing, at the kept token's own rate; "hold" carries the state over unchanged. The paper
            as we could read it does not settle which.
        training_steps: fine-tunes with the method in place, with the plain model's answers beside the labels, on the
            task the model was loaded by; 0 leaves the weights: off the shelf.

    Raises:
        ValueError: not such a model, a rate outside (0, 1], blocks that it does not have, or nothing to train on.
    """
    if not isinstance(model, VisionScan):
        raise ValueError(f"topvim works on state-space models such as vim_tiny, not on {type(model).__name__}")
    blocks = check_blocks(at, model.depth)
    if alignment not in ("hold", "decay"):
        raise ValueError(f'alignment={alignment!r} is unknown: use "hold" or "decay"')
    rates = rates_per_stage(keep_rate, len(blocks), "keep_rate", model.depth)
    teacher = teacher_for(model, training_steps)
    for block in model.blocks:
        assert isinstance(block, ScanBlock)
        block.align = alignment
    for number, rate in zip(blocks, rates, strict=True):
        if rate < 1:
            model.blocks[number - 1].prune = KeepActive(rate)
    settings = {"rates": list(rates), "at": list(blocks), "alignment": alignment}
    return finetuned(model, teacher, topvim, settings, training_steps)


class KeepActive(Reducer):
    """Keeps the patches whose scan output is largest: the sum over channels of max(0, y)."""

    def __init__(self, keep_rate: float):
        super().__init__()
        self.keep_rate = keep_rate

    def forward(self, tokens: ScanTokens, y: Tensor) -> ScanTokens:  # type: ignore[override]
        """ceil(rate x patches) tokens in raster order, with their positions."""
        keep = math.ceil(self.keep_rate * tokens.count)
        if keep == tokens.count:
            return tokens
        kept = y.clamp(min=0).sum(dim=-1).topk(keep, dim=-1).indices.sort(dim=-1).values
        position = kept if tokens.position is None else tokens.position.gather(1, kept)
        return replace(tokens, x=rows(tokens.x, kept), position=position)
