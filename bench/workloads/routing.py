"""Where a mixture of experts sends its tokens: experts that a run hits, and how unevenly.

A gate is a module whose `experts.count` says how many there are and whose forward gives the numbers of the chosen ones
first, whole numbers [tokens, chosen]. In the bytes of a step only the experts that are hit count, so a mixture is cheap
at batch 1 and dear in a large batch; `params_read` says what that is in parameters.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from bench.reading import Reading, reading

NOTE = "mean over {gates} gates, {tokens} tokens each"


def readings(module: Any, run: Callable[[], Any], part: str) -> list[Reading]:
    """`experts_hit` and `expert_imbalance` of one run; nothing where no gate chose anything in it.

    Args:
        module: the subject's.
        run: makes the run.
        part: what it is of.
    """
    chosen = choices(module, run)
    if not chosen:
        return []
    hit = [len(numbers.unique()) for numbers, _ in chosen]
    uneven = [imbalance(numbers, count) for numbers, count in chosen]
    note = NOTE.format(gates=len(chosen), tokens=len(chosen[0][0]))
    return [
        reading(name, statistics.fmean(values), "counted", method_note=note, part=part)
        for name, values in (("experts_hit", hit), ("expert_imbalance", uneven))
    ]


def choices(module: Any, run: Callable[[], Any]) -> list[tuple[Any, int]]:
    """What every gate chose in a run, [tokens, chosen], and among how many."""
    import torch

    found: list[tuple[Any, int]] = []

    def note(gate: Any, _: Any, out: Any) -> None:
        picked = out[0] if isinstance(out, tuple) and out else None
        if isinstance(picked, torch.Tensor) and picked.dtype is torch.int64 and picked.dim() == 2:
            found.append((picked, int(gate.experts.count)))

    counts = ((part, getattr(getattr(part, "experts", None), "count", None)) for part in module.modules())
    gates = [part for part, count in counts if isinstance(count, int)]
    handles = [gate.register_forward_hook(note) for gate in gates]
    try:
        if gates:
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def imbalance(chosen: Any, count: int) -> float:
    """Tokens of the most loaded expert over those of the mean one."""
    load = chosen.flatten().bincount(minlength=count)
    return float(load.max()) * count / float(load.sum())
