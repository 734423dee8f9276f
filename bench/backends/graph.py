"""A module as the graph that `torch.export` gives: tensors in, tensors out, ready to be translated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.backends.backend import telling
from bench.backends.structure import Slot, put_together, take_apart


@dataclass(frozen=True)
class Graph:
    """An exported module.

    Attributes:
        program: `torch.export.ExportedProgram` of a forward that takes and gives tensors only.
        tensors: the inputs it was exported with, in order.
        form: the structure of the outputs (`bench.backends.structure`); a tensor that stands in it twice is given once.
        places: of each tensor in the structure, its number among those that the program gives.
    """

    program: Any
    tensors: list[Any]
    form: Any
    places: list[int]


@contextlib.contextmanager
def outside_inference() -> Iterator[None]:
    """Without gradients and outside inference mode, whose tensors no exporter takes; whatever the caller is in."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        yield


def exported(backend: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
    """The graph of one forward, with the shapes of these inputs.

    Raises:
        ConversionFailed: it cannot be exported, with the operator or the line that stands in the way.
    """
    import torch

    tensors, form = take_apart((tuple(args), dict(kwargs)), "input")
    outputs: list[tuple[Any, list[int]]] = []

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *values: Any) -> tuple[Any, ...]:
            inner_args, inner_kwargs = put_together(form, values)
            found, shape = take_apart(self.module(*inner_args, **inner_kwargs), "output")
            once = list({id(tensor): tensor for tensor in found}.values())  # some translators take none twice
            order = {id(tensor): place for place, tensor in enumerate(once)}
            outputs.append((shape, [order[id(tensor)] for tensor in found]))
            return tuple(once)

    with outside_inference(), telling(backend, "torch.export"):
        own = [value.clone() for value in tensors]  # a tensor made in inference mode is none outside of it
        program = torch.export.export(Flat().eval(), tuple(own), strict=False)
    shape, places = outputs[-1]
    return Graph(program, own, placed(shape, places), places)


def placed(form: Any, places: Sequence[int]) -> Any:
    """A form whose slots are those of the program's outputs."""
    return put_together(form, [Slot(place) for place in places])
