"""What the methods of this suite work on, told from other models before anything is changed."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from suites.common.rectified_flow import FlowModel

Kind = TypeVar("Kind", bound=nn.Module)


def as_kind(model: nn.Module, kind: type[Kind], method: str, take: str, *, videos: bool = True) -> Kind:
    """The model itself.

    Raises:
        ValueError: it is none of that kind, it makes videos where `videos` says that the method does not, or another
            method already samples it its own way; `take` names one that fits.
    """
    if not isinstance(model, kind):
        raise ValueError(f"{method} works on {kind.__name__} networks, not on {type(model).__name__}: take {take}")
    if not videos and hasattr(model, "frames"):
        raise ValueError(f"{method} works on pictures, and this network makes videos: take {take}")
    if isinstance(model, FlowModel) and model.course is not None:
        raise ValueError(f"{method}: {type(model.course).__name__} already says how this model is sampled")
    return model


def is_of_diffusers(model: nn.Module, method: str) -> bool:
    """Whether it is a network of diffusers with a scheduler; told without importing diffusers.

    Raises:
        ValueError: it is, and another method already samples it its own way.
    """
    if not hasattr(model, "unguided"):
        return False
    taken = getattr(model, "course", None) or getattr(model, "around", None)
    if taken is not None:
        raise ValueError(f"{method}: another method already says how this model is sampled")
    return True


def tell_pairs(model: nn.Module, dense: int, kept: int) -> None:
    """Let a model with a mask in its attention tell two counts beside what runs, which is whole blocks of the mask.

    Args:
        model: of the plan that was asked for last.
        dense: MACs of an image over the plan with nothing masked.
        kept: the same of the pairs alone that the mask keeps.
    """
    model.macs_dense, model.macs_nonzero = {"image": float(dense)}, {"image": float(kept)}  # type: ignore[assignment]
