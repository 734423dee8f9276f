"""What learned surrogates share: they learn the logarithm of the cost, normalised, from measured networks.

Where a cost is zero (no block of memory on an FPGA) they learn the logarithm of one plus it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UsageError
from suites.common.training import Loss, Pace, fit, one_thread
from suites.predict.measured import Measured
from suites.predict.networks import Network
from suites.predict.operators import ROW_NUMBERS
from suites.predict.predictor import (
    NETWORK_NUMBERS,
    Knowledge,
    Predictor,
    Question,
    enough,
    logs,
    network_numbers,
    padded,
    row_numbers,
)

#: Networks that a surrogate is trained on at least.
LEAST = 16
BATCH = 32


class Surrogate(Predictor):
    """A network over encoded networks; its `raw` answer is the logarithm of the cost, less its mean, in deviations.

    Attributes:
        offset: what is added to a cost before its logarithm: 0, or 1 where one that it learned from is zero.
    """

    centre: Tensor
    scale: Tensor
    offset: Tensor
    trains = True

    def __init__(self, question: Question, steps: int, rate: float, draw: int = 0):
        super().__init__(question)
        self.steps, self.rate, self.draw = steps, rate, draw
        self.register_buffer("centre", torch.zeros(1))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("offset", torch.zeros(1))

    def raw(self, *encoded: Tensor) -> Tensor:
        """The normalised logarithm of the cost, [networks]."""
        raise NotImplementedError(f"{type(self).__name__} does not define raw")

    def normalise(self, encoded: Sequence[Tensor]) -> None:
        """Take over means and deviations of what it is trained on."""
        raise NotImplementedError(f"{type(self).__name__} does not define normalise")

    def forward(self, *encoded: Tensor) -> Tensor:
        """Costs, [networks]."""
        return torch.exp(self.raw(*encoded).clamp(-20, 20) * self.scale + self.centre).sub(self.offset).clamp_min(0)

    def fit(self, known: Knowledge) -> None:
        """Train on the networks, seeded, on one thread.

        Raises:
            UsageError: there are too few, or a cost is negative.
        """
        items = enough(known, LEAST, type(self).__name__)
        costs = torch.tensor([item.cost.value for item in items], dtype=torch.float64)
        if (costs < 0).any():
            raise UsageError(f"{type(self).__name__} learns logarithms, and a measured cost is negative")
        self.offset.fill_(float((costs == 0).any()))
        targets = (costs + self.offset.double()).log().float()
        self.centre.fill_(float(targets.mean()))
        self.scale.fill_(float(targets.std().clamp_min(1e-6)))
        wanted = (targets - self.centre) / self.scale
        with torch.inference_mode(False), torch.enable_grad(), one_thread():
            torch.manual_seed(self.draw)
            self.normalise(self.encode([item.network for item in items]))
            fit(self, self._batches(items, wanted), self._loss(items, wanted), Pace(self.steps, self.rate))

    def _batches(self, items: Sequence[Measured], wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Random batches of places among the networks, and what belongs to them."""
        generator = torch.Generator().manual_seed(self.draw + 1)
        size = min(BATCH, len(items))
        for _ in range(self.steps):
            places = torch.randperm(len(items), generator=generator)[:size]
            yield places, wanted[places]

    def _loss(self, items: Sequence[Measured], wanted: Tensor) -> Loss:
        encoded = self.encode([item.network for item in items])

        def loss(places: Tensor, targets: Tensor) -> Tensor:
            return F.mse_loss(self.raw(*(value[places] for value in encoded)), targets)

        return loss


class RowSurrogate(Surrogate):
    """A surrogate over the numbers of rows [networks, most rows, 6] and of networks [networks, 7]."""

    def __init__(self, question: Question, steps: int, rate: float, draw: int = 0):
        super().__init__(question, steps, rate, draw)
        self.rows, self.whole = Scaled(len(ROW_NUMBERS)), Scaled(len(NETWORK_NUMBERS))

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """Numbers of every row, which rows are there, and numbers of every network."""
        rows, there = padded([[logs(row_numbers(row)) for row in network.rows] for network in given])
        whole = torch.tensor([logs(network_numbers(network)) for network in given], dtype=torch.float32)
        return rows, there, whole

    def normalise(self, encoded: Sequence[Tensor]) -> None:
        """Of the rows that are there, and of the networks."""
        rows, there, whole = encoded
        self.rows.learn(rows[there > 0])
        self.whole.learn(whole)

    def lacks(self, network: Network) -> str:
        """Layers."""
        return "" if network.rows else "its layers are not known"


class Scaled(nn.Module):
    """Numbers less their mean, in deviations; as they are until it has learned both."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, numbers: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("deviation", torch.ones(numbers))

    def learn(self, values: Tensor) -> None:
        """Take over mean and deviation over the first axis; of what never differs the deviation is one."""
        deviation = values.std(0)
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, values: Tensor) -> Tensor:
        """The same shape."""
        return (values - self.mean) / self.deviation
