"""Number grids: whole numbers, floats of any exponent and mantissa, powers of two and code books.

A grid maps a tensor to the values that a format can hold. Affine grids (Krishnamoorthi 2018, arXiv 1806.08342, section
2): q = clamp(round(x / s) + z, low, high), x' = s (q - z), with zero exactly representable. Float grids have 1 + E + M
bits and no infinities (van Baalen et al. 2023, arXiv 2303.17951, section 3), so that with the largest value m the bias
is b = 2^E - log2 m + log2(2 - 2^-M) - 1, a real number. Rounding is to the nearest, ties to even.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Scales below this stand for tensors of zeros.
SMALLEST = 1e-30


# ---------------------------------------------------------------------------------------------- whole numbers


def code_range(bits: int, *, symmetric: bool, signed: bool = True) -> tuple[int, int]:
    """Least and largest code: -(2^(b-1) - 1)..2^(b-1) - 1 if symmetric, else 0..2^b - 1; 0..2^b - 1 if unsigned.

    Raises:
        ValueError: a width that no code has.
    """
    if bits < 2 or bits > 16:
        raise ValueError(f"bits={bits}: whole numbers of 2 to 16 bits are offered")
    if symmetric and signed:
        return -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


@dataclass(frozen=True)
class Affine:
    """Scale and zero point of a tensor's groups, broadcastable to it, and the range of codes."""

    scale: Tensor
    zero: Tensor
    low: int | Tensor
    high: int | Tensor

    def codes(self, x: Tensor) -> Tensor:
        """Codes as floats of the dtype of x."""
        low: Any = self.low  # numbers, or tensors where they are part of a state
        high: Any = self.high
        return (torch.round(x / self.scale) + self.zero).clamp(low, high)

    def values(self, codes: Tensor) -> Tensor:
        """What codes stand for."""
        return self.scale * (codes - self.zero)

    def __call__(self, x: Tensor) -> Tensor:
        """The rounded values."""
        return self.values(self.codes(x))


def symmetric_grid(largest: Tensor, bits: int, *, signed: bool = True) -> Affine:
    """The symmetric grid whose largest value is `largest`: s = largest / (2^(b-1) - 1), or / (2^b - 1) unsigned."""
    low, high = code_range(bits, symmetric=True, signed=signed)
    scale = (largest / high).clamp(min=SMALLEST)
    return Affine(scale, torch.zeros_like(scale), low, high)


def affine_grid(least: Tensor, largest: Tensor, bits: int) -> Affine:
    """The asymmetric grid of 2^b codes over least..largest, widened to hold zero exactly."""
    low, high = code_range(bits, symmetric=False)
    least, largest = least.clamp(max=0), largest.clamp(min=0)
    scale = ((largest - least) / (high - low)).clamp(min=SMALLEST)
    zero = torch.round(-least / scale).clamp(low, high)
    return Affine(scale, zero, low, high)


# ---------------------------------------------------------------------------------------------- floats


@dataclass(frozen=True)
class FloatFormat:
    """A sign, E bits of exponent and M of mantissa; every code is a number."""

    exponent: int
    mantissa: int

    @property
    def bits(self) -> int:
        """Of one number."""
        return 1 + self.exponent + self.mantissa

    @property
    def most(self) -> float:
        """The largest value over where its binade begins, 2 - 2^-M."""
        return 2 - 2.0**-self.mantissa

    def bias(self, largest: float | Tensor) -> float | Tensor:
        """B with which the largest value of the grid is `largest`; exact where that is a power of two times `most`.

        Raises:
            ValueError: a largest value of 0 or below, where it is a number.
        """
        within = _above_zero(largest) / self.most
        return 2**self.exponent - 1 - (torch.log2(within) if isinstance(within, Tensor) else math.log2(within))

    def largest(self, bias: float | Tensor) -> float | Tensor:
        """The largest value of the grid with this bias."""
        top = 2**self.exponent - 1
        return self.most * (torch.exp2(top - bias) if isinstance(bias, Tensor) else 2.0 ** (top - bias))

    def values(self, largest: float = 1.0) -> Tensor:
        """All distinct values, ascending, float64; 2^bits - 1 of them (zero has two codes)."""
        exponents = torch.arange(2**self.exponent, dtype=torch.float64)[:, None]
        fractions = torch.arange(2**self.mantissa, dtype=torch.float64)[None] / 2**self.mantissa
        within = torch.where(exponents == 0, 2 * fractions, torch.exp2(exponents) * (1 + fractions)).flatten()
        magnitudes = within * 2.0 ** (1 - 2**self.exponent) * (float(_above_zero(largest)) / self.most)
        magnitudes[-1] = largest
        return torch.cat([-magnitudes.flip(0)[:-1], magnitudes])


_FORMAT = re.compile(r"e(\d)m(\d)")


def float_format(name: str) -> FloatFormat:
    """The format of a name such as "e4m3".

    Raises:
        ValueError: not such a name, or no exponent.
    """
    found = _FORMAT.fullmatch(name.lower())
    if found is None or int(found[1]) < 1:
        raise ValueError(f'format "{name}" is unknown: write a float as e4m3, with one bit of exponent or more')
    return FloatFormat(int(found[1]), int(found[2]))


