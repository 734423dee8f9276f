"""Whole numbers of 1, 2, 4, 8 or 12 bits, packed into bytes; and the uniform quantiser that makes them."""

from __future__ import annotations

import torch
from torch import Tensor

#: What scales and minima are stored in.
SCALE = torch.float16


def packed(codes: Tensor, bits: int) -> Tensor:
    """Bytes [..., n bits / 8] of codes [..., n] below 2^bits; n bits must fill whole bytes (pairs for 12 bits)."""
    if bits == 8:
        return codes.to(torch.uint8)
    if bits == 12:
        first, second = codes[..., ::2], codes[..., 1::2]
        parts = [first & 255, (first >> 8) | ((second & 15) << 4), second >> 4]
        return torch.stack(parts, dim=-1).flatten(-2).to(torch.uint8)
    per_byte = 8 // bits
    grouped = codes.to(torch.int32).unflatten(-1, (-1, per_byte))
    shifts = torch.arange(per_byte, device=codes.device, dtype=torch.int32) * bits
    return (grouped << shifts).sum(dim=-1).to(torch.uint8)


def unpacked(packed_codes: Tensor, bits: int) -> Tensor:
    """Codes [..., n], int64, from their bytes."""
    if bits == 8:
        return packed_codes.long()
    if bits == 12:
        low, middle, high = packed_codes.long().unflatten(-1, (-1, 3)).unbind(-1)
        return torch.stack([low | ((middle & 15) << 8), (middle >> 4) | (high << 4)], dim=-1).flatten(-2)
    per_byte = 8 // bits
    shifts = torch.arange(per_byte, device=packed_codes.device) * bits
    return ((packed_codes.long()[..., None] >> shifts) & (2**bits - 1)).flatten(-2)


def quantised(x: Tensor, bits: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of x below 2^bits, and scale and minimum over `dim`, such that x ~ code * scale + minimum.

    Scale and minimum are rounded to how they are stored before the codes are chosen.
    """
    low = x.amin(dim, keepdim=True).to(SCALE)
    scale = ((x.amax(dim, keepdim=True) - low.to(x.dtype)) / (2**bits - 1)).to(SCALE)
    step = scale.to(x.dtype)
    safe = torch.where(step > 0, step, torch.ones_like(step))
    codes = ((x - low.to(x.dtype)) / safe).round().clamp(0, 2**bits - 1)
    return codes.to(torch.int32), scale, low


def restored(codes: Tensor, scale: Tensor, low: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers that the codes stand for."""
    return codes.to(dtype) * scale.to(dtype) + low.to(dtype)
