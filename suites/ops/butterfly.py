"""Transforms whose small DFT matrices are learned, one set a channel (FlashButterfly, arXiv 2302.06646).

The matrices of sizes 2, 4, 8, ..., m take the place of those of a Monarch transform of 2 x 4 x ... x m points and start
as DFT matrices: sum over j = 1 .. log2 m of H 4^j complex numbers for H channels. Reconstructed: any factors are
allowed, twiddle factors stay fixed, and the inverse takes the conjugate transposes of the same matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from suites.ops import monarch


class LearnedTransform(nn.Module):
    """Small complex matrices [width, f, f, 2] for each factor f, which start as unitary DFT matrices."""

    def __init__(self, factors: Sequence[int], width: int):
        super().__init__()
        self.factors, self.width = tuple(factors), width
        starts = [torch.view_as_real(monarch.dft(f)).float() for f in self.factors]
        self.matrices = nn.ParameterList(nn.Parameter(start.repeat(width, 1, 1, 1)) for start in starts)

    @property
    def size(self) -> int:
        """Points of the transform."""
        return math.prod(self.factors)

    def stages(self) -> PerChannel:
        """The transform with its matrices as they are now."""
        return PerChannel(self.factors, list(self.matrices))

    def convolved(self, u: Tensor, kernel: Tensor) -> Tensor:
        """A convolution in the space of the transform.

        Args:
            u: [batch, ..., width, positions].
            kernel: [..., width, taps].

        Returns:
            The first positions of the circular convolution where the matrices are DFT matrices, [batch, ..., width,
            positions].
        """
        stages = self.stages()
        spectrum = stages.forward(_pairs(u, self.size))
        weights = stages.forward(_pairs(kernel, self.size)) * self.size**0.5
        made = stages.inverse(monarch.products(spectrum, weights, -1 - len(self.factors)))
        return made.select(-2, 0)[..., : u.shape[-1]]


def convolved_densely(transform: LearnedTransform, u: Tensor, kernel: Tensor) -> Tensor:
    """What `LearnedTransform.convolved` should give, from the transform written out as one n x n matrix a channel.

    Args:
        transform: with its matrices.
        u: [batch, width, positions].
        kernel: [channels, width, taps].

    Returns:
        [batch, channels, width, positions].
    """
    size, positions = transform.size, u.shape[-1]

    def one(x: Tensor, k: Tensor, *matrices: Tensor) -> Tensor:
        whole = dense_matrix(transform.factors, matrices)
        spectra = [nn.functional.pad(v, (0, size - v.shape[-1])).to(whole.dtype) @ whole.mT for v in (x, k)]
        return ((spectra[0][:, None] * spectra[1] * size**0.5) @ whole.conj()).real[..., :positions]

    rows = [
        checkpoint(one, u[:, h], kernel[:, h], *(matrix[h] for matrix in transform.matrices), use_reentrant=False)
        for h in range(transform.width)
    ]
    return torch.stack(rows, 2)


def dense_matrix(factors: Sequence[int], matrices: Sequence[Tensor]) -> Tensor:
    """One channel's transform as a matrix [n, n]: rows in the layout of the spectrum, columns in that of the input.

    An entry is the product over stages of M[k_i, t_i] and the twiddle factor of k_i with all digits of t behind t_i.
    """
    size = math.prod(factors)
    places = torch.arange(size, device=matrices[0].device)
    row, column, left = places, places, size
    whole = torch.ones(size, size, dtype=torch.complex128, device=places.device)
    for factor, matrix in zip(factors, matrices, strict=True):
        rest = left // factor
        k, t = row // rest, column // rest
        row, column = row % rest, column % rest
        turns = -2 * math.pi * ((k[:, None] * column) % left).double() / left
        whole = whole * torch.view_as_complex(matrix.contiguous())[k][:, t] * torch.polar(torch.ones_like(turns), turns)
        left = rest
    return whole


class PerChannel(monarch.Transform):
    """Stages whose matrices belong to channels: the axis before the pairs of what is transformed."""

    def __init__(self, factors: Sequence[int], matrices: Sequence[Tensor]):
        """Take matrices [width, f, f, 2] for each factor."""
        self.factors = self.kept = tuple(factors)
        self.matrices = [_real(matrix) for matrix in matrices]
        conjugates = [matrix.transpose(1, 2) * matrix.new_tensor([1.0, -1.0]) for matrix in matrices]
        self.inverses = [_real(matrix) for matrix in conjugates]
        self.twiddles = [monarch.as_pair(t, matrices[0]) for t in monarch.twiddle_factors(self.factors, self.factors)]
        self._depth = 0

    def forward(self, x: Tensor) -> Tensor:
        """As of a plain transform, of pairs [..., width, 2, n]."""
        self._depth = x.dim() - 2
        return super().forward(x)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """As of a plain transform, of a spectrum [..., width, 2, f1, f2, ...]."""
        self._depth = spectrum.dim() - 1 - len(self.factors)
        return super().inverse(spectrum)

    def columns(self, matrix: Tensor, x: Tensor) -> Tensor:
        """Each channel's matrix times its columns [..., width, further axes, 2 f, columns]."""
        return self._beside(matrix, x.dim() - 2) @ x

    def rows(self, matrix: Tensor, x: Tensor) -> Tensor:
        """Each channel's matrix times its rows [..., width, further axes, 2 f]."""
        further = x.dim() - 1 - self._depth
        rows = x.flatten(self._depth, -2) if further else x.unsqueeze(-2)
        return (rows @ self._beside(matrix, self._depth).mT).reshape(*x.shape[:-1], matrix.shape[1])

    def _beside(self, matrix: Tensor, axes: int) -> Tensor:
        """The matrices with axes of one between the channel and themselves, as many as the stage has taken apart."""
        return matrix.reshape(matrix.shape[0], *[1] * (axes - self._depth), *matrix.shape[1:])


def _real(matrix: Tensor) -> Tensor:
    """Complex matrices [width, f, f, 2] as real ones that act on pairs, [width, 2 f, 2 f]."""
    real, imaginary = matrix.unbind(-1)
    return torch.cat([torch.cat([real, -imaginary], 2), torch.cat([imaginary, real], 2)], 1)


def _pairs(x: Tensor, size: int) -> Tensor:
    padded = nn.functional.pad(x, (0, size - x.shape[-1]))
    return torch.stack([padded, torch.zeros_like(padded)], -2)


def powers_to(largest: int) -> tuple[int, ...]:
    """The sizes 2, 4, 8, ..., m.

    Raises:
        ValueError: m is no power of two above 1.
    """
    if largest < 2 or largest & (largest - 1):
        raise ValueError(
            f"largest={largest}: the matrices have sizes 2, 4, 8, ..., so that it is a power of two, 2 or more"
        )
    return tuple(2**j for j in range(1, largest.bit_length()))


def complex_parameters(largest: int, width: int) -> int:
    """Learned complex numbers: the sum over j = 1 .. log2 m of H 4^j; twice as many real ones."""
    return sum(width * size**2 for size in powers_to(largest))
