"""Whether what a subject answers means anything: finite, the same twice, the same from a captured graph; as flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.worker.child import InvalidOutput

#: Relative difference between two identical forwards from which the output counts as changing.
SAME_OUTPUT = 1e-4

Flag = dict[str, str]


def flag(code: str, severity: str, text: str) -> Flag:
    """A flag of a record."""
    return {"code": code, "severity": severity, "text": text}


def check_output(forward: Callable[[], Any], timed: Callable[[], Any] | None = None) -> list[Flag]:
    """Flags about two identical forwards, and about what is timed in their place.

    Args:
        forward: one forward of the module.
        timed: what is timed, where that is not the forward itself but a graph that replays it.

    Raises:
        InvalidOutput: an output is not finite, so that neither its cost nor its accuracy means anything.
    """
    # copies: a compiled module that replays graphs writes every output to the same place
    first, second = ([tensor.clone() for tensor in _tensors(forward())] for _ in range(2))
    check_finite(first)
    if not first:
        return [flag("no_tensor_output", "info", "the output holds no tensor, so it could not be checked")]
    if not _same(first, second):
        return [flag("changing_output", "warn", "two forwards of the same input gave different outputs")]
    if timed is not None and not _same(first, _tensors(timed())):
        return [
            flag("graph_output", "warn", "the captured graph gives another output than the forward that it replays")
        ]
    return []


def check_finite(output: Any, when: str = "") -> None:
    """Raise InvalidOutput unless every floating tensor of an output is finite.

    Args:
        output: what a forward gave.
        when: said of the forward in the error.
    """
    for tensor in _tensors(output):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InvalidOutput(f"the output{when} holds NaN or infinity; the forward is numerically broken")


def _same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return len(one) == len(two) and all(
        a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=SAME_OUTPUT, atol=SAME_OUTPUT)
        for a, b in zip(one, two, strict=True)
    )


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
