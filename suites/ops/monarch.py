"""Discrete Fourier transforms as a few dense matrix products (Monarch), with their layout left as it falls.

With n = f1 m, t = m t1 + t2 and k = k1 + f1 k2, X[k] = sum over t2 of W_m^(t2 k2) W_n^(t2 k1) sum over t1 of W_f1^(t1
k1) x[t]: an f1-point transform over columns, a twiddle factor, and m-point transforms over rows, which are taken apart
the same way. The result stands at [k1, k2, ...], which a convolution need not sort: both spectra stand alike and the
inverse undoes it.

A complex number is a pair of real ones; a stage multiplies with the real 2f x 2f matrix [[Re, -Im], [Im, Re]], so that
every dtype with a matrix product has it, 4 MACs for each complex product. Transforms are unitary: fp16 would overflow
otherwise.

Source: Fu et al. 2023, FlashFFTConv (arXiv 2311.05908), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Factors that the paper's kernels take, by size of the transform.
PAPER_FACTORS = {
    256: (16, 16), 1024: (32, 32), 4096: (16, 16, 16), 8192: (32, 16, 16), 16384: (16, 32, 32), 32768: (32, 32, 32),
}  # fmt: skip


def factors_for(size: int, order: int | None = None) -> tuple[int, ...]:
    """Factors of a transform: the paper's where it has the size, else nearly equal ones in ascending order.

    Args:
        size: points of the transform.
        order: how many factors; None takes two up to 1024, three up to 32768, then four.
    """
    if order is None and size in PAPER_FACTORS:
        return PAPER_FACTORS[size]
    count = order or (2 if size <= 1024 else 3 if size <= 32768 else 4)
    found, left = list[int](), size
    for remaining in range(count, 1, -1):
        root = left ** (1 / remaining)
        divisors = [d for d in range(1, left + 1) if left % d == 0]
        found.append(min(divisors, key=lambda d: abs(math.log(d / root))))
        left //= found[-1]
    return tuple(sorted(factor for factor in (*found, left) if factor > 1)) or (1,)


class Transform:
    """The matrices and twiddle factors of one size, made in float64 and kept in the dtype of use."""

    def __init__(self, factors: Sequence[int], like: Tensor, kept: Sequence[int] | None = None):
        """Prepare the stages.

        Args:
            factors: of the size, in any order.
            like: gives dtype and device.
            kept: rows of each axis of the spectrum that are made at all; None all of them.
        """
        self.factors = tuple(factors)
        self.kept = self.factors if kept is None else tuple(kept)
        self.matrices = [block_matrix(dft(f)[:rows], like) for f, rows in zip(self.factors, self.kept, strict=True)]
        self.inverses = [
            block_matrix(dft(f)[:rows].conj().T, like) for f, rows in zip(self.factors, self.kept, strict=True)
        ]
        self.twiddles = [as_pair(t, like) for t in twiddle_factors(self.factors, self.kept)]

    @property
    def size(self) -> int:
        """Points of the transform."""
        return math.prod(self.factors)

    def columns(self, matrix: Tensor, x: Tensor) -> Tensor:
        """A stage's matrix times columns [..., 2 f, width]."""
        return matrix @ x

    def rows(self, matrix: Tensor, x: Tensor) -> Tensor:
        """The last stage's matrix times rows [..., 2 f]."""
        return x @ matrix.T

    def forward(self, x: Tensor) -> Tensor:
        """The spectrum [..., 2, kept1, kept2, ...] of pairs [..., 2, n], unitary, in the layout of the factors."""
        return self._forward(x, 0)

    def _forward(self, x: Tensor, stage: int) -> Tensor:
        f, rows = self.factors[stage], self.kept[stage]
        lead, width = x.shape[:-2], x.shape[-1] // f
        if (
            stage == len(self.factors) - 1
        ):  # one product with all rows, where a product for each would be of single columns
            return self.rows(self.matrices[stage], x.reshape(*lead, 2 * f)).reshape(*lead, 2, rows)
        y = self.columns(self.matrices[stage], x.reshape(*lead, 2 * f, width))
        y = y.reshape(*lead, 2, rows, width)
        y = multiplied(y, self.twiddles[stage]).transpose(-3, -2)  # [..., rows, 2, width]
        inner = self._forward(y, stage + 1)
        return inner.movedim(len(lead), len(lead) + 1)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Pairs [..., 2, n] of a spectrum in the layout that `forward` leaves; rows that are not kept are zeros."""
        return self._inverse(spectrum, 0)

    def _inverse(self, y: Tensor, stage: int) -> Tensor:
        f, rows = self.factors[stage], self.kept[stage]
        deeper = len(self.factors) - 1 - stage
        if deeper == 0:
            lead = y.shape[:-2]
            return self.rows(self.inverses[stage], y.reshape(*lead, 2 * rows)).reshape(*lead, 2, f)
        lead = y.shape[: y.dim() - deeper - 2]
        inner = self._inverse(y.movedim(len(lead), len(lead) + 1), stage + 1)  # [..., rows, 2, width]
        width = inner.shape[-1]
        x = multiplied(inner.transpose(-3, -2), self.twiddles[stage], conjugate=True)
        x = self.columns(self.inverses[stage], x.reshape(*lead, 2 * rows, width))
        return x.reshape(*lead, 2, f * width)


def dft(size: int) -> Tensor:
    """The unitary DFT matrix [size, size] in complex128."""
    places = torch.arange(size)
    angles = -2 * math.pi * ((places[:, None] * places) % size).double() / size
    return torch.polar(torch.full_like(angles, size**-0.5), angles)


def twiddle_factors(factors: Sequence[int], kept: Sequence[int]) -> list[Tensor]:
    """W_n^(k1 t2) [kept1, m] of every stage but the last, with n what the stage transforms and m what is left of it."""
    found, size = [], math.prod(factors)
    for f, rows in list(zip(factors, kept, strict=True))[:-1]:
        width = size // f
        turns = (torch.arange(rows)[:, None] * torch.arange(width)) % size
        angles = -2 * math.pi * turns.double() / size
        found.append(torch.polar(torch.ones_like(angles), angles))
        size = width
    return found


def block_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    """A complex matrix as the real one that acts on pairs, [2 rows, 2 columns]."""
    real, imaginary = matrix.real, matrix.imag
    whole = torch.cat([torch.cat([real, -imaginary], 1), torch.cat([imaginary, real], 1)], 0)
    return whole.to(like)


def as_pair(values: Tensor, like: Tensor) -> Tensor:
    """Complex values as real ones with a leading axis of two."""
    return torch.stack([values.real, values.imag]).to(like)


def multiplied(x: Tensor, factor: Tensor, *, conjugate: bool = False) -> Tensor:
    """Pairs [..., 2, a, b] times a factor [2, a, b], or its conjugate."""
    real, imaginary = factor[0], -factor[1] if conjugate else factor[1]
    left, right = x.select(-3, 0), x.select(-3, 1)
    return torch.stack([left * real - right * imaginary, left * imaginary + right * real], -3)


def products(x: Tensor, y: Tensor, axis: int) -> Tensor:
    """Pairs times pairs; both have their two parts on the given axis, counted from the end."""
    a, b = x.unbind(axis)
    c, d = y.unbind(axis)
    return torch.stack([a * c - b * d, a * d + b * c], axis)


def macs(factors: Sequence[int], kept: Sequence[int] | None = None) -> int:
    """Real MACs of one transform: 4 n (f1 + f2 + ...) where all is kept."""
    total, rows_before = 0, 1
    wanted = factors if kept is None else kept
    size = math.prod(factors)
    for f, rows in zip(factors, wanted, strict=True):
        size //= f
        total += 4 * rows_before * rows * f * size
        rows_before *= rows
    return total
