"""Whether subjects can be built and run once, without weights: what a plan asks before hours are spent on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bench.plan.recipe import Recipe
from bench.worker import global_state
from bench.worker.child import Phase, classify, describe
from bench.worker.count import for_real, on_meta
from bench.worker.parts import parts_of
from bench.worker.settle import settle
from bench.worker.subject import Subject


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """Case key -> status, type and message of what goes wrong, or None where it builds and runs.

    A case is tried on the meta device first and, where that fails, on real tensors with random weights, because the
    meta device refuses what decides by values.

    Args:
        spec: `recipes`.
        phase: tells the driver where we are.
    """
    found: dict[str, Any] = {}
    for item in spec["recipes"]:
        recipe = Recipe.from_dict(item)
        phase.enter("load", recipe.case.key)
        before = global_state.read()
        try:
            _try(recipe)
            found[recipe.case.key] = None
        except Exception as error:
            found[recipe.case.key] = {"status": classify(error), **describe(error)}
        global_state.put_back(before)
    return {"faults": found}


def _try(recipe: Recipe) -> None:
    """Raise what stops the case from being built and run once."""
    eager = replace(recipe, case=replace(recipe.case, backend="eager", compile="off", cuda_graphs=False))
    try:
        _run_once(on_meta(eager))
        return
    except Exception as error:
        subject = for_real(eager, error)
    _run_once(subject)


def _run_once(subject: Subject) -> None:
    whole = parts_of(subject)[0]
    with torch.inference_mode():
        settle(subject, whole, _measured)


def _measured(call: Any) -> float:
    call()
    return 0.0
