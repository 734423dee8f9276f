"""Gradient-boosted trees on the numbers of rows: a network takes the sum of what they say of its rows.

The trees learn from the rows of the table, so that they say something of rows that were never measured as well. Where
the table has no rows of the family, or there is none (a peak of memory, a table of the user's own), they learn from
whole networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suites.predict.networks import Network
from suites.predict.predictor import (
    Knowledge,
    Predictor,
    Question,
    enough,
    logs,
    network_numbers,
    padded,
    row_numbers,
)

#: Families whose rows the table has; of others trees learn from whole networks.
TABLED = ("fbnet", "mobilenetv2")
#: Rows or networks from which trees are grown at least.
LEAST = 8


class Trees(Predictor):
    """cost = sum over rows of exp(trees(numbers of the row)); of whole networks where there is no table."""

    def __init__(self, question: Question, rounds: int, leaf: int):
        super().__init__(question)
        self.rounds, self.leaf = rounds, leaf
        self.by_row = True
        self.grown: Any = None
        self.register_buffer("anchor", torch.zeros(1))

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """Logarithms of the numbers of every row [networks, most rows, numbers], and which rows are there."""
        if self.by_row and all(network.rows for network in given):
            return padded([[logs(row_numbers(row)) for row in network.rows] for network in given])
        numbers = [[logs(network_numbers(network))] for network in given]
        return padded(numbers, len(numbers[0][0]))

    def forward(self, numbers: Tensor, there: Tensor) -> Tensor:
        """Costs, [networks]; of trees that have not grown zeros."""
        if self.grown is None or numbers.is_meta:
            return there.sum(-1) * 0.0
        flat = numbers.detach().cpu().double().numpy().reshape(-1, numbers.shape[-1])
        each = torch.from_numpy(np.exp(self.grown.predict(flat))).reshape(there.shape)
        return (each.to(there.device, there.dtype) * there).sum(-1)

    def fit(self, known: Knowledge) -> None:
        """Grow on the rows of the table, else on networks.

        Raises:
            UsageError: there are too few of both.
        """
        rows = [(known.rows[key], cost.value) for key, cost in known.table.items() if key in known.rows]
        self.by_row = len(rows) >= LEAST and self.question.family in TABLED
        self.uses_table, self.learns = self.by_row, not self.by_row
        if self.by_row:
            numbers = [logs(row_numbers(row)) for row, _ in rows]
            costs = [value for _, value in rows]
        else:
            items = enough(known, LEAST, "trees without a table of rows")
            numbers = [logs(network_numbers(item.network)) for item in items]
            costs = [item.cost.value for item in items]
        self.grown = self._grown(np.array(numbers), np.log(np.maximum(np.array(costs), 1e-12)))

    def _grown(self, numbers: np.ndarray, targets: np.ndarray) -> Any:
        from sklearn.ensemble import HistGradientBoostingRegressor

        made = HistGradientBoostingRegressor(
            max_iter=self.rounds, min_samples_leaf=self.leaf, learning_rate=0.1, early_stopping=False, random_state=0
        )
        return made.fit(numbers, targets)
