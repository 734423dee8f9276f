"""Stages of a pipeline: named calls that say what they take and what they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

#: What passes from stage to stage. `file`: encoded bytes that this process has; `pixels`: u8 [height, width, 3];
#: `floats`: an f32 tensor [height, width, 3]; `image`: an f32 tensor [3, height, width]; `batch`: images along a new
#: first axis; `request`: what the client asks for and does not have here yet.
Kind = Literal["request", "file", "pixels", "floats", "image", "batch", "logits", "result"]


@dataclass(frozen=True)
class Stage:
    """One stage: its name, its call, and the kinds that go in and come out."""

    name: str
    run: Callable[[Any], Any]
    takes: Kind
    gives: Kind


def chained(stages: Sequence[Stage]) -> list[tuple[str, Callable[[Any], Any]]]:
    """The stages as the workload `pipeline` takes them.

    Raises:
        ValueError: a stage does not take what the one before it gives.
    """
    for before, after in pairwise(stages):
        if before.gives != after.takes:
            raise ValueError(f"{before.name} gives {before.gives}, and {after.name} takes {after.takes}")
    return [(stage.name, stage.run) for stage in stages]
