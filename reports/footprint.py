"""Electricity, carbon and cost per million samples and tokens, from the rows' energy and from what the user states.

Energy is only what a counter measured or what the user's watts estimate (docs/energy.md); the grid's intensity and the
price are stated for one report and are in no record. Without energy there is no footprint, and the cell says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.workloads import GENERATE
from reports.columns import Column, footprint_columns
from reports.rows import Cell, Row

JOULES_PER_KWH = 3.6e6
MILLION = 1e6


@dataclass(frozen=True)
class Rates:
    """What the user states of the electricity.

    Attributes:
        grams_per_kwh: grams of CO2 equivalent that a kilowatt-hour of the grid stands for; None: not stated.
        price_per_kwh: in `currency`; None: not stated.
        currency: as it is to be shown.
    """

    grams_per_kwh: float | None = None
    price_per_kwh: float | None = None
    currency: str = "EUR"

    @property
    def factors(self) -> dict[str, float]:
        """What a kilowatt-hour is in the unit of each stated column."""
        stated = {"kwh": 1.0, "co2e": self.grams_per_kwh, "cost": self.price_per_kwh}
        return {name: factor for name, factor in stated.items() if factor is not None}


def add(rows: Iterable[Row], rates: Rates) -> list[Column]:
    """Give the rows their cells of the footprint; the columns that these stand in, none where no row has energy."""
    used = [row for row in rows if "energy_j" in row.cells]
    if not any(row.value("energy_j") is not None for row in used):
        return []
    columns = footprint_columns(rates.factors, rates.grams_per_kwh, rates.price_per_kwh, rates.currency)
    for row in used:
        tokens = _tokens(row)
        for column in columns:
            name, _, per = column.key.partition("_per_million_")
            if per == "samples":
                row.cells[column.key] = _cell(row.cells["energy_j"], rates.factors[name], name)
            elif tokens:
                row.cells[column.key] = _cell(row.cells["energy_j"], rates.factors[name] / tokens, name)
    present = {key for row in used for key in row.cells}
    return [column for column in columns if column.key in present]


def _cell(energy: Cell, factor: float, name: str) -> Cell:
    """A million times the energy of one sample; an amount of carbon or money is never more than modelled."""
    if energy.value is None:
        return Cell(None, note=f"there is no energy: {energy.note}")
    scale = factor * MILLION / JOULES_PER_KWH
    ends = [None if end is None else end * scale for end in (energy.low, energy.high)]
    provenance = energy.provenance if name == "kwh" or energy.provenance == "estimated" else "modelled"
    return energy._replace(value=energy.value * scale, low=ends[0], high=ends[1], provenance=provenance)


def _tokens(row: Row) -> int:
    """Tokens that a sample makes, where the workload generates; else 0."""
    return int(row.case.full_shape.get("new_tokens") or 0) if row.case.workload == GENERATE else 0
