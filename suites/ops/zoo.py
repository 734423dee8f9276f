"""The operator bench: a reference operator for each name, by category, with a small and a full size.

Categories and protocol follow MultiKernelBench (Wen et al. 2025, arXiv 2507.17773), whose 285 operators are reference
code for models that write kernels; these are our own, about sixty, for backends, layouts and dtypes. What is compared
is whatever runs the operator (`backends`, `dtypes` of a grid) with torch's eager one; the reference is the same
function in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: What an input holds, by the letter before its sides: normal numbers, numbers in 0..1, a distribution over the last
#: axis, true or false, small whole numbers in int8, or (a number) whole numbers below it.
Spec = tuple[Any, ...]


@dataclass(frozen=True)
class Entry:
    """One operator.

    Attributes:
        category: of MultiKernelBench.
        function: of the inputs; or a builder of a module, where `module` says so.
        small: one spec an input, such as ("n", 64, 128).
        full: likewise, of a size that fills a machine.
        tolerance: largest relative L2 distance from the reference in fp32: reductions need more than elementwise work.
        module: whether `function` builds a module with weights of its own.
    """

    category: str
    function: Callable[..., Any]
    small: tuple[Spec, ...]
    full: tuple[Spec, ...]
    tolerance: float = 1e-5
    module: bool = False

    def inputs(self, size: str, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Random inputs of a size; never constant."""
        return tuple(drawn(spec, generator) for spec in (self.small if size == "small" else self.full))


def drawn(spec: Spec, generator: torch.Generator | None = None) -> Tensor:
    """A tensor as its spec says."""
    kind, sides = spec[0], spec[1:]
    if kind == "n":
        return torch.randn(sides, generator=generator)
    if kind == "u":
        return torch.rand(sides, generator=generator)
    if kind == "p":
        return torch.randn(sides, generator=generator).softmax(-1)
    if kind == "b":
        return torch.rand(sides, generator=generator) < 0.5
    if kind == "i8":
        return torch.randint(-128, 128, sides, generator=generator, dtype=torch.int8)
    return torch.randint(kind, sides, generator=generator)


def built(entry: Entry) -> tuple[Callable[..., Any], nn.Module | None]:
    """The function, and the module with its weights where there is one."""
    if not entry.module:
        return entry.function, None
    module = entry.function().eval()
    return module, module
