"""Fidelity: how far one side's outputs are from the other side's, on the same inputs and weights.

It is what can be said of an approximation where there are no trained weights and so no score: an error of zero costs
nothing, and any other error is shown beside the time that it saves.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.reading import Reading, reading, unavailable
from bench.tensors import tensors_in

NOTE = "one run of each side on the same inputs and weights, in one process"


class Incomparable(BenchError):
    """Outputs that cannot be set beside each other: other numbers or shapes of tensors, or none."""


@dataclass(frozen=True)
class Fidelity:
    """How two nested outputs differ.

    Attributes:
        error: L2 norm of the difference of all floating-point outputs over that of the other side's; None where there
            are none, or where the other side's are all zero and ours are not.
        agreement: share in percent of vectors along the last axis whose largest element is at the same place, and of
            whole numbers that are equal; None where there is nothing to choose among.
        numbers: floating-point elements compared.
        choices: vectors and whole numbers compared.
    """

    error: float | None
    agreement: float | None
    numbers: int
    choices: int

    def readings(self) -> list[Reading]:
        """Error and agreement, each with the reason where it is not there."""
        found = []
        if self.error is None:
            why = (
                "the other side's outputs are all zero" if self.numbers else "the outputs hold no floating-point number"
            )
            found.append(unavailable("output_error", why))
        else:
            found.append(
                reading("output_error", self.error, "measured", statistic="one run of each side", method_note=NOTE)
            )
        if self.error:
            found.append(reading("output_sqnr_db", -20 * math.log10(self.error), "measured", method_note=NOTE))
        if self.agreement is None:
            found.append(unavailable("top1_agreement", "no output has an axis of two elements or more to choose among"))
        else:
            found.append(
                reading(
                    "top1_agreement",
                    self.agreement,
                    "measured",
                    n=self.choices,
                    statistic="share of output vectors",
                    method_note=NOTE,
                )
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON types."""
        return asdict(self)


def snapshot(value: Any) -> list[Tensor]:
    """Copies on the CPU of all tensors in a nested output, in order: they outlive the module that made them."""
    return [tensor.detach().to("cpu", copy=True) for tensor in tensors_in(value)]


def compare(ours: Any, theirs: Any) -> Fidelity:
    """How far our outputs are from theirs; sums are formed in double precision.

    Where both sides hold the same infinity (a masked logit) the difference is zero.

    Args:
        ours: a nested output, or its `snapshot`.
        theirs: the same of the other side.

    Raises:
        Incomparable: other numbers, kinds or shapes of tensors, no tensor at all, or NaN on a side.
    """
    pairs = _pairs(list(tensors_in(ours)), list(tensors_in(theirs)))
    off = scale = 0.0
    numbers = agreed = choices = 0
    for one, two in pairs:
        same, among = _choices(one, two)
        agreed, choices = agreed + same, choices + among
        if two.is_floating_point():
            difference, norm = _squares(one, two)
            off, scale, numbers = off + difference, scale + norm, numbers + two.numel()
    return Fidelity(_relative(off, scale, numbers), 100 * agreed / choices if choices else None, numbers, choices)


def _pairs(ours: list[Tensor], theirs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    if len(ours) != len(theirs):
        raise Incomparable(f"{len(ours)} tensors against {len(theirs)} of the other side")
    if not ours:
        raise Incomparable("the output holds no tensor")
    for one, two in zip(ours, theirs, strict=True):
        if one.shape != two.shape or one.is_floating_point() != two.is_floating_point():
            raise Incomparable(f"{_described(one)} against {_described(two)} of the other side")
        if bool(torch.isnan(one).any()) or bool(torch.isnan(two).any()):
            raise Incomparable("an output holds NaN")
    return list(zip(ours, theirs, strict=True))


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _choices(one: Tensor, two: Tensor) -> tuple[int, int]:
    """How many choices agree, and how many there are: largest elements of vectors, or whole numbers themselves."""
    if not two.is_floating_point():
        return int((one == two).sum()), two.numel()
    if two.ndim < 2 or two.shape[-1] < 2 or not two.numel():
        return 0, 0
    chosen = one.argmax(dim=-1) == two.argmax(dim=-1)
    return int(chosen.sum()), chosen.numel()


def _squares(one: Tensor, two: Tensor) -> tuple[float, float]:
    """Sums of squares of the difference and of the other side."""
    left, right = one.double(), two.double()
    equal = left == right  # also equal infinities, whose difference is no number
    difference = torch.where(equal, 0.0, left - right)
    return float(difference.square().sum()), float(torch.where(torch.isinf(right), 0.0, right).square().sum())


def _relative(off: float, scale: float, numbers: int) -> float | None:
    if not numbers or (scale == 0 and off > 0):
        return None
    if off == float("inf"):
        raise Incomparable("one side holds an infinity where the other has a number")
    return float((off / scale) ** 0.5) if off else 0.0
