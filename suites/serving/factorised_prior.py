"""A learned density of each channel of a latent: 58 parameters, and three quantiles of it.

Source: Balle et al. 2018, "Variational image compression with a scale hyperprior", arXiv 1802.01436, appendix 6.1: the
cumulative distribution is a chain of small monotone maps. What is rounded to k has probability c(k + 1/2) - c(k - 1/2).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.serving import range_coding
from suites.serving.payloads import header, without_header

#: Widths inside the chain of maps, how wide the density is at first, and the mass beyond its outer quantiles.
FILTERS, FIRST_SCALE, TAIL = (1, 3, 3, 3, 3, 1), 10.0, 1e-9
LEAST = 1e-9


class FactorisedPrior(nn.Module):
    """Densities of the channels of a latent [batch, channels, ...], learned together with it, then frozen in tables.

    Attributes:
        quantiles: lower, median and upper of each channel, [channels, 1, 3], set by `update`.
        tables: probabilities of -255 to 255, [channels, 511]; what is beyond is in the first and last. Zero until
            `update`.
    """

    tables: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        scale = FIRST_SCALE ** (1 / (len(FILTERS) - 1))
        sizes = list(pairwise(FILTERS))
        starts = [math.log(math.expm1(1 / scale / outer)) for _, outer in sizes]
        self.matrices = nn.ParameterList(
            torch.full((channels, outer, inner), start) for (inner, outer), start in zip(sizes, starts, strict=True)
        )
        self.biases = nn.ParameterList(torch.rand(channels, outer, 1) - 0.5 for _, outer in sizes)
        self.factors = nn.ParameterList(torch.zeros(channels, outer, 1) for _, outer in sizes[:-1])
        self.quantiles = nn.Parameter(torch.zeros(channels, 1, 3), requires_grad=False)
        self.register_buffer("tables", torch.zeros(channels, 2 * range_coding.REACH + 1, dtype=torch.float64))
        self._models: tuple[int, list[Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the coder's models, which are made again."""
        return {**self.__dict__, "_models": None}

    def logits(self, x: Tensor) -> Tensor:
        """Log-odds of the cumulative distribution at x, [channels, 1, n]."""
        for place, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix.to(x)) @ x + bias.to(x)
            if place < len(self.factors):
                x = x + self.factors[place].to(x).tanh() * x.tanh()
        return x

    def likelihood(self, latent: Tensor) -> Tensor:
        """Probability of the unit interval around every number, of the latent's shape; 1e-9 at least."""
        flat = latent.transpose(0, 1).reshape(self.channels, 1, -1)
        lower, upper = self.logits(flat - 0.5), self.logits(flat + 0.5)
        sign = -(lower + upper).sign().detach()  # where both are near one, the difference is taken of the tails
        found = ((sign * upper).sigmoid() - (sign * lower).sigmoid()).abs().clamp_min(LEAST)
        return found.reshape(latent.transpose(0, 1).shape).transpose(0, 1)

    def bits(self, latent: Tensor) -> Tensor:
        """Bits of the whole latent, a number."""
        return -self.likelihood(latent).log2().sum()

    # ------------------------------------------------------------------------------------------ tables and strings

    @torch.no_grad()
    def update(self) -> None:
        """Quantiles and tables of the densities as they are now; strings are made by them from here on."""
        targets = torch.tensor([TAIL / 2, 0.5, 1 - TAIL / 2], dtype=torch.float64).logit()
        self.quantiles.copy_(self._solved(targets).to(self.quantiles))
        reach = range_coding.REACH
        edges = torch.arange(-reach, reach + 2, dtype=torch.float64, device=self.tables.device) - 0.5
        masses = self.logits(edges.expand(self.channels, 1, -1)).sigmoid()[:, 0]
        masses[:, 0], masses[:, -1] = 0.0, 1.0
        self.tables.copy_(masses.diff(dim=1).clamp_min(0))
        self._models = None

    def _solved(self, targets: Tensor) -> Tensor:
        """Where the log-odds are the targets, [channels, 1, targets], by bisection."""
        low = torch.full((self.channels, 1, len(targets)), -1e5, dtype=torch.float64, device=self.tables.device)
        high = -low
        for _ in range(80):
            middle = (low + high) / 2
            below = self.logits(middle) < targets.to(middle)
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    @property
    def is_updated(self) -> bool:
        """Whether there are tables."""
        return bool(self.tables.sum() > 0)

    def models(self) -> list[Any]:
        """The coder's model of every channel.

        Raises:
            ValueError: the tables were not made, so that a string could not be read with the density that was learned.
        """
        version = self.tables._version
        if self._models is None or self._models[0] != version:
            if not self.is_updated:
                raise ValueError("the prior has no tables: call update() when its densities are learned")
            self._models = (version, range_coding.table_models(self.tables.cpu().numpy()))
        return self._models[1]

    def encode(self, latent: Tensor) -> bytes:
        """Shape, then a string of every sample of the rounded latent."""
        symbols = latent.detach().round().cpu().numpy().astype(np.int64)
        models = self.models()
        strings = [range_coding.coded_by_tables(sample.reshape(self.channels, -1), models) for sample in symbols]
        return header(latent.shape) + b"".join(strings)

    def decode(self, payload: bytes) -> Tensor:
        """The rounded latent, exactly."""
        found, _ = self.read(payload)
        return found

    def read(self, payload: bytes) -> tuple[Tensor, memoryview]:
        """The rounded latent and what follows its strings."""
        shape, body = without_header(payload)
        count = int(np.prod(shape[2:]))
        samples = []
        for _ in range(shape[0]):
            symbols, body = range_coding.read_by_tables(body, self.models(), count)
            samples.append(symbols)
        return torch.from_numpy(np.stack(samples).reshape(shape).astype(np.float32)), body
