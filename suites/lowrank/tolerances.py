"""How far an operator's result may be from its definition, by the dtype that it has been put in."""

from __future__ import annotations

import torch

from suites.common.operators import LOOSER

#: Largest relative L2 distance in single precision.
SINGLE = 1e-5


def tolerance_in(dtype: torch.dtype) -> float:
    """1e-5 in single precision and above it, more where numbers have fewer bits."""
    return SINGLE * max(1.0, LOOSER.get(dtype, 1.0))
