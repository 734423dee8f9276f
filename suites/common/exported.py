"""Programs that `torch.export` saved: a file holds the graph, the weights and the inputs it was traced with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.errors import UsageError


class Exported(nn.Module):
    """An exported program as a module that takes its positional inputs, keyword ones filled in.

    Its training mode is that of the trace and cannot be changed, which is why `train` does nothing.
    """

    def __init__(self, program: nn.Module, keywords: dict[str, Any]):
        super().__init__()
        self.program = program
        self._keywords = keywords

    def forward(self, *inputs: Any) -> Any:
        """What the program gives for these inputs and the keyword inputs of its trace."""
        return self.program(*inputs, **self._keywords)

    def train(self, mode: bool = True) -> Exported:
        """The module as it is."""
        return self


@contextmanager
def _weights_only() -> Iterator[None]:
    """Meanwhile no file that is unpickled can run code: `torch.export.load` would let inputs and odd weights do so."""
    real = torch.load

    def load(*args: Any, **options: Any) -> Any:
        return real(*args, **{**options, "weights_only": True})

    torch.load = load
    try:
        yield
    finally:
        torch.load = real


def exported_model(*, name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """The module of a `.pt2` file and the inputs that it was traced with.

    Args:
        name: the file, as `torch.export.save` writes it.

    Raises:
        UsageError: the file is none of these, or holds no inputs.
    """
    place = Path(name).expanduser()
    try:
        with _weights_only():
            program = torch.export.load(place)
    except Exception as error:  # of whatever kind: the file is the user's
        raise UsageError(
            f"{place} cannot be read as a program of torch.export ({type(error).__name__}: {error}): save it with "
            "torch.export.save(torch.export.export(model, inputs), file)"
        ) from error
    if program.example_inputs is None:
        raise UsageError(f"{place} holds no inputs: export the model with its example inputs and save it again")
    args, kwargs = program.example_inputs
    return Exported(program.module(), dict(kwargs or {})), tuple(args)
