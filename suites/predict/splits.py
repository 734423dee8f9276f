"""What a predictor learns from and what it is judged on: four splits, and a check that no network is in both.

`a`: random within the family; `b`: deeper or wider networks than any that was learned from; `c`: other families; `d`:
the table and what is learned come from another machine or another session, the networks that are judged from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from suites.predict.measured import Measured, Measurements, Way

Split = Literal["a", "b", "c", "d"]
#: In place of a family: every network there is.
ANY = "any"
#: Share of a family that is held out at random, and the share of depths and widths that is learned from.
HELD_OUT, KNOWN_SIZES = 0.4, 0.7


@dataclass(frozen=True)
class Halves:
    """Networks to learn from and networks to be judged on; `refused` were in both, and are only judged on."""

    training: tuple[Measured, ...]
    held_out: tuple[Measured, ...]
    refused: tuple[str, ...] = ()


def split(here: Measurements, way: Way, family: str, how: Split, elsewhere: Measurements | None = None) -> Halves:
    """The halves of a family, seeded by the networks' own keys: the same network is always in the same half of `a`.

    Args:
        here: measured on this machine.
        way: how the networks were run.
        family: that is learned from; `ANY` is all of them.
        how: see the module.
        elsewhere: of another machine or session, for `d`.
    """
    everything = list(here.networks.get(way, ()))
    own = [item for item in everything if family in (ANY, item.network.family)]
    if how == "a":
        held = [item for item in own if is_held_out(item)]
        return halves([item for item in own if not is_held_out(item)], held)
    if how == "b":
        return halves(*_by_size(own))
    if how == "c":
        return halves(own, [item for item in everything if item.network.family != family])
    other = [] if elsewhere is None else [m for m in elsewhere.networks.get(way, ()) if m.network.family == family]
    # the same networks on both sides are the question here: what another machine says of them
    return Halves(tuple(other), tuple(own))


def halves(training: Sequence[Measured], held_out: Sequence[Measured]) -> Halves:
    """The two without leaks: what is judged on is refused in training, by the hash of what a network computes."""
    judged = {item.network.key for item in held_out}
    clean = [item for item in training if item.network.key not in judged]
    refused = [item.network.name for item in training if item.network.key in judged]
    return Halves(tuple(clean), tuple(held_out), tuple(refused))


def is_held_out(item: Measured) -> bool:
    """Whether a network is in the random held-out part, by its key and nothing else."""
    number = int(hashlib.sha256(f"held out {item.network.key}".encode()).hexdigest()[:8], 16)
    return number / 2**32 < HELD_OUT


def _by_size(own: Sequence[Measured]) -> tuple[list[Measured], list[Measured]]:
    """Networks of known depths and widths, and those that are deeper or wider than all of them."""
    if not own:
        return [], []
    sizes = np.array([[item.network.depth, _size(item)] for item in own], dtype=float)
    most = np.quantile(sizes, KNOWN_SIZES, axis=0)
    beyond = (sizes > most).any(axis=1)
    return (
        [item for item, out in zip(own, beyond, strict=True) if not out],
        [item for item, out in zip(own, beyond, strict=True) if out],
    )


def _size(item: Measured) -> float:
    """Its widest layer; of a table of the user's own its products, if it has any."""
    return item.network.width if item.network.rows else float(item.network.macs or 0.0)
