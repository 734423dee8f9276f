"""A guess at how long the cases of a plan take, from counts on the meta device; no weights are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench import workloads
from bench.plan.recipe import Recipe
from bench.worker.child import Phase
from bench.worker.count import on_meta
from bench.worker.parts import counting, parts_of


def _macs(recipe: Recipe) -> tuple[dict[str, float | None], str]:
    """MACs of one run of every part of the model without its method; for most methods an upper bound.

    A part that goes by values, such as a search, has None; and the reason of the last such part.
    """
    from torch.utils.flop_counter import FlopCounterMode

    found: dict[str, float | None] = {}
    subject, why = on_meta(recipe), ""
    if not workloads.find(recipe.case.workload).grad:
        subject.module.requires_grad_(False)  # the counter looks for the gradient of a view of a parameter, and fails
    with counting(recipe.case.workload):
        for part in parts_of(subject):
            counter = FlopCounterMode(display=False)
            try:
                replace(part, call=_within(counter, part.call)).run()  # what is prepared is no part of it
                found[part.name] = counter.get_total_flops() / 2
            except NotImplementedError as error:
                found[part.name], why = None, f"{part.name}: {error}"[:200]
    return found, why


def _within(counter: Any, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call under the counter."""

    def run() -> Any:
        with counter:
            return call()

    return run


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """Case key -> MACs of one run by part, the whole first, or None with why where the meta device does not serve.

    Where a part alone cannot be counted, it has None.
    """
    found: dict[str, Any] = {}
    for item in spec["recipes"]:
        recipe = Recipe.from_dict(item)
        phase.enter("load", recipe.case.key)
        try:
            macs, why = _macs(recipe)
            found[recipe.case.key] = {"macs": macs, "why": why}
        except Exception as error:
            found[recipe.case.key] = {"macs": None, "why": f"{type(error).__name__}: {error}"[:200]}
    return {"macs": found}
