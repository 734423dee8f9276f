"""Train or fetch what a model and its methods need before they can be measured on a task; cached by content."""

from __future__ import annotations

import traceback
from typing import Any

from bench.plan.recipe import Recipe
from bench.worker.child import Phase
from bench.worker.subject import build, build_model, make_task


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """What the task says of the prepared weights (`sha256`, recipe) and of its data.

    Args:
        spec: `recipe` of the plain model, and `learners`, recipes of the cases whose methods may learn from the task.
        phase: tells the driver where we are.
    """
    import torch

    phase.enter("measure")
    recipe = Recipe.from_dict(spec["recipe"])
    torch.set_num_threads(recipe.case.threads)
    task = make_task(recipe)
    prepared = task.prepare(recipe.case.model, lambda: build_model(recipe)[0])
    if hasattr(task, "training_batches"):
        for learner in spec.get("learners", []):
            _learn(Recipe.from_dict(learner), phase)
    return {"prepared": prepared, "task": task.describe()}


def _learn(recipe: Recipe, phase: Phase) -> None:
    """Let a method learn here what it learns, so that the processes that measure it read that from the cache."""
    phase.enter("measure", recipe.case.key)
    try:
        build(recipe)
    except Exception:  # not ours to report: the case's own probe meets it again and says whose failure it is
        traceback.print_exc()
