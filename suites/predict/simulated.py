"""Machines that are not there, for which it is known what a predictor can and cannot find.

`additive`: a network takes the sum of its rows; a sum of the table has no error. `constant`: each operator in a network
costs as much again as starting it takes, which rows alone do not show. `cached`: rows alone find their maps in a cache
that the maps of a whole network do not fit into, so that some rows take longer than the table says; no constant mends
that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal

from suites.common import fbnet
from suites.predict import networks
from suites.predict.measured import Cost, Measured, Measurements
from suites.predict.networks import Network
from suites.predict.operators import Row, attainable_ms

Machine = Literal["additive", "constant", "cached"]
OPERATIONS_PER_S, BYTES_PER_S = 5e10, 1e10
#: Milliseconds of starting an operator on `constant`.
LAUNCH_MS = 0.02
#: On `cached`: activations of a row that no longer stay where they are in a network, and how much longer it takes then.
CACHE_BYTES, MISS = 4_000_000, 1.6
#: Random networks of the space, and generated ones.
RANDOM, GENERATED = 40, 120


def row_ms(row: Row) -> float:
    """What a row takes alone on any of the machines."""
    return attainable_ms([row], OPERATIONS_PER_S, BYTES_PER_S)


def network_ms(network: Network, machine: Machine) -> float:
    """What a network takes."""
    if machine == "cached":
        return sum(row_ms(row) * (MISS if _is_large(row) else 1.0) for row in network.rows)
    operators = sum(len(row.operators) for row in network.rows)
    return sum(map(row_ms, network.rows)) + (LAUNCH_MS * operators if machine == "constant" else 0.0)


def _is_large(row: Row) -> bool:
    return max(operator.activation_bytes for operator in row.operators) > CACHE_BYTES


def measurements(machine: Machine) -> Measurements:
    """Rows and networks of every family as that machine would give them, without noise, in two processes."""
    found = [Measured(network, _twice(network_ms(network, machine))) for network in all_networks()]
    known = {row.key: row for row in all_rows(item.network for item in found)}
    rows = {key: _twice(row_ms(row)) for key, row in known.items()}
    way = ("plain", "warm")
    return Measurements({way: rows}, known, {way: found}, OPERATIONS_PER_S, BYTES_PER_S, simulated=True)


def _twice(value: float) -> Cost:
    return Cost((value, value), "simulated")


@cache
def all_networks() -> Sequence[Network]:
    """Networks of every family but the zoo."""
    names = [
        *(f"fbnet_{plan}" for plan in fbnet.RELEASED),
        *(f"fbnet_random_{number}" for number in range(RANDOM)),
        *(f"mobilenetv2_{width}" for width in (50, 75, 100, 140)),
        *(f"dense_{number}" for number in range(GENERATED)),
        *(f"conv_{number}" for number in range(GENERATED // 4)),
        *networks.EXEMPLARS,
    ]
    return tuple(map(networks.named, names))


def all_rows(made_of: Iterable[Network]) -> list[Row]:
    """The rows of the table and those of these networks, each once."""
    table = [row for row in networks.table_rows().values() if row is not None]
    rows = [*table, *(row for network in made_of for row in network.rows)]
    return list({row.key: row for row in rows}.values())
