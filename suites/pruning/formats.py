"""Bytes that a pruned matrix takes in each format, in closed form; values of `value` bytes, indices of `index` bytes.

The forms are those of torch's layouts (CSR, BSR), of a bitmask, of N:M with packed places, of the balanced `gather`
kernel of this suite, and of Flash-LLM's tiles (Xia et al. 2023, arXiv:2309.10285, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

#: Bytes of an fp32 and an fp16 value, of a 16-bit place, a 32-bit and a 64-bit index.
FP32, FP16, INT16, INT32, INT64 = 4, 2, 2, 4, 8
#: Rows and columns of a Flash-LLM tile, and what a tile's count is padded to.
TILE = (128, 64)
PADDING = 4


def dense_bytes(rows: int, columns: int, value: int = FP32) -> int:
    """Every value, whatever it is: zeros of a mask are stored as well."""
    return rows * columns * value


def parts(size: int, side: int, what: str) -> int:
    """How many stretches of `side` there are in `size`.

    Raises:
        ValueError: they do not divide it.
    """
    if side < 1 or size % side:
        raise ValueError(f"{what} of {side} do not divide {size}: choose a divisor")
    return size // side


def csr_bytes(rows: int, nonzero: int, value: int = FP32, index: int = INT32) -> int:
    """A value and a column per weight, a pointer per row and one more."""
    return nonzero * (value + index) + (rows + 1) * index


def csr_break_even(value: int = FP32, index: int = INT32) -> float:
    """The sparsity from which CSR is smaller than dense, row pointers apart: 1 - value / (value + index)."""
    return 1 - value / (value + index)


def bsr_bytes(rows: int, block: tuple[int, int], blocks: int, value: int = FP32, index: int = INT32) -> int:
    """`blocks` kept blocks of b x b' values, a column per block, a pointer per row of blocks and one more.

    Raises:
        ValueError: blocks that do not divide the rows.
    """
    pointers = parts(rows, block[0], "blocks") + 1
    return blocks * (block[0] * block[1] * value + index) + pointers * index


def bitmask_bytes(weights: int, nonzero: int, value: int = FP32) -> int:
    """The kept values and one bit per weight."""
    return nonzero * value + math.ceil(weights / 8)


def nm_bits(n: int, m: int, value_bits: int = 16) -> Fraction:
    """Bits per weight of N:M: N of M values, each with its place in ceil(log2 M) bits; 9 for 2:4 of fp16.

    Raises:
        ValueError: not 1 <= n <= m.
    """
    if not 1 <= n <= m:
        raise ValueError(f"n={n} of m={m}: 1 <= n <= m is wanted")
    return Fraction(n * (value_bits + (m - 1).bit_length()), m)


def nm_bytes(weights: int, n: int, m: int, value_bits: int = 16) -> int:
    """Bytes of that for so many weights, whole bytes.

    Raises:
        ValueError: groups of m that do not divide the weights, or not 1 <= n <= m.
    """
    parts(weights, m, "groups")
    return math.ceil(nm_bits(n, m, value_bits) * weights / 8)


def gather_bytes(rows: int, group: int, kept_columns: int, value: int = FP32, index: int = INT64) -> int:
    """Rows in groups of `group` that share `kept_columns` columns each: the values, and one index list a group.

    Raises:
        ValueError: groups that do not divide the rows.
    """
    groups = parts(rows, group, "groups")
    return groups * (group * kept_columns * value + kept_columns * index)


def gathered_bytes(rows: int, group: int, kept_columns: int, columns: int, value: int = FP32) -> int:
    """Bytes that the gather kernel copies: per group its kept rows of the activations, [groups x K_keep x N].

    Raises:
        ValueError: groups that do not divide the rows.
    """
    return parts(rows, group, "groups") * kept_columns * columns * value


def lscd_bytes(counts: Iterable[int], offsets: bool = True, value: int = FP16) -> int:
    """Flash-LLM's tiles: a value and a 16-bit place a word, each tile's count padded to a multiple of 4, its offset.

    Args:
        counts: non-zeros of each tile.
        offsets: whether the 4 bytes of each tile's offset are counted.
        value: bytes of a value; of fp16 a word has 4.
    """
    counts = list(counts)
    words = sum(-(-count // PADDING) * PADDING for count in counts)
    return (value + INT16) * words + (INT32 * len(counts) if offsets else 0)


def lscd_plain_bytes(rows: int, columns: int, sparsity: float) -> int:
    """The same without padding and offsets: 4 bytes per non-zero; against 2 M K of dense fp16 it breaks even at 1/2."""
    from suites.pruning.rounding import kept

    return (FP16 + INT16) * kept(rows * columns, sparsity)
