"""Train or fetch what a model needs before it can be measured on a task; cached by content."""

from __future__ import annotations

from typing import Any

from bench.recipe import Recipe
from bench.worker.child import Phase
from bench.worker.subject import build_model, make_task


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """What the task says of the prepared weights (`sha256`, recipe) and of its data."""
    import torch

    phase.enter("measure")
    recipe = Recipe.from_dict(spec["recipe"])
    torch.set_num_threads(recipe.case.threads)
    task = make_task(recipe)
    prepared = task.prepare(recipe.case.model, lambda: build_model(recipe)[0])
    return {"prepared": prepared, "task": task.describe()}
