"""A guess at how long the cases of a plan take, from counts on the meta device; no weights are made."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map

from bench.meters.inputs import as_call
from bench.plan.recipe import Recipe
from bench.worker.child import Phase
from bench.worker.subject import build_model, resolution_of


def _macs(recipe: Recipe) -> float:
    """Multiply-accumulates of one forward of the model without its method; an upper bound for most methods."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        module, inputs = build_model(recipe)
    module = module.to("meta")
    if inputs is None:
        pixels = resolution_of(module, recipe.case)
        own = getattr(module, "example_inputs", None)
        inputs = own(recipe.case.batch) if own else (torch.empty(recipe.case.batch, 3, pixels, pixels),)
    args, kwargs = as_call(inputs)
    moved = tree_map(lambda value: value.to("meta") if isinstance(value, torch.Tensor) else value, (args, kwargs))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*moved[0], **moved[1])
    return counter.get_total_flops() / 2


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """Baseline case key -> MACs of one forward, or None with why where the meta device does not serve."""
    found: dict[str, Any] = {}
    for item in spec["recipes"]:
        recipe = Recipe.from_dict(item)
        phase.enter("load", recipe.case.key)
        try:
            found[recipe.case.key] = {"macs": _macs(recipe), "why": ""}
        except Exception as error:
            found[recipe.case.key] = {"macs": None, "why": f"{type(error).__name__}: {error}"[:200]}
    return {"macs": found}
