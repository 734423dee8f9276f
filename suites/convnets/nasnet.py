"""NASNet-A mobile: the cells that a search found on small pictures, stacked four at a time. The cells are timm's.

Source: Zoph et al. 2018, Learning Transferable Architectures for Scalable Image Recognition, arXiv:1707.07012; table 2.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import PooledHead, at
from suites.common.timm_bridge import import_timm

STEM = 32
#: Last width over the width of the first stage, and how often it doubles.
LAST = 24
GROWTH = 2


class NasnetA(nn.Module):
    """N normal cells, a reduction, N, a reduction, N; every cell sees the two before it."""

    def __init__(self, penultimate: int, repeat: int, classes: int):
        super().__init__()
        import_timm()
        cells = importlib.import_module("timm.models.nasnet")
        width = penultimate // LAST
        self.stem = nn.Sequential(nn.Conv2d(3, STEM, 3, 2, bias=False), nn.BatchNorm2d(STEM, eps=0.001))
        self.cell_stem_0 = cells.CellStem0(STEM, num_channels=width // GROWTH**2)
        self.cell_stem_1 = cells.CellStem1(STEM, num_channels=width // GROWTH)
        stages, reductions, before = [], [], (width, 2 * width)
        for stage in range(3):
            own = width << stage
            first = cells.FirstCell(
                in_chs_left=before[0], out_chs_left=own // 2, in_chs_right=before[1], out_chs_right=own
            )
            stage_cells = [first]
            left, right = before[1], 6 * own
            for _ in range(repeat - 1):
                stage_cells.append(
                    cells.NormalCell(in_chs_left=left, out_chs_left=own, in_chs_right=right, out_chs_right=own)
                )
                left, right = right, 6 * own
            stages.append(nn.ModuleList(stage_cells))
            if stage < 2:
                kind = cells.ReductionCell0 if stage == 0 else cells.ReductionCell1
                reductions.append(
                    kind(in_chs_left=6 * own, out_chs_left=2 * own, in_chs_right=6 * own, out_chs_right=2 * own)
                )
                before = (6 * own, 8 * own)
        self.stages, self.reductions = nn.ModuleList(stages), nn.ModuleList(reductions)
        self.head = PooledHead(penultimate, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images [batch, 3, h, w]."""
        first = self.stem(x)
        second = self.cell_stem_0(first)
        third = self.cell_stem_1(first, second)
        older, old = second, third
        for number, stage in enumerate(self.stages):
            for cell in stage.children():
                older, old = old, cell(old, older)
            if number < len(self.reductions):
                reduced = self.reductions[number](old, older)
                older, old = old, reduced
        return self.head(torch.relu(old))


def nasnet(
    *,
    penultimate: PositiveInt = 1056,
    repeat: PositiveInt = 4,
    classes: PositiveInt = 1000,
    resolution: PositiveInt = 224,
) -> NasnetA:
    """A NASNet-A, N @ filters: 4 @ 1056 is the mobile one; timm has 6 @ 4032 as `nasnetalarge`.

    Raises:
        UsageError: timm is missing, a stage has fewer than two cells, or the filters cannot be shared out among them.
    """
    if repeat < 2:
        raise UsageError(f"nasnet: repeat={repeat}: a stage has a first cell and at least one normal one")
    if penultimate % (4 * LAST) and penultimate != 1056:
        raise UsageError(f"nasnet: penultimate={penultimate} must be a multiple of {4 * LAST}, or 1056")
    return at(NasnetA(penultimate, repeat, classes), resolution)
