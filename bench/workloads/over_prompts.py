"""Products of a prompt and of a decode step over several prompts, of a subject whose cost depends on what it reads.

Whether it does is not asked but looked at: a part is counted on a few prompts, and on all of them where two differ. So
columns that a threshold passes, layers that a confident step leaves out and tokens that take no part have a mean and
percentiles, and what costs the same whatever it reads has one count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.reading import Curve, Reading
from bench.workloads.spread import counted_spread
from bench.workloads.workload import Count, Facts, Part

#: Prompts of the sample; of these so many are counted first, to see whether there is anything to tell.
SAMPLE = 64
FIRST = {"prefill": 2, "decode": 8}
NOTE = (
    "all products that are executed, the method's own among them, per sequence, over {count} prompts of held-out text"
)


def spread(prompts: Sequence[Any], parts_at: Callable[[Any], Mapping[str, Part]], count: Count) -> Facts:
    """Readings and curves of the parts whose products differ between prompts.

    Args:
        prompts: ids [B, N] each.
        parts_at: the parts of one prompt, by name.
        count: runs a part once under the operator trace.
    """
    readings: list[Reading] = []
    curves: list[Curve] = []
    for name, first in FIRST.items():

        def macs(prompt: Any, name: str = name) -> float:
            return count(parts_at(prompt)[name]).executed_macs / len(prompt)

        values = [macs(prompt) for prompt in prompts[:first]]
        if len(set(values)) < 2:
            continue
        values += [macs(prompt) for prompt in prompts[first:]]
        note = NOTE.format(count=len(values))
        readings += counted_spread(values, note, name)
        curves.append(Curve("macs_mean", "input", list(range(len(values))), values, "counted", name, note))
    return Facts(readings, curves)
