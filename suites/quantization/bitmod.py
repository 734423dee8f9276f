"""BitMoD: each group of weights picks one of four 3- or 4-bit grids (Chen et al. 2024, arXiv 2411.11745, section 3).

Every grid is the float grid with its spare code given to one further value: 3 bits, 0, +-1, +-2, +-4 and one of +3, -3,
+6, -6; 4 bits, E2M1 doubled and one of +10, -10, +16, -16. The scale of a group is max |w| / max |grid|, the grid that
of the least squared error. Stored: codes, an 8-bit scale and a 2-bit selector a group, and one fp32 scale an output
that the 8-bit scales are multiples of. Plain rounding: no scaling of channels beforehand.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.quantization.cost import costed
from suites.quantization.grids import SMALLEST, nearest_index
from suites.quantization.layers import CodedLayer
from suites.quantization.network import Layer, folded, needs_layers, put_codes
from suites.quantization.packing import packed, unpacked
from suites.quantization.ranges import grouped, in_whole_groups, ungrouped

BASE = {3: (0.0, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0),
        4: (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 4.0, -4.0, 6.0, -6.0, 8.0, -8.0, 12.0, -12.0)}  # fmt: skip
SPECIAL = {3: (3.0, -3.0, 6.0, -6.0), 4: (10.0, -10.0, 16.0, -16.0)}
#: Codes of an 8-bit scale.
SCALES = 255
SELECTOR_BITS = 2


def grids_of(bits: int) -> Tensor:
    """The four grids, ascending, float64 [4, 2^bits].

    Raises:
        ValueError: bits that the paper has no grids for.
    """
    if bits not in BASE:
        raise ValueError(f"bits={bits}: BitMoD has grids of 3 and 4 bits")
    rows = [sorted((*BASE[bits], special)) for special in SPECIAL[bits]]
    return torch.tensor(rows, dtype=torch.float64)


def chosen(groups: Tensor, bits: int, scales: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes, scales, selectors and squared errors of groups in the last axis.

    Args:
        groups: numbers, [.., group].
        bits: 3 or 4.
        scales: given ones for each of the four grids, [4, .., 1]; None for max |w| / max |grid|.

    Returns:
        codes [.., group], scale [.., 1], selector [.., 1], error [.., 1].
    """
    grids = grids_of(bits).to(groups)
    largest = groups.abs().amax(dim=-1, keepdim=True)
    tried = []
    for place, grid in enumerate(grids):
        scale = (largest / grid.abs().max()).clamp(min=SMALLEST) if scales is None else scales[place]
        codes = nearest_index(groups / scale, grid)
        error = (grid[codes] * scale - groups).square().sum(dim=-1, keepdim=True)
        tried.append((codes, scale, error))
    errors = torch.stack([error for _, _, error in tried])
    pick = errors.argmin(dim=0)
    codes = torch.stack([codes for codes, _, _ in tried]).gather(0, pick.expand(groups.shape)[None])[0]
    scale = torch.stack([scale for _, scale, _ in tried]).gather(0, pick[None])[0]
    return codes, scale, pick, errors.gather(0, pick[None])[0]


@costed
def bitmod(model: nn.Module, *, bits: Literal[3, 4, 32] = 4, group: PositiveInt = 128) -> nn.Module:
    """The network with every weight in codes of BitMoD; 32 bits leave it as it is.

    Args:
        model: of linear layers and convolutions.
        bits: of a code.
        group: inputs that share scale and grid; shorter rows are one group each.
    """
    if bits == 32:
        return model
    folded(model)
    put_codes(model, needs_layers(model, "bitmod"), lambda _, layer: BitmodLayer(layer, bits, group))
    model.execution = "dequant"  # type: ignore[assignment]
    return model


class BitmodLayer(CodedLayer):
    """Packed codes, 8-bit scales, packed selectors; the weight is looked up, scaled and multiplied in floats."""

    codes: Tensor
    scales: Tensor
    row_scale: Tensor
    selectors: Tensor
    grids: Tensor

    def __init__(self, layer: Layer, bits: int, group: int):
        matrix = layer.weight.detach().flatten(1)
        self_group = min(group, matrix.shape[1])
        super().__init__(layer, bits + (8 + SELECTOR_BITS) * -(-matrix.shape[1] // self_group) / matrix.shape[1])
        self.bits, self.group, self.nominal_code_bits = bits, self_group, float(bits)
        groups = grouped(matrix, "group", self_group)
        codes, scale_codes, row_scale, pick = encoded(groups, bits)
        self.code_shape, self.pick_shape = tuple(codes.shape), tuple(pick.shape)
        self.columns = matrix.shape[1]  # what fills up the last group is not stored
        self.register_buffer("codes", packed(codes.flatten(1)[:, : self.columns], bits))
        self.register_buffer("scales", scale_codes.to(torch.uint8))
        self.register_buffer("row_scale", row_scale)
        self.register_buffer("selectors", packed(pick.flatten(1), SELECTOR_BITS))
        self.packed_weights = {"codes": layer.weight.numel(), "scales": 0, "row_scale": 0, "selectors": 0}
        self.register_buffer("grids", grids_of(bits).to(layer.weight).flatten(), persistent=False)

    def dense(self) -> Tensor:
        """The weight, made of its codes."""
        _, count, size = self.code_shape
        codes = in_whole_groups(unpacked(self.codes, self.bits, self.columns), size)
        pick = unpacked(self.selectors, SELECTOR_BITS, count)[:, :, None]
        values = self.grids[(codes.int() + pick.int() * 2**self.bits)]
        scale = self.scales[:, :, None] * self.row_scale[:, None, None]
        like = torch.empty(self.shape, device="meta")
        return ungrouped(values * scale, like, "group", self.group)


def encoded(groups: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes, 8-bit scales [rows, groups], fp32 scale of each row, selectors; codes fit the stored scales."""
    grids = grids_of(bits).to(groups)
    largest = groups.abs().amax(dim=-1, keepdim=True)
    wanted = torch.stack([largest / grid.abs().max() for grid in grids])  # [4, rows, groups, 1]
    row_scale = (wanted.amax(dim=(0, 2, 3)) / SCALES).clamp(min=SMALLEST)
    scale_codes = torch.ceil(wanted / row_scale[:, None, None] - 1e-6).clamp(1, SCALES)
    codes, _, pick, _ = chosen(groups, bits, scale_codes * row_scale[:, None, None])
    return codes, scale_codes.gather(0, pick[None])[0].squeeze(-1), row_scale, pick.squeeze(-1)


def stored_bits(bits: int, group: int = 128, *, selector: bool = True) -> float:
    """Bits a weight: code, an 8-bit scale and the selector of a group (the authors' simulator leaves that out)."""
    return bits + (8 + (SELECTOR_BITS if selector else 0)) / group
