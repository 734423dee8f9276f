"""Which sub-model runs on which device: ED-ViT's greedy placement by memory and energy, and its rule for the width.

Source: arXiv 2410.11650, section IV, in our words: sub-models are placed one after the other, the largest first, each
on the device with the most energy left among those whose memory holds it (reconstruction).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Device:
    """What a device has: bytes of memory, and joules (or any other unit that sub-models are told in)."""

    memory: float
    energy: float


@dataclass(frozen=True)
class Load:
    """What a sub-model needs of a device."""

    memory: float
    energy: float


def placed(loads: Sequence[Load], devices: Sequence[Device]) -> list[int]:
    """The device of every sub-model, by place.

    Raises:
        ValueError: no device has the memory and the energy that are left to be taken.
    """
    memory, energy = [device.memory for device in devices], [device.energy for device in devices]
    found = [-1] * len(loads)
    for place in sorted(range(len(loads)), key=lambda place: -loads[place].memory):
        load = loads[place]
        fits = [i for i in range(len(devices)) if memory[i] >= load.memory and energy[i] >= load.energy]
        if not fits:
            raise ValueError(
                f"sub-model {place + 1} needs {load.memory:g} of memory and {load.energy:g} of energy, and no device "
                "has both left: take narrower sub-models or more devices"
            )
        best = max(fits, key=lambda i: (energy[i], memory[i]))
        found[place] = best
        memory[best] -= load.memory
        energy[best] -= load.energy
    return found


def widest(heads: int, count: int, size: Callable[[int], float], budget: float) -> int:
    """The most heads, equal for all of so many sub-models, whose sizes together are within the budget.

    Args:
        heads: of the whole network.
        count: sub-models.
        size: of a sub-model with so many heads.
        budget: in the same unit.

    Raises:
        ValueError: not even one head each fits.
    """
    fitting = [kept for kept in range(1, heads + 1) if count * size(kept) <= budget]
    if not fitting:
        raise ValueError(f"{count} sub-models of one head need {count * size(1):.4g}, and the budget is {budget:g}")
    return max(fitting)


def groups(classes: int, count: int) -> list[list[int]]:
    """The classes divided evenly over so many sub-models, in order.

    Raises:
        ValueError: there are more sub-models than classes.
    """
    if count > classes:
        raise ValueError(f"n={count}: {classes} classes make at most {classes} sub-models")
    ends = [round(place * classes / count) for place in range(count + 1)]
    return [list(range(first, last)) for first, last in pairwise(ends)]
