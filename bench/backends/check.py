"""Whether a converted module answers as the eager one: the relative error of its outputs, by dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.backends.structure import take_apart
from bench.labels import REAL_INT

#: Relative error up to which outputs agree, by the type that both compute in. Another order of the same sums errs by
#: some roundoffs (2^-53, 2^-24, 2^-11, 2^-9, 2^-11), times what depth adds; a lower type than was asked for errs by far
#: more. Whole-number layers have a kind of their own: two right kernels round a tie to neighbouring codes, and each
#: such step, 2^-8 of a range, is carried through the layers behind it.
TOLERANCE = {"fp64": 1e-10, "fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2, "fp16": 1e-2, REAL_INT: 5e-2}


class OutputsDiffer(ValueError):
    """A converted module that answers otherwise than the eager one: its time is that of another computation."""


@dataclass(frozen=True)
class Agreement:
    """How far converted outputs are from eager's.

    Attributes:
        relative_error: the largest over the outputs, of floating-point ones ||converted - eager|| / ||eager||, of
            others the share of unequal elements; infinite where shapes, types or places of NaN and infinity differ.
        worst: number of the output that has it, in their flat order.
        outputs: how many tensors were compared.
        tolerance: what the type allows.
    """

    relative_error: float
    worst: int
    outputs: int
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.relative_error <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare(expected: Sequence[Any], found: Sequence[Any], dtype: str) -> Agreement:
    """The agreement of two flat lists of tensors."""
    if len(expected) != len(found):
        return Agreement(math.inf, min(len(expected), len(found)), len(found), TOLERANCE[dtype])
    errors = [_error(one, other) for one, other in zip(expected, found, strict=True)]
    worst = max(range(len(errors)), key=errors.__getitem__, default=0)
    return Agreement(errors[worst] if errors else 0.0, worst, len(errors), TOLERANCE[dtype])


def kind_of(dtype: str, execution: str | None) -> str:
    """What the tolerance goes by: the type of the case, or whole numbers where the subject computes in them."""
    return REAL_INT if execution == REAL_INT else dtype


def require_agreement(backend: str, expected: Any, found: Any, dtype: str) -> Agreement:
    """The agreement of what the eager module and the converted one gave for one input; `dtype` as `kind_of` says.

    Raises:
        OutputsDiffer: they differ by more than the type allows, or in structure, with the number.
    """
    ours, form = take_apart(expected, "output")
    theirs, other_form = take_apart(found, "output")
    if form != other_form:
        raise OutputsDiffer(f"through {backend} the outputs have another structure than eager's")
    result = compare(ours, theirs, dtype)
    if not result.agrees:
        raise OutputsDiffer(
            f"through {backend} output {result.worst} of {result.outputs} is off by {result.relative_error:.3g} "
            f"relative to eager's, where {dtype} allows {result.tolerance:g}: what would be timed is another "
            "computation"
        )
    return result


def _error(expected: Any, found: Any) -> float:
    """The relative error of one tensor."""
    import torch

    if expected.shape != found.shape or expected.dtype != found.dtype:
        return math.inf
    if not expected.is_floating_point() and not expected.is_complex():
        return float((expected != found.to(expected.device)).double().mean()) if expected.numel() else 0.0
    wide = torch.complex128 if expected.is_complex() else torch.float64
    one, two = expected.detach().to("cpu", wide), found.detach().to("cpu", wide)
    finite = torch.isfinite(one)
    if not torch.equal(finite, torch.isfinite(two)) or not _same_places(one[~finite], two[~finite]):
        return math.inf
    size, off = float(one[finite].norm()), float((one[finite] - two[finite]).norm())
    return off / size if size else off


def _same_places(one: Any, two: Any) -> bool:
    """Whether what is not finite is the same: -inf of a mask, NaN where eager has it."""
    import torch

    return bool(torch.equal(torch.nan_to_num(one, nan=0.5), torch.nan_to_num(two, nan=0.5)))
