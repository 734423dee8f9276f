"""How many tokens each block keeps, for every way in which a schedule can be given; plain integers, no tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

#: A constant, one value per block, or (r, inflect): a linear ramp.
Amount = int | Sequence[int] | tuple[int, float]


def merges_per_block(r: Amount, depth: int) -> list[int]:
    """Tokens that ToMe is asked to merge in each block (Bolya et al. 2023, section 3 and appendix on schedules).

    Args:
        r: the same number for every block, one number per block, or (r, inflect): a linear ramp from r (1 - inflect)
            in the first to r (1 + inflect) in the last block, each truncated to an integer.
        depth: number of blocks.

    Raises:
        ValueError: a negative number, or a list of another length than the depth.
    """
    if isinstance(r, int):
        _check_merges([r], f"r={r}", depth)
        return [r] * depth
    if _is_ramp(r, depth):
        middle, inflect = float(r[0]), float(r[1])
        if middle < 0 or not -1 <= inflect <= 1:
            raise ValueError(f"r={tuple(r)}: a ramp (r, inflect) needs r >= 0 and inflect in -1..1 (depth {depth})")
        low, high = middle * (1 - inflect), middle * (1 + inflect)
        step = (high - low) / (depth - 1) if depth > 1 else 0.0
        return [int(low + step * i) for i in range(depth)]
    if len(r) != depth:
        raise ValueError(
            f"r={list(r)} has {len(r)} entries for {depth} blocks: give one per block (each >= 0), one number for all, "
            "or a ramp (r, inflect) with inflect as a float"
        )
    _check_merges(r, f"r={list(r)}", depth)
    return [int(x) for x in r]


def _is_ramp(r: Sequence[float], depth: int) -> bool:
    return (
        len(r) == 2 and (isinstance(r, tuple) or isinstance(r[1], float)) and not (depth == 2 and isinstance(r, list))
    )


def _check_merges(values: Sequence[float], what: str, depth: int) -> None:
    if any(isinstance(v, bool) or int(v) != v or v < 0 for v in values):
        raise ValueError(f"{what}: tokens merged per block must be whole numbers >= 0 (depth {depth})")


def tome_counts(merges: Sequence[int], tokens: int, protected: int = 1) -> list[int]:
    """Tokens that enter the MLP of each block: r_l = min(r, (N - protected) // 2) fewer than before."""
    counts = []
    for r in merges:
        tokens -= min(r, (tokens - protected) // 2)
        counts.append(tokens)
    return counts


def quarters(depth: int) -> list[int]:
    """The first block of the second, third and last quarter: 4, 7, 10 of 12, where EViT and DynamicViT reduce."""
    return sorted({1 + depth * quarter // 4 for quarter in (1, 2, 3)} & set(range(1, depth + 1)))


def check_blocks(at: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """The block numbers (counted from 1) where a reduction stands; None for the quarters of the depth.

    Raises:
        ValueError: not increasing, or outside 1..depth.
    """
    if at is None:
        return tuple(quarters(depth))
    blocks = tuple(int(b) for b in at)
    if not blocks or any(not 1 <= b <= depth for b in blocks):
        raise ValueError(
            f"at={list(at)}: blocks are counted from 1 and must lie in 1..{depth} (depth {depth}); "
            f"leave it out for {quarters(depth)}"
        )
    if any(b <= a for a, b in pairwise(blocks)):
        raise ValueError(f"at={list(at)}: blocks must increase, each in 1..{depth} (depth {depth})")
    return blocks


def rates_per_stage(rate: float | Sequence[float], stages: int, name: str, depth: int) -> tuple[float, ...]:
    """One keep rate per stage.

    Raises:
        ValueError: a rate outside (0, 1], or a list of another length than the stages.
    """
    rates = (float(rate),) * stages if isinstance(rate, int | float) else tuple(float(x) for x in rate)
    if len(rates) != stages:
        raise ValueError(
            f"{name}={list(rates)} has {len(rates)} entries for {stages} stages (depth {depth}): give one per stage"
        )
    if any(not 0 < x <= 1 for x in rates):
        raise ValueError(f"{name}={rate!r}: a keep rate must lie in 0 < rate <= 1 (depth {depth})")
    return rates


def evit_counts(
    rates: Sequence[float], at: Sequence[int], depth: int, tokens: int, protected: int = 1, fuse: bool = True
) -> list[int]:
    """Tokens that enter the MLP of each block: ceil(rate x patches) and, if any was dropped, the fused token."""
    counts = []
    stage = dict(zip(at, rates, strict=True))
    for block in range(1, depth + 1):
        patches = tokens - protected
        kept = math.ceil(stage.get(block, 1.0) * patches)
        tokens = protected + kept + int(fuse and kept < patches)
        counts.append(tokens)
    return counts


def kept_per_block(values: Sequence[int] | None, name: str, depth: int, least: int) -> list[int | None]:
    """Kept counts of DiffRate for each block, special tokens included; None where nothing is asked for.

    Raises:
        ValueError: another length than the depth, or a count that leaves no patch.
    """
    if values is None:
        return [None] * depth
    if len(values) != depth:
        raise ValueError(f"{name} has {len(values)} entries for {depth} blocks: give one kept count per block")
    if any(isinstance(v, bool) or int(v) != v or v < least for v in values):
        raise ValueError(
            f"{name}={list(values)}: kept counts include the special tokens and must be whole numbers >= {least} "
            f"(depth {depth})"
        )
    return [int(v) for v in values]


def diffrate_counts(prune: Sequence[int | None], merge: Sequence[int | None], tokens: int) -> list[int]:
    """Tokens that enter the MLP of each block: min(N, P_l, M_l), the first block left whole (Chen et al. 2023)."""
    counts = []
    for block, limits in enumerate(zip(prune, merge, strict=True)):
        if block:
            tokens = min([tokens, *(limit for limit in limits if limit is not None)])
        counts.append(tokens)
    return counts
