"""What learning cost, kept as numbers beside the weights that came of it: a case that reads them still says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.costs import Cost

_PREFIX = "method_cost."


def told(cost: Cost, only: Collection[str] | None = None) -> dict[str, Tensor]:
    """The numbers of a cost as tensors, to be kept with weights: all, or those of these names."""
    known = cost.as_dict().items()
    numbers = {
        name: value for name, value in known if isinstance(value, int | float) and (only is None or name in only)
    }
    return {_PREFIX + name: torch.tensor(float(value), dtype=torch.float64) for name, value in numbers.items()}


def parted(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, and the cost that was kept with them as `module.method_cost` has it."""
    weights = {name: value for name, value in found.items() if not name.startswith(_PREFIX)}
    cost = {name.removeprefix(_PREFIX): float(value) for name, value in found.items() if name.startswith(_PREFIX)}
    return weights, cost
