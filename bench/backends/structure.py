"""Nested inputs and outputs as a flat list of tensors and a structure to restore them for another runtime."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

from bench.backends.backend import ConversionFailed


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place of a tensor in a form."""

    index: int


def take_apart(value: Any, what: str) -> tuple[list[Any], Any]:
    """The tensors of a value in order, and its form: the same value with a `Slot` where each tensor was.

    Args:
        value: tensors, constants, and tuples, lists, dicts and dataclasses of them.
        what: `input` or `output`, for the message.

    Raises:
        ConversionFailed: it holds an object of another kind, which a runtime could neither take nor give.
    """
    tensors: list[Any] = []
    return tensors, _form(value, tensors, what)


def put_together(form: Any, tensors: Sequence[Any]) -> Any:
    """The value of a form with tensors in its slots."""
    if isinstance(form, Slot):
        return tensors[form.index]
    return _rebuilt(form, lambda part: put_together(part, tensors))


def _form(value: Any, tensors: list[Any], what: str) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return Slot(len(tensors) - 1)
    if not _is_nested(value) and not _is_constant(value):
        raise ConversionFailed(
            f"the {what} holds a {type(value).__name__}, which no runtime outside torch takes or gives; give tensors, "
            "numbers, or tuples, lists, dicts and dataclasses of them"
        )
    return _rebuilt(value, lambda part: _form(part, tensors, what))


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list | tuple) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _is_constant(value: Any) -> bool:
    """Whether a value is the same in every run; symbolic numbers of a trace are not."""
    import torch

    plain = bool | int | float | complex | str | bytes | None
    return isinstance(value, plain | enum.Enum | torch.dtype | torch.device | torch.memory_format)


def _rebuilt(value: Any, change: Any) -> Any:
    """A nested value of the same type with its parts changed; any other as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {item.name: change(getattr(value, item.name)) for item in dataclasses.fields(value) if item.init}
        return type(value)(**parts)
    if isinstance(value, dict):
        return type(value)((key, change(part)) for key, part in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(change(part) for part in value))
    if isinstance(value, list | tuple):
        return type(value)([change(part) for part in value])
    return value
