"""What a subject answers, looked at: finite, the same twice, the same from a captured graph; as flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.flags import Flag, flag
from bench.meters.reach import tensors_in

#: Relative difference between two identical forwards from which the output counts as changing.
SAME_OUTPUT = 1e-4


def check_output(forward: Callable[[], Any], timed: Callable[[], Any] | None = None) -> list[Flag]:
    """Flags about two identical forwards, and about what is timed in their place.

    An output that is not finite has a cost like any other: what it means is for the reader to say.

    Args:
        forward: one forward of the module.
        timed: what is timed, where that is not the forward itself but a graph that replays it.
    """
    # copies: a compiled module that replays graphs writes every output to the same place
    first, second = ([_numbers(tensor).clone() for tensor in tensors_in(forward())] for _ in range(2))
    if not first:
        return [flag("no_tensor_output", "info", "the output holds no tensor, so it could not be checked")]
    flags = _not_finite(first)
    if not _same(first, second):
        flags.append(flag("changing_output", "warn", "two forwards of the same input gave different outputs"))
    elif timed is not None and not _same(first, [_numbers(tensor) for tensor in tensors_in(timed())]):
        text = "the captured graph gives another output than the forward that it replays"
        flags.append(flag("graph_output", "warn", text))
    return flags


def _not_finite(tensors: list[Tensor]) -> list[Flag]:
    """A flag that says how many values are NaN or infinite, if any are."""
    of = [tensor for tensor in tensors if not tensor.is_meta and (tensor.is_floating_point() or tensor.is_complex())]
    values = sum(tensor.numel() for tensor in of)
    broken = sum(int(tensor.isnan().sum()) for tensor in of)
    endless = sum(int(tensor.isinf().sum()) for tensor in of)
    if not broken + endless:
        return []
    text = f"of {values} values of the output {broken} are NaN and {endless} infinite; "
    text += "NaN mostly comes of a broken forward" if broken else "a mask of scores gives such values"
    return [flag("not_finite", "warn" if broken else "info", text)]


def has_nan(output: Any) -> bool:
    """Whether a floating tensor of an output holds NaN."""
    found = [tensor for tensor in tensors_in(output) if not tensor.is_meta and tensor.is_floating_point()]
    return any(bool(_numbers(tensor).isnan().any()) for tensor in found)


def _numbers(tensor: Tensor) -> Tensor:
    """The tensor's values as one plain tensor, whatever its layout; a type that torch cannot compare as `float32`."""
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.is_nested:
        parts = [part.flatten() for part in tensor.unbind()]
        return torch.cat(parts) if parts else torch.empty(0)
    if tensor.layout is not torch.strided:
        return tensor.to_dense()
    narrow = tensor.is_floating_point() and tensor.element_size() < 2
    return tensor.to(torch.float32) if narrow else tensor


def _same(one: list[Tensor], two: list[Tensor]) -> bool:
    return len(one) == len(two) and all(_alike(a, b) for a, b in zip(one, two, strict=True))


def _alike(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if one.is_meta or two.is_meta:
        return True
    if not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, two)
    wide = torch.complex64 if one.is_complex() else torch.float32
    return torch.allclose(one.to(wide), two.to(wide), rtol=SAME_OUTPUT, atol=SAME_OUTPUT, equal_nan=True)
