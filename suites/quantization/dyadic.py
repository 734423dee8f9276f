"""Rescaling by dyadic numbers m 2^-e: whole-number products and shifts, no division (HAWQV3, arXiv 2011.10680)."""

from __future__ import annotations

import torch
from torch import Tensor

#: Bits of the multiplier's mantissa.
MANTISSA = 31
#: Longest shift of a product; and the largest scale, whose shift is 1: beyond, products would go the other way.
WIDEST, LARGEST = 62, 2.0**29


def dyadic(scale: Tensor) -> tuple[Tensor, Tensor]:
    """M and e, int64, with scale ~ m 2^-e: the mantissa of frexp times 2^31, rounded.

    Raises:
        ValueError: a scale above 2^29.
    """
    if not scale.is_meta and bool((scale > LARGEST).any()):
        raise ValueError(f"scale={float(scale.max()):g}: a dyadic number is offered up to 2^29, whose shift is 1")
    fraction, exponent = torch.frexp(scale.double())
    multiplier = torch.round(fraction * 2**MANTISSA).to(torch.int64)
    return multiplier, MANTISSA - exponent.to(torch.int64)


def rescaled(sums: Tensor, multiplier: Tensor, shift: Tensor) -> Tensor:
    """round(sums m / 2^e) in int64, halves away from minus infinity (add half and shift).

    Args:
        sums: int32 or int64 below 2^31 in magnitude, so that products stay below 2^62.
        multiplier: m, broadcastable.
        shift: e, 1 or more, broadcastable; from 63 on every product is less than a half.
    """
    product = sums.to(torch.int64) * multiplier
    near = shift.clamp(max=WIDEST)  # int64 has no longer shift, and a longer one would be taken modulo 64
    half = torch.ones_like(near) << (near - 1)
    return torch.where(shift > WIDEST, 0, (product + half) >> near)