def float_step(x: Tensor, form: FloatFormat, largest: float | Tensor) -> Tensor:
    """The distance of neighbouring values of the grid around each number: 2^(e - M - b).

    Binades are counted down from the one that the largest value lies in: steps of neighbouring ones then differ by 2
    exactly, and a rounded number is rounded to itself.
    """
    first = _above_zero(largest) / form.most  # where the highest binade begins
    binade = torch.floor(torch.log2(x.abs() / first)).clamp(min=2 - 2**form.exponent)
    return torch.exp2(binade - form.mantissa) * first


def float_rounded(x: Tensor, form: FloatFormat, largest: float | Tensor) -> Tensor:
    """X on the float grid whose largest value is `largest` (a number, or a tensor broadcastable to x).

    With x' = clip(x): e = max(floor(log2 |x'| + b), 1), step = 2^(e - M - b), round(x' / step) step.

    Raises:
        ValueError: a largest value of 0 or below, where it is a number; tensors of zeros stay zeros.
    """
    largest = _above_zero(largest)
    if isinstance(largest, Tensor):
        clipped = torch.maximum(torch.minimum(x, largest), -largest)
    else:
        clipped = x.clamp(-largest, largest)
    step = float_step(clipped, form, largest)
    made = torch.round(clipped / step) * step
    top = 2 ** (form.mantissa + 1) - 1  # steps of the highest binade that make the largest value, which is met exactly
    return torch.where(made.abs() > largest * ((top - 0.5) / top), made.sign() * largest, made)


def _above_zero(largest: float | Tensor) -> float | Tensor:
    if isinstance(largest, Tensor):
        return largest.clamp(min=SMALLEST)
    if largest <= 0:
        raise ValueError(f"largest={largest:g}: the largest value of a float grid is above 0")
    return largest


#: OCP's 8-bit floats (torch's dtypes), whose top codes are no numbers: E4M3 ends at 448 and E5M2 at 57 344.
OCP = {"ocp_e4m3": torch.float8_e4m3fn, "ocp_e5m2": torch.float8_e5m2}


def ocp_rounded(x: Tensor, name: str = "ocp_e4m3") -> Tensor:
    """X in an OCP format and back, clipped to its largest number first.

    Raises:
        ValueError: no such format.
    """
    if name not in OCP:
        raise ValueError(f'"{name}" is none of {", ".join(OCP)}')
    largest = torch.finfo(OCP[name]).max
    return x.clamp(-largest, largest).to(OCP[name]).to(x.dtype)


def ocp_values(name: str = "ocp_e4m3") -> Tensor:
    """All distinct finite values of an OCP format, ascending, float64."""
    if name not in OCP:
        raise ValueError(f'"{name}" is none of {", ".join(OCP)}')
    every = torch.arange(256, dtype=torch.uint8).view(OCP[name]).to(torch.float64)
    return every[every.isfinite()].unique()


# ---------------------------------------------------------------------------------------------- other grids


def power_of_two_rounded(x: Tensor, bits: int, largest: float | Tensor) -> Tensor:
    """X on 0 and +- largest 2^-i, i = 0..2^(b-1) - 2, each number to the nearest.

    The first of the levels is `largest`; together with zero they are 2^b - 1 values.
    """
    base = largest if isinstance(largest, Tensor) else torch.tensor(largest, dtype=x.dtype)
    levels = torch.exp2(-torch.arange(2 ** (bits - 1) - 1, dtype=x.dtype, device=x.device)).flip(0)
    grid = torch.cat([-levels.flip(0), levels.new_zeros(1), levels])
    scale = base.clamp(min=SMALLEST)
    return nearest(x / scale, grid) * scale


def nearest(x: Tensor, grid: Tensor) -> Tensor:
    """The nearest value of an ascending grid; on a tie the lower one."""
    return grid.to(x.dtype)[nearest_index(x, grid)]


def nearest_index(x: Tensor, grid: Tensor) -> Tensor:
    """The place of the nearest value of an ascending grid of two or more; on a tie the lower one."""
    grid = grid.to(device=x.device, dtype=x.dtype)
    above = torch.searchsorted(grid, x.contiguous()).clamp(1, len(grid) - 1)
    below = above - 1
    return torch.where(x - grid[below] <= grid[above] - x, below, above)


def kmeans_grid(x: Tensor, bits: int, iterations: int = 20) -> Tensor:
    """2^b centroids of the numbers of x by Lloyd's algorithm from evenly spaced quantiles, ascending."""
    ordered = x.flatten().double().sort().values
    distinct = ordered.unique()
    if len(distinct) <= 2**bits:
        return distinct.to(x.dtype)
    count = 2**bits
    places = (torch.arange(count, dtype=torch.float64) + 0.5) / count * (len(ordered) - 1)
    centroids = ordered[places.round().long()].unique()
    for _ in range(iterations):
        cuts = torch.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        parts = torch.tensor_split(ordered, cuts.tolist())
        made = torch.stack([part.mean() if len(part) else old for part, old in zip(parts, centroids, strict=True)])
        if torch.equal(made, centroids):
            break
        centroids = made
    return centroids.to(x.dtype)


def sqnr_db(exact: Tensor, rounded: Tensor) -> float:
    """Signal over quantization noise, 10 log10(sum x^2 / sum (x - x')^2); infinite without noise."""
    signal = exact.double().square().sum()
    noise = (exact.double() - rounded.double()).square().sum()
    return math.inf if noise == 0 else float(10 * torch.log10(signal / noise))
