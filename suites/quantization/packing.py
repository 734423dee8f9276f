"""Codes packed into bytes, and how many bytes a format stores."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Ternary digits that fit a byte: 3^5 = 243.
TRITS = 5


def packed(codes: Tensor, bits: int) -> Tensor:
    """Bytes [..., ceil(n bits / 8)] of codes [..., n] in 0..2^bits - 1, the first code in the lowest bits.

    Raises:
        ValueError: bits outside 1..8, or a code that does not fit.
    """
    _check_width(bits)
    if codes.numel() and not codes.is_meta and (int(codes.min()) < 0 or int(codes.max()) >= 2**bits):
        raise ValueError(f"codes from {int(codes.min())} to {int(codes.max())} do not fit {bits} bits")
    if bits == 8:
        return codes.to(torch.uint8)
    places = torch.arange(bits, device=codes.device, dtype=torch.int32)
    stream = ((codes.to(torch.int32)[..., None] >> places) & 1).flatten(-2)
    stream = F.pad(stream, (0, -stream.shape[-1] % 8)).unflatten(-1, (-1, 8))
    weights = 1 << torch.arange(8, device=codes.device, dtype=torch.int32)
    return (stream * weights).sum(dim=-1).to(torch.uint8)


def unpacked(packed_codes: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` codes, uint8 [..., count], of their bytes."""
    _check_width(bits)
    if bits == 8:
        return packed_codes[..., :count]
    if bits in (1, 2, 4):  # codes do not cross bytes
        shifts = torch.arange(0, 8, bits, device=packed_codes.device, dtype=torch.uint8)
        return ((packed_codes[..., None] >> shifts) & (2**bits - 1)).flatten(-2)[..., :count]
    places = torch.arange(8, device=packed_codes.device, dtype=torch.uint8)
    stream = ((packed_codes[..., None] >> places) & 1).flatten(-2)[..., : count * bits].unflatten(-1, (count, bits))
    shifts = torch.arange(bits, device=packed_codes.device, dtype=torch.uint8)
    return (stream << shifts).sum(dim=-1, dtype=torch.uint8)


def _check_width(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits={bits}: codes of 1 to 8 bits are packed")


def packed_ternary(codes: Tensor) -> Tensor:
    """Bytes [..., ceil(n / 5)] of codes -1, 0, 1: five base-three digits a byte, the first the least."""
    digits = F.pad((codes.to(torch.int32) + 1), (0, -codes.shape[-1] % TRITS), value=1).unflatten(-1, (-1, TRITS))
    powers = 3 ** torch.arange(TRITS, device=codes.device, dtype=torch.int32)
    return (digits * powers).sum(dim=-1).to(torch.uint8)


def unpacked_ternary(packed_codes: Tensor, count: int) -> Tensor:
    """The first `count` codes -1, 0, 1, int8 [..., count]."""
    table = ternary_table().to(packed_codes.device)
    return table[packed_codes.long()].flatten(-2)[..., :count]


def ternary_table() -> Tensor:
    """The five digits -1, 0, 1 of every byte, int8 [256, 5]; bytes from 243 on stand for nothing."""
    powers = 3 ** torch.arange(TRITS)
    return (torch.arange(256)[:, None] // powers % 3 - 1).to(torch.int8)


# ---------------------------------------------------------------------------------------------- bytes


def code_bytes(count: int, bits: float) -> int:
    """ceil(n bits / 8)."""
    return math.ceil(count * bits / 8)


def scale_count(rows: int, columns: int, granularity: str, group: int = 128) -> int:
    """Scales of a matrix [rows, columns] by granularity: tensor, channel (a row), group (of columns), block (square).

    Raises:
        ValueError: no such granularity.
    """
    if granularity == "tensor":
        return 1
    if granularity in ("channel", "row", "token"):
        return rows
    if granularity in ("group", "tile"):
        return rows * -(-columns // group)
    if granularity == "block":
        return -(-rows // group) * -(-columns // group)
    raise ValueError(f'granularity "{granularity}" is unknown: tensor, channel, group or block')


def matrix_bytes(
    rows: int,
    columns: int,
    bits: float,
    *,
    granularity: str = "channel",
    group: int = 128,
    scale_bytes: int = 4,
    zero_bytes: int = 0,
    selector_bits: int = 0,
) -> int:
    """Bytes of a matrix of codes with its scales, zero points and selectors of groups.

    Args:
        rows: outputs.
        columns: inputs, the kernel's places included.
        bits: of a code.
        granularity: of scales.
        group: columns that share one.
        scale_bytes: of a scale.
        zero_bytes: of a zero point.
        selector_bits: of what chooses a group's grid.
    """
    groups = scale_count(rows, columns, granularity, group)
    return code_bytes(rows * columns, bits) + groups * (scale_bytes + zero_bytes) + code_bytes(groups, selector_bits)


def effective_bits(stored: int, count: int) -> float:
    """8 x bytes over numbers."""
    return 8 * stored / count
