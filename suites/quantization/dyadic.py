"""Rescaling by dyadic numbers m 2^-e: whole-number products and shifts, no division (HAWQV3, arXiv 2011.10680)."""

from __future__ import annotations

import torch
from torch import Tensor

#: Bits of the multiplier's mantissa.
MANTISSA = 31


def dyadic(scale: Tensor) -> tuple[Tensor, Tensor]:
    """M and e, int64, with scale ~ m 2^-e: the mantissa of frexp times 2^31, rounded."""
    fraction, exponent = torch.frexp(scale.double())
    multiplier = torch.round(fraction * 2**MANTISSA).to(torch.int64)
    return multiplier, MANTISSA - exponent.to(torch.int64)


def rescaled(sums: Tensor, multiplier: Tensor, shift: Tensor) -> Tensor:
    """round(sums m / 2^e) in int64, halves away from minus infinity (add half and shift).

    Args:
        sums: int32 or int64 below 2^31 in magnitude, so that products stay below 2^62.
        multiplier: m, broadcastable.
        shift: e, 1 to 62, broadcastable.
    """
    product = sums.to(torch.int64) * multiplier
    half = torch.ones_like(shift) << (shift - 1)
    return (product + half) >> shift
