"""An operator of the bench by name, and geometric means of speed-ups by category.

Tables: `suites.ops.zoo_pointwise` and `suites.ops.zoo_dense`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from bench.errors import did_you_mean
from suites.common.operators import Operator
from suites.ops import zoo_dense, zoo_pointwise
from suites.ops.zoo import Entry, built

OPERATORS: dict[str, Entry] = {**zoo_pointwise.ENTRIES, **zoo_dense.ENTRIES}
#: Categories of the original with the operators that it has in each, 285 in all.
CATEGORIES = {
    "activation": 15, "architecture": 50, "broadcast": 10, "convolution": 34, "fuse": 100, "index": 12,
    "loss": 7, "math": 6, "matmul": 17, "normalization": 8, "optimizer": 5, "pooling": 6, "reduce": 5, "resize": 10,
}  # fmt: skip


def bench_operator(
    *, name: str = "relu", size: Literal["small", "full"] = "small", backward: bool = False
) -> BenchOperator:
    """An operator of the bench with random inputs.

    Args:
        name: of the table.
        size: of its inputs: milliseconds, or what fills a machine.
        backward: a run also takes the gradients of one tensor out of it.

    Raises:
        ValueError: there is no operator of that name, or none of its results has gradients.
    """
    if name not in OPERATORS:
        raise ValueError(f'operator "{name}" does not exist; {did_you_mean(name, OPERATORS)}')
    if backward and (name in NO_GRADIENT or OPERATORS[name].category == "optimizer"):
        raise ValueError(f'operator "{name}" has no single differentiable result: take backward=False')
    return BenchOperator(name, size, backward).eval()


#: Operators whose result is whole numbers or several tensors, or whose inputs are running statistics.
NO_GRADIENT = ("argmax", "int8", "lstm_cell", "mamba_step", "batch_norm", "conv_bn_relu")


class BenchOperator(Operator):
    """The operator on its inputs."""

    def __init__(self, name: str, size: str, backward: bool):
        super().__init__(form=f"torch {name}", backward=backward)
        self.name, self.size, self.entry = name, size, OPERATORS[name]
        self.tolerance_fp32 = self.entry.tolerance
        self.module = built(self.entry)[1]

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random inputs of the size; a batch of the row is none of theirs."""
        return self._placed(self.entry.inputs(self.size))

    def check_args(self, seed: int) -> tuple[Tensor, ...]:
        """Inputs of the small size."""
        return self._placed(self.entry.inputs("small", torch.Generator().manual_seed(seed)))

    def _placed(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x.to(self.like) if x.is_floating_point() else x.to(self.like.device) for x in inputs)

    def function(self, *args: Tensor) -> Any:
        """What torch makes of them."""
        return (self.entry.function if self.module is None else self.module)(*args)

    def definition(self, *args: Tensor) -> Any:
        """The same in float64."""
        args = tuple(x.double() if x.dtype is torch.int8 else x for x in args)
        return self.function(*args)


def geometric_means(speedups: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Geometric mean of the speed-ups of each category, from (operator, speed-up).

    Raises:
        ValueError: an operator that is none of the bench, or a speed-up that is no positive number.
    """
    logs = defaultdict[str, list[float]](list)
    for name, value in speedups:
        if name not in OPERATORS:
            raise ValueError(f'operator "{name}" does not exist; {did_you_mean(name, OPERATORS)}')
        if not value > 0:
            raise ValueError(f"a speed-up of {value} for {name}: it is a ratio of times, above 0")
        logs[OPERATORS[name].category].append(math.log(value))
    return {category: math.exp(sum(found) / len(found)) for category, found in logs.items()}
