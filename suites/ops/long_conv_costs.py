"""Closed forms of long convolutions (FlashFFTConv, arXiv 2311.05908): products, transforms, buffers, bytes.

Operations of a Fourier transform and products between spectra have names of their own and are never added up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from suites.ops import monarch


class Transformed(Protocol):
    """What of a long convolution its costs follow from."""

    form: str
    size: int
    width: int
    block: int
    kept: tuple[int, ...]
    cached: bool
    packed: bool


def costs_of(conv: Transformed, batch: int, positions: int) -> dict[str, float | str]:
    """What the trace of a call does not tell apart: operations of transforms, products of spectra, buffers."""
    n, rows = conv.size, batch * conv.width
    kernels = 0 if conv.cached else conv.width
    if conv.form in ("fft", "fft_half"):
        spectrum = 2 * (n // 2 + 1)
        operations = real_transform(n) * (2 * rows + kernels)
        return {
            "fourier_operations": operations, "pointwise_macs": 2 * spectrum * rows,
            "workspace_elements": (rows + conv.width) * spectrum + rows * spectrum + rows * n,
        }  # fmt: skip
    if conv.form == "partial":
        pieces = -(-positions // conv.block) * rows
        spectrum = 2 * (n // 2 + 1)
        return {
            "fourier_operations": real_transform(n) * (2 * pieces + conv.width),
            "pointwise_macs": 2 * spectrum * pieces,
            "workspace_elements": (2 * pieces + conv.width) * spectrum + pieces * n,
        }
    if conv.form in ("monarch", "sparse"):
        return {"pointwise_macs": 4 * (math.prod(conv.kept) + int(conv.packed)) * rows}
    return {}


def real_transform(size: int) -> float:
    """Operations of one transform of real numbers: 2.5 n log2 n."""
    return 2.5 * size * math.log2(size)


def monarch_macs(factors: Sequence[int], batch: int, width: int, kept: Sequence[int] | None = None) -> int:
    """Products of a fresh call: both transforms of every row and one of every kernel, 4 n (f1 + f2 + ...) each."""
    return monarch.macs(factors, kept) * (2 * batch * width + width)


def direct_macs(length: int, batch: int, width: int) -> int:
    """Products that the definition needs: L (L + 1) / 2 for every row."""
    return length * (length + 1) // 2 * batch * width


def least_bytes(length: int, batch: int, width: int, number: int = 4) -> int:
    """Bytes of input, output and kernel, each once: (2 B + 1) H L numbers."""
    return (2 * batch + 1) * width * length * number
