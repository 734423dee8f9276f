"""Memory: what one worker may take, what the members of an invocation may take together, and their shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.config.schema import Config
from bench.host import gpus
from bench.plan.case import Case
from bench.worker.client import memory_limit

#: Memory that a member needs beside its live tensors: library buffers and the allocator's slack.
MEMORY_OVERHEAD = 1.5


def worker_limit(config: Config) -> int | None:
    """Bytes above which a worker's allocations fail; None on a GPU, whose driver maps more than it takes."""
    return memory_limit(config.executor.memory_share) if config.device.name == "cpu" else None


def room(config: Config) -> float | None:
    """Bytes that the members of an invocation may take together, where they live; None where nothing tells."""
    device = config.device.name
    if device == "cpu":
        return worker_limit(config)
    free = gpus.free_memory(device)
    return None if free is None else free * config.executor.memory_share


def expected_bytes(probe: dict[str, Any]) -> float:
    """Bytes that a case is expected to take beside others, from its probe; 0 where its peak could not be measured."""
    peaks = [row["value"] for row in probe["readings"] if row["metric"] == "peak_memory_bytes"]
    return MEMORY_OVERHEAD * max((peak for peak in peaks if peak is not None), default=0.0)  # of its largest part


def cases_that_fit(
    cases: Sequence[Case], sizes: Mapping[str, float], baseline: str, room: float | None
) -> list[list[Case]]:
    """The cases in their order, cut into parts that fit into memory beside the baseline and its twin.

    A case too large for any company is a part of its own: whether it runs is for the measurement to say.

    Args:
        cases: what is to be timed.
        sizes: expected bytes by case key.
        baseline: key of the case that is timed with every part, twice; if its size is unknown, the largest counts.
        room: bytes that there are; None where nothing tells, and all cases go together.
    """
    if not cases:
        return []
    if room is None:
        return [list(cases)]
    left = room - 2 * sizes.get(baseline, max(sizes.values()))
    parts: list[list[Case]] = [[]]
    taken = 0.0
    for case in cases:
        if parts[-1] and taken + sizes[case.key] > left:
            parts.append([])
            taken = 0.0
        parts[-1].append(case)
        taken += sizes[case.key]
    return parts
