"""Running a network that is not of this suite once: on its own example inputs, or on images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


def example_of(model: nn.Module, batch: int = 1) -> Any:
    """Inputs of a forward of so many samples on its device: a tuple of positional ones, or a mapping by their names."""
    own = getattr(model, "example_inputs", None)
    if callable(own):
        found = own(batch)
        return (found,) if isinstance(found, Tensor) else found if isinstance(found, Mapping) else tuple(found)
    side, channels = int(getattr(model, "resolution", 224)), int(getattr(model, "channels", 3))
    return (torch.randn(batch, channels, side, side).to(next(model.parameters())),)


def run(model: nn.Module, example: Any) -> Any:
    """What the network answers."""
    return model(**example) if isinstance(example, Mapping) else model(*example)


def with_values(value: Any) -> Any:
    """The same inputs with zeros on the CPU where tensors have no values."""
    return tree_map(lambda x: torch.zeros_like(x, device="cpu") if isinstance(x, Tensor) and x.is_meta else x, value)


def check_runs(model: nn.Module, kernel: str) -> None:
    """Raise ValueError unless a network of somebody else runs with the layers that a kernel put into it.

    Some read the weights of their layers themselves (torchvision's Swin, the fast path of nn.TransformerEncoder) and
    never call them: such layers cannot be replaced. The networks of the suites call theirs.
    """
    if type(model).__module__.startswith("suites.") or any(p.is_meta for p in model.parameters()):
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            run(model, example_of(model))
        except (NotImplementedError, torch.OutOfMemoryError):
            return  # the kernel or the machine cannot run it: its row says so
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"kernel={kernel!r} takes the place of layers, and {type(model).__name__} does not run with them "
                f"({type(error).__name__}: {reason}): most likely it reads their weights itself instead of calling "
                "them. Take kernel='mask'"
            ) from error
