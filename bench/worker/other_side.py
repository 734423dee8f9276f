"""The other side of a case, built in the case's own probe: the outputs that it gives on the same inputs and weights.

The probe builds it from its recipe after all other meters, rather than reading outputs that another probe left: nothing
on disk can be of another version, probes stay in any order, and seeds make inputs and weights the same. It costs one
build and one run; both sides' outputs are kept on the CPU, and the built subject is let go at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from bench.meters.fidelity import snapshot
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker import global_state
from bench.worker.parts import as_step, parts_of, running
from bench.worker.subject import Subject, timed_build

Found = TypeVar("Found")

#: Axes that weights and inputs hang on: the sides have to be alike in all of them.
SAME = ("model", "model_settings", "checkpoint", "task", "data", "seed", "workload", "shape", "batch", "resolution")


def why_unlike(case: Case, other: Case) -> str:
    """Why outputs of the two sides say nothing of each other; empty where they do.

    Args:
        case: whose fidelity is asked for.
        other: what it is compared with.
    """
    differing = [name for name in SAME if getattr(case, name) != getattr(other, name)]
    if not differing:
        return ""
    words = ", ".join(name.replace("_", " ") for name in differing)
    return f"the other side, {other.label}, has other weights or inputs: the sides differ in {words}"


def outputs_of(recipe: Recipe) -> list[Tensor]:
    """Copies of all tensors that one run of the other side gives."""
    return looked_at(recipe, lambda subject: snapshot(as_step(parts_of(subject)[0])()))


def looked_at(recipe: Recipe, look: Callable[[Subject], Found]) -> Found:
    """What `look` finds of the built other side; torch's global state is as before afterwards."""
    before = global_state.read()
    try:
        with torch.inference_mode(False):  # a runtime's converter traces weights, which must be ordinary tensors
            subject, _ = timed_build(recipe)
        with running(recipe.case.workload):
            return look(subject)
    finally:
        global_state.put_back(before)
