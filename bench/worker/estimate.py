"""A guess at how long the cases of a plan take, from counts on the meta device; no weights are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.plan.recipe import Recipe
from bench.worker.child import Phase
from bench.worker.count import on_meta
from bench.worker.parts import counting, parts_of


def _macs(recipe: Recipe) -> dict[str, float]:
    """MACs of one run of every part of the model without its method; for most methods an upper bound."""
    from torch.utils.flop_counter import FlopCounterMode

    subject, found = on_meta(recipe), {}
    with counting(recipe.case.workload):
        for part in parts_of(subject):
            counter = FlopCounterMode(display=False)
            replace(part, call=_within(counter, part.call)).run()  # what is prepared is no part of it
            found[part.name] = counter.get_total_flops() / 2
    return found


def _within(counter: Any, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call under the counter."""

    def run() -> Any:
        with counter:
            return call()

    return run


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """Case key -> MACs of one run by part, the whole first, or None with why where the meta device does not serve."""
    found: dict[str, Any] = {}
    for item in spec["recipes"]:
        recipe = Recipe.from_dict(item)
        phase.enter("load", recipe.case.key)
        try:
            found[recipe.case.key] = {"macs": _macs(recipe), "why": ""}
        except Exception as error:
            found[recipe.case.key] = {"macs": None, "why": f"{type(error).__name__}: {error}"[:200]}
    return {"macs": found}
