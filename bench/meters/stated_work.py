"""Multiplications and additions that a subject states by its paper's counter, and the energy that a table makes of it.

`module.stated_work` is a mapping with `multiplications` and `additions` of one sample, and a `note` on how they were
counted. Nothing of the energy is measured: it is a model of a chip that has one kind of multiplier and one of adder.

Source of the energies: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 32-bit
floating point at 45 nm.
"""

from __future__ import annotations

import math
from typing import Any

from bench.errors import UsageError
from bench.reading import Reading, reading

#: Joules of one multiplication and of one addition.
MULTIPLICATION_J, ADDITION_J = 3.7e-12, 0.9e-12
ENERGY = "3.7 pJ a multiplication and 0.9 pJ an addition, 32-bit floats at 45 nm (Horowitz 2014); a model, not measured"
COUNTS = ("multiplications", "additions")


def joules(multiplications: float, additions: float) -> float:
    """What so many operations take by the table."""
    return MULTIPLICATION_J * multiplications + ADDITION_J * additions


def readings(module: Any) -> list[Reading]:
    """Both counts and the modelled energy where the module states its operations; none where it does not.

    Raises:
        UsageError: another mapping, or a value that is no count.
    """
    stated = getattr(module, "stated_work", None)
    if stated is None:
        return []
    found = dict(stated) if isinstance(stated, dict) else {}
    note = str(found.pop("note", "as the subject states them"))
    if set(found) != set(COUNTS) or not all(map(_is_count, found.values())):
        raise UsageError(
            f"stated_work of {type(module).__name__} is {stated!r}: a mapping with multiplications and additions, "
            "numbers from 0 on, and a note is wanted"
        )
    counts = [reading(name, float(found[name]), "counted", method_note=note) for name in COUNTS]
    return [*counts, reading("modelled_energy_j", joules(**found), "modelled", method_note=f"{ENERGY}; {note}")]


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0
