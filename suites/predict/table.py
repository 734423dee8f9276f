"""A table of the user's own: a CSV with a line a network, numbers of each, and any column as the cost.

    name, family, macs, layers, cycles, predicted
    jet, dense, 4832, 4, 31, 29.5

`name` and `family` are optional; every other column has numbers. What is no cost column is what a network is known by,
and with `given_predictor` one of them is the prediction of another tool.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from bench.errors import UsageError, did_you_mean
from suites.predict.measured import Cost, Measured, Measurements
from suites.predict.networks import Network

#: Columns that are words.
WORDS = ("name", "family")
#: Family of networks of a table that names none.
FAMILY = "given"


def read(path: Path, cost: str) -> Measurements:
    """The networks of a CSV with the cost in one of its columns.

    Raises:
        UsageError: no such column, no lines, or a cell that is no number; the message has the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = list(reader.fieldnames or [])
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: this is no table of networks: {error}") from error
    numbers = [column for column in columns if column not in WORDS]
    if cost not in numbers:
        raise UsageError(f'{path}: there is no column "{cost}" to predict; {did_you_mean(cost, numbers)}')
    if not lines:
        raise UsageError(f"{path}: the table has no lines")
    found = [_network(line, number, cost, numbers, path) for number, line in enumerate(lines, start=2)]
    way = ("plain", "warm")
    return Measurements(networks={way: found}, unit_ms=cost.endswith("_ms"))


def _network(line: Mapping[str, str], number: int, cost: str, columns: list[str], path: Path) -> Measured:
    values: dict[str, float] = {}
    for column in columns:
        try:
            values[column] = float(line[column])
        except (TypeError, ValueError):
            values[column] = math.nan
        if not math.isfinite(values[column]):
            raise UsageError(f"{path}, line {number}: {column} is {line.get(column)!r}, which is no number")
    value = values.pop(cost)
    network = Network(line.get("name") or f"line {number}", line.get("family") or FAMILY, given=values)
    return Measured(network, Cost((value,)))
