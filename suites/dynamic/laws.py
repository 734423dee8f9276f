"""What paths cost and earn: laws of early exits, from shares of samples by path. Pure; no torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def expected_depth(shares: Sequence[float], batch: int) -> float:
    """Stages that a random batch runs without compaction: it ends when its last member leaves.

    With F(k) the share of samples that have left after stage k, it is the sum over k = 0 .. K-1 of 1 - F(k)^batch.

    Args:
        shares: of samples that leave after stage 1, 2, ..., K; they sum to 1.
        batch: samples of a batch; 1 gives the mean depth, many the depth of the deepest path in use.

    Raises:
        ValueError: shares that do not sum to 1, or a batch below 1.
    """
    _check(shares, batch)
    left = [0.0, *itertools.accumulate(shares)][:-1]
    return sum(1 - min(1.0, share) ** batch for share in left)


def expected_macs(shares: Sequence[float], costs: Sequence[float], batch: int) -> float:
    """Products a sample of the same batch, where `costs` are those of the path that ends after each stage."""
    _check(shares, batch)
    if len(costs) != len(shares):
        raise ValueError(f"{len(costs)} costs for {len(shares)} paths")
    out = [0.0, *itertools.accumulate(shares)]
    last = [min(1.0, after) ** batch - min(1.0, before) ** batch for before, after in itertools.pairwise(out)]
    return sum(share * cost for share, cost in zip(last, costs, strict=True))


def random_routing(shares: Sequence[float], qualities: Sequence[float]) -> float:
    """Quality of choosing paths at random with the same frequencies: a gate earns only what it gains over this."""
    _check(shares, 1)
    if len(qualities) != len(shares):
        raise ValueError(f"{len(qualities)} qualities for {len(shares)} paths")
    return sum(share * quality for share, quality in zip(shares, qualities, strict=True))


def exit_probabilities(gates: Sequence[float]) -> list[float]:
    """P_l = max(0, min(g_l, 1 - sum of earlier g)) of each gate, and the rest for the last exit (JEI-DNN)."""
    found, used = [], 0.0
    for gate in gates:
        found.append(max(0.0, min(gate, 1 - used)))
        used += gate
    return [*found, 1 - sum(found)]


def cascade_macs(hits: float, sent: float, first: float, second: float, hashing: float = 0.0) -> float:
    """Expected products of a cascade with a memory: (1 - hits) (first + sent second) + hashing."""
    return (1 - hits) * (first + sent * second) + hashing


def _check(shares: Sequence[float], batch: int) -> None:
    if abs(sum(shares) - 1) > 1e-6 or min(shares, default=-1.0) < 0:
        raise ValueError(f"shares of paths sum to {sum(shares):g}: they must be 0 or more and sum to 1")
    if batch < 1:
        raise ValueError(f"batch={batch}: one sample or more")
