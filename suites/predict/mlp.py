"""wa-hls4ml's regression network, one for each target, and its classifier of the same kind.

Source: wa-hls4ml, arXiv:2511.05615, section on surrogates: Linear 7 to 128, ELU, 2048, LeakyReLU, dropout 0.2, 2048,
LeakyReLU, 0.3, 2048, LeakyReLU, 0.2, 128, ELU, 1; Glorot weights, zero biases; 8 920 321 parameters. The classifier has
2048-4096-2048 between the same ends. Which seven numbers a network is told is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import UsageError
from suites.common.training import Loss
from suites.predict.measured import Measured
from suites.predict.networks import Network
from suites.predict.predictor import Question, logs, network_numbers
from suites.predict.surrogate import Scaled, Surrogate

#: Width of the layers at both ends, of those between them, and the share that is dropped after each of these.
ENDS, REGRESSION, CLASSIFIER, DROPPED = 128, (2048, 2048, 2048), (2048, 4096, 2048), (0.2, 0.3, 0.2)


def body(inputs: int, between: Sequence[int], ends: int = ENDS) -> nn.Sequential:
    """The layers of both networks, [batch, inputs] to [batch, 1]."""
    layers: list[nn.Module] = [nn.Linear(inputs, ends), nn.ELU()]
    for (before, after), share in zip(pairwise((ends, *between)), DROPPED, strict=True):
        layers += [nn.Linear(before, after), nn.LeakyReLU(), nn.Dropout(share)]
    layers += [nn.Linear(between[-1], ends), nn.ELU(), nn.Linear(ends, 1)]
    made = nn.Sequential(*layers)
    for layer in made:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return made


class RegressionMlp(Surrogate):
    """The numbers of a network as a whole to its cost."""

    def __init__(self, question: Question, inputs: int, width: int, steps: int, rate: float, draw: int = 0):
        super().__init__(question, steps, rate, draw)
        self.inputs = inputs
        self.body = body(inputs, [width * size // REGRESSION[0] for size in self.between()])
        self.scaled = Scaled(inputs)

    def between(self) -> Sequence[int]:
        """Widths of the layers between the ends, at the published size."""
        return REGRESSION

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """Logarithms of the numbers of each network, [networks, numbers].

        Raises:
            UsageError: a network has another number of them.
        """
        values = [logs(network_numbers(network)) for network in given]
        found = len(values[0]) if values else self.inputs
        if found != self.inputs:
            raise UsageError(f"wa_mlp has inputs={self.inputs}, and a network has {found} numbers: set inputs={found}")
        return (torch.tensor(values, dtype=torch.float32).reshape(-1, self.inputs),)

    def normalise(self, encoded: Sequence[Tensor]) -> None:
        """Of every number."""
        self.scaled.learn(encoded[0])

    def raw(self, *encoded: Tensor) -> Tensor:
        """See the class."""
        return self.body(self.scaled(encoded[0])).squeeze(-1)


class Classifier(RegressionMlp):
    """Whether a network stays below a budget, which is the median cost of those that it learns from.

    Its raw answer is the logit of staying below; what it gives is the budget times e to the power of minus that, which
    is no cost: it lies on the side of the budget that the class says, and ranks networks as the logit does.
    """

    budget: Tensor
    ranks_only = True

    def __init__(self, question: Question, inputs: int, width: int, steps: int, rate: float, draw: int = 0):
        super().__init__(question, inputs, width, steps, rate, draw)
        self.register_buffer("budget", torch.ones(1))

    def between(self) -> Sequence[int]:
        """Widths of the layers between the ends, at the published size."""
        return CLASSIFIER

    def forward(self, *encoded: Tensor) -> Tensor:
        """The budget over the odds of staying below it, [networks]."""
        return self.budget * torch.exp(-self.raw(*encoded).clamp(-20, 20))

    def _loss(self, items: Sequence[Measured], wanted: Tensor) -> Loss:
        """Cross-entropy of the class; `wanted` are normalised logarithms of costs.

        Raises:
            UsageError: the median cost is zero, and nothing lies below it.
        """
        middle = wanted.median()
        self.budget.copy_(torch.exp(middle * self.scale + self.centre) - self.offset)
        if float(self.offset) and float(self.budget) < 1e-3:  # zero, but for rounding: costs are counts here
            raise UsageError("the classifier's budget is the median cost, which is zero: take another target")
        encoded = self.encode([item.network for item in items])

        def loss(places: Tensor, targets: Tensor) -> Tensor:
            logits = self.raw(*(value[places] for value in encoded))
            return F.binary_cross_entropy_with_logits(logits, (targets <= middle).float())

        return loss
