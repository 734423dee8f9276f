"""What all predictors are: a module whose forward turns encoded networks into costs, and how it learns them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from suites.predict import networks
from suites.predict.measured import Cost, Measured
from suites.predict.networks import Network
from suites.predict.operators import ROW_NUMBERS, Row, numbers_of

#: Numbers of a network as a whole, the seven inputs of the regression network.
NETWORK_NUMBERS = (
    "products layers", "macs", "per_channel_macs", "parameters", "activation_bytes", "operators", "widest layer",
)  # fmt: skip


#: Networks that are predicted at once: pairs of layers of deep ones fill a memory quickly.
TOGETHER = 8


@dataclass(frozen=True)
class Question:
    """What is predicted of which networks, and how it is judged.

    Attributes:
        family: that is learned from.
        split: `a`, `b`, `c` or `d` (`suites.predict.splits`).
        target: `latency_ms`, `peak_memory_bytes`, or a column of a table of the user's own.
        machine: `measured`, or one that is simulated.
        form: how the networks run.
        table: how the rows of the table were run; differs from `form` where a table of another backend is tried.
        inputs: of the table's rows.
    """

    family: str = "fbnet"
    split: str = "a"
    target: str = "latency_ms"
    machine: str = "measured"
    form: str = "plain"
    table: str = "plain"
    inputs: str = "warm"


@dataclass(frozen=True)
class Knowledge:
    """What a predictor may learn from.

    Attributes:
        training: networks with their costs.
        table: rows by key, those that repeat well enough.
        rows: the same rows with their operators, for models that learn from rows.
        operations_per_s, bytes_per_s: of the machine; None where it was not calibrated.
        other_form: networks as they ran in the form that the table was measured in.
        refused: why a row is not in the table, by key, where it was measured and does not repeat.
    """

    training: Sequence[Measured]
    table: Mapping[str, Cost] = field(default_factory=dict)
    rows: Mapping[str, Row] = field(default_factory=dict)
    operations_per_s: float | None = None
    bytes_per_s: float | None = None
    other_form: Sequence[Measured] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


class Predictor(nn.Module):
    """A module that predicts costs; one that has not learned yet answers as well, and what it says means nothing."""

    #: Whether its weights are trained, and kept; whether it learns from networks at all; whether it needs a table.
    trains, learns, uses_table = False, True, False
    #: Whether it says which network is cheaper and nothing of what it costs.
    ranks_only = False

    def __init__(self, question: Question):
        super().__init__()
        self.question = question
        self.examples: tuple[Network, ...] = ()

    # ------------------------------------------------------------------------------------------ of the subclass

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """The networks as tensors [networks, ...]."""
        raise NotImplementedError(f"{type(self).__name__} does not define encode")

    def fit(self, known: Knowledge) -> None:
        """Learn, in place.

        Raises:
            UsageError: there is too little to learn from, with what to measure.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define fit")

    def lacks(self, network: Network) -> str:
        """What it would need to predict a network; empty where it can."""
        return "" if network.rows or network.given else "nothing is known of its layers"

    def exactly(self, *encoded: Tensor) -> Tensor:
        """The forward, in double precision where it has one."""
        return self(*encoded)

    # ------------------------------------------------------------------------------------------ the same for all

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """So many encoded networks: held-out ones where there are some, else random ones of the space."""
        known = self.examples or tuple(networks.fbnet_network(f"fbnet_random_{n}") for n in range(min(batch, 8)))
        chosen = [known[place % len(known)] for place in range(batch)]
        return tuple(value.to(self.where) for value in self.encode(chosen))

    def encode_one(self) -> None:
        """Encode one network."""
        self.encode(list(self.examples[:1]) or [networks.fbnet_network("fbnet_a")])

    @property
    def where(self) -> torch.device:
        """The device of its state."""
        for value in (*self.parameters(), *self.buffers()):
            return value.device
        return torch.get_default_device()

    @torch.no_grad()
    def predict(self, given: Sequence[Network]) -> list[float]:
        """The costs of networks, one by one in order."""
        found: list[float] = []
        for start in range(0, len(given), TOGETHER):
            encoded = self.encode(given[start : start + TOGETHER])
            found += [float(value) for value in self.exactly(*(value.to(self.where) for value in encoded))]
        return found


def enough(known: Knowledge, least: int, what: str) -> Sequence[Measured]:
    """The networks to learn from.

    Raises:
        UsageError: there are fewer than that.
    """
    if len(known.training) < least:
        raise UsageError(
            f"{what} learns from {least} measured networks at least, and there are {len(known.training)}: run the "
            "grid's networks into this folder first (`python -m bench suite=predict`), or take another family"
        )
    return known.training


def network_numbers(network: Network) -> list[float]:
    """The numbers of `NETWORK_NUMBERS`; of a table of the user's own its columns in order of their names."""
    if network.given:
        return [float(network.given[name]) for name in sorted(network.given)]
    macs, alone, weights, activations, operators, _ = numbers_of(network.rows)
    return [network.depth, macs, alone, weights / 4, activations, operators, network.width]


def row_numbers(row: Row) -> list[float]:
    """The numbers of `ROW_NUMBERS` of one row."""
    return numbers_of([row])


def logs(values: Sequence[float]) -> list[float]:
    """Logarithms of one plus each; of a negative number it keeps the sign."""
    return [math.copysign(math.log1p(abs(value)), value) for value in values]


def padded(rows: Sequence[Sequence[Sequence[float]]], width: int = len(ROW_NUMBERS)) -> tuple[Tensor, Tensor]:
    """Lists of rows as [networks, most rows, width], and 1 where there is a row, [networks, most rows]."""
    longest = max([1, *(len(each) for each in rows)])
    empty = [0.0] * width
    values = [[*map(list, each), *[empty] * (longest - len(each))] for each in rows]
    there = [[1.0] * len(each) + [0.0] * (longest - len(each)) for each in rows]
    return torch.tensor(values, dtype=torch.float32), torch.tensor(there)
