"""A converted module as torch code calls it: one program for every structure and shape of inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.backends.program import Loaded
from bench.backends.structure import put_together, take_apart

#: Programs kept for shapes beside the one that is timed: quality has a batch size of its own and a last, smaller batch.
OTHER_SHAPES = 2


@dataclass(frozen=True)
class _Entry:
    form: Any
    shapes: list[tuple[torch.Size, torch.dtype]]
    loaded: Loaded


class RuntimeModule(nn.Module):
    """Eager's calls, answered by another runtime; it has no parameters of its own.

    Inputs of another structure, shape or type than those at conversion are converted for when they first come.

    Attributes:
        conversions: how many programs were made beside the first.
    """

    def __init__(
        self,
        first: Loaded,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        convert: Callable[[tuple[Any, ...], dict[str, Any]], Loaded],
    ):
        super().__init__()
        self.eval()
        self.conversions = 0
        self._convert = convert
        tensors, form = _inputs(args, kwargs)
        self._first = _Entry(form, _shapes(tensors), first)
        self._others: list[_Entry] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs in the structure of the eager module."""
        tensors, form = _inputs(args, kwargs)
        loaded = self._program(tensors, form, args, kwargs)
        return put_together(loaded.form, loaded.program.call(tensors))

    def _program(self, tensors: Any, form: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Loaded:
        shapes = _shapes(tensors)
        for entry in (self._first, *self._others):
            if entry.shapes == shapes and entry.form == form:
                return entry.loaded
        made = _Entry(form, shapes, self._convert(args, kwargs))
        self._others = [*self._others, made][-OTHER_SHAPES:]
        self.conversions += 1
        return made.loaded


def _inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The tensors in order and the structure; short for plain tensors, since this runs inside the timed window."""
    if not kwargs and all(type(value) is Tensor for value in args):
        return args, len(args)
    return take_apart((args, kwargs), "input")


def _shapes(tensors: Any) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in tensors]
