"""FBNet's look-up table: a network takes the sum of its rows, each measured once; and what mends that sum.

Source: Wu et al. 2019, FBNet, arXiv:1812.03443, section 3.2.2, equation 4: the latency of a network is the sum over
layers of the chosen candidate's entry. `constant` adds what starting an operator costs; `linear` is fitted on the sum,
the number of operators and their bytes. The search that uses such a table is `fbnet_search` of the suite convnets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bench.errors import UsageError
from suites.predict import networks
from suites.predict.networks import Network
from suites.predict.operators import numbers_of
from suites.predict.predictor import Knowledge, Predictor, Question, enough

Mend = Literal["sum", "constant", "linear"]
#: Networks that a mend of so many constants is fitted to at least.
LEAST = {"sum": 0, "constant": 2, "linear": 4}


class Lut(Predictor):
    """cost = w . (sum of the table's entries, operators, millions of bytes); plain sums have w = (1, 0, 0)."""

    entries: Tensor
    weights: Tensor
    uses_table = True

    def __init__(self, question: Question, mend: Mend):
        super().__init__(question)
        self.mend = mend
        self.keys: tuple[str, ...] = table_keys()
        self.register_buffer("entries", torch.zeros(len(self.keys), dtype=torch.float64))
        self.register_buffer("weights", torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
        self.refused: dict[str, str] = {}
        self.learns = mend != "sum"

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """How often each row is in a network [networks, rows], and operators and millions of bytes [networks, 2]."""
        place = {key: number for number, key in enumerate(self.keys)}
        counts = np.zeros((len(given), len(self.keys)))
        for number, network in enumerate(given):
            for row in network.rows:
                if row.key in place:
                    counts[number, place[row.key]] += 1
        size = [[numbers_of(network.rows)[4], 1e-6 * sum(row.bytes for row in network.rows)] for network in given]
        dtype = torch.float64
        return torch.tensor(counts.tolist(), dtype=dtype), torch.tensor(size, dtype=dtype)

    def forward(self, counts: Tensor, size: Tensor) -> Tensor:
        """Costs, [networks]."""
        return self.exactly(counts, size).float()

    def exactly(self, *encoded: Tensor) -> Tensor:
        """Costs in double precision: a sum of a table adds no error of its own."""
        counts, size = (value.to(self.entries.dtype) for value in encoded)
        total = counts @ self.entries
        return torch.cat([total.unsqueeze(-1), size], -1) @ self.weights

    def fit(self, known: Knowledge) -> None:
        """Take over the table, and fit the constants by least squares of relative errors.

        Raises:
            UsageError: there is no table, or too few networks to fit constants to.
        """
        if not known.table:
            raise UsageError("there is no table of rows: run the grid's rows first (`python -m bench suite=predict`)")
        self.keys, self.refused = tuple(known.table), dict(known.refused)
        self.entries = torch.tensor([cost.value for cost in known.table.values()], dtype=torch.float64)
        self.weights = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        if self.mend == "sum":
            return
        items = [m for m in enough(known, LEAST[self.mend], f"lut_{self.mend}") if not self.lacks(m.network)]
        if len(items) < LEAST[self.mend]:
            raise UsageError(
                f"lut_{self.mend} needs {LEAST[self.mend]} networks whose rows are all in the table, and has "
                f"{len(items)}: measure again what was refused (retry=disturbed), on a quieter machine"
            )
        counts, size = self.encode([item.network for item in items])
        totals = (counts @ self.entries).numpy()
        self._mend(totals, size.numpy(), np.array([item.cost.value for item in items]))

    def _mend(self, totals: np.ndarray, size: np.ndarray, costs: np.ndarray) -> None:
        if self.mend == "constant":
            left, columns = costs - totals, size[:, :1]
        else:
            left, columns = costs, np.column_stack([totals, size])
        found, *_ = np.linalg.lstsq(columns / costs[:, None], left / costs, rcond=None)
        fitted = [1.0, float(found[0]), 0.0] if self.mend == "constant" else found.tolist()
        self.weights = torch.tensor(fitted, dtype=torch.float64)

    def lacks(self, network: Network) -> str:
        """Rows that are not in the table, or were refused because they do not repeat."""
        if not network.rows:
            return "its layers are not known"
        known = set(self.keys)
        for row in network.rows:
            if row.key not in known:
                name = row.key or "a layer of its own kind"
                return self.refused.get(row.key, f"{name} is not in the table")
        return ""


def table_keys() -> tuple[str, ...]:
    """The keys of the distinct rows of the table with stem and heads, before anything is measured."""
    rows = [row.key for row in networks.table_rows().values() if row is not None]
    ends = [row.key for plan in ("a", "b", "c") for row in networks.fbnet_network(f"fbnet_{plan}").rows]
    return tuple(dict.fromkeys([*rows, *ends]))
