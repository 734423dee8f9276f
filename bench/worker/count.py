"""Counts alone: a case built on the meta device, whose tensors have shapes but no values; cheap for any size.

Nothing is timed and no weights are made. What decides by values (a threshold, an exit) cannot be built or run there; a
small network is then counted for real, with random weights, and the record says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench import workloads
from bench.canonical import BASELINE_METHOD
from bench.errors import UsageError
from bench.flags import flag
from bench.host.environment import torch_build
from bench.labels import labels_of
from bench.meters import dtypes, layers, macs, params
from bench.meters.inputs import as_call
from bench.meters.macs_count import MacsCount
from bench.metrics import METRICS
from bench.moment import utc_microsecond
from bench.plan.recipe import Recipe
from bench.reading import Reading
from bench.worker import declared, global_state
from bench.worker.child import Phase, classify, describe
from bench.worker.parts import as_forward, counting, parts_of
from bench.worker.subject import (
    Subject,
    build,
    build_model,
    cast,
    example_inputs,
    moved_to,
    say,
    with_method,
)
from bench.workloads.counting import counter
from bench.workloads.workload import Facts, Part

#: Parameters up to which a network that the meta device cannot hold is built for real.
REAL_LIMIT = 200_000_000
#: The setting by which methods say how long they learn; without a task to learn from it has to be 0.
TRAINING_STEPS = "training_steps"
#: Seconds after which a process begins no further count: what it has found is kept then, whatever ends the next one.
ENOUGH_S = 20.0


def run(spec: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """Per case key what was counted, in the shape that a probe gives it, or the status and the error.

    One process counts many cases, because the first one pays for what torch loads to compute with shapes. Cases that
    it did not come to in `ENOUGH_S` are left out: at least the first is counted.

    Args:
        spec: `recipes` and `protocol` parameters.
        phase: tells the driver where we are.
    """
    cases: dict[str, Any] = {}
    begun = time.monotonic()
    for item in spec["recipes"]:
        if cases and time.monotonic() - begun > ENOUGH_S:
            break
        recipe = Recipe.from_dict(item)
        before = global_state.read()
        try:
            cases[recipe.case.key] = {"status": "ok", "result": counted(recipe, phase)}
        except Exception as error:
            where = {"phase": phase.name, "case": recipe.case.key, "log_tail": ""}
            cases[recipe.case.key] = {"status": classify(error), "error": {**where, **describe(error)}}
        global_state.put_back(before)
    return {"cases": cases}


def counted(recipe: Recipe, phase: Phase) -> dict[str, Any]:
    """Counted readings, details and flags of one case.

    Raises:
        NotImplementedError: it can be counted neither on the meta device nor, as it is too large, for real.
    """
    started = utc_microsecond()
    torch.set_num_threads(recipe.case.threads)
    phase.enter("load", recipe.case.key)
    try:
        found = _count(on_meta(recipe), phase)
    except UsageError:
        raise
    except Exception as error:
        found = _count(for_real(recipe, error), phase)
        why = f"counted on real tensors, because the meta device cannot: {type(error).__name__}: {error}"[:300]
        found.flags.append(flag("counted_for_real", "info", why))
    if recipe.method_settings.get(TRAINING_STEPS):
        found.flags.append(flag("counted_untrained", "info", "the method was not trained for this count"))
    return {
        "started_at": started,
        "picture": None,
        "load_ms": None,
        "weights": {"kind": "none"},
        "flags": found.flags,
        "readings": [item.as_dict() for item in found.readings],
        "details": found.details,
        "ready": {},
        "torch": torch_build(),
        "layers": found.layers["layers"],
        "layers_info": found.layers["info"],
        "part_layers": found.part_layers,
        "curves": found.curves,
        "labels": found.labels,
    }


def on_meta(recipe: Recipe) -> Subject:
    """The subject of a recipe on the meta device: model, method, dtype, inputs; no weights are loaded.

    Raises:
        UsageError: something in the recipe does not fit.
    """
    case = recipe.case
    with torch.device("meta"):
        module, inputs = build_model(recipe)
        module = module.to("meta")
        if inputs is None:
            inputs = example_inputs(module, case)
        if case.method != BASELINE_METHOD and recipe.method_path is not None:
            module = with_method(recipe, module, untrained(recipe.method_settings), inputs)
    say(module, recipe.stated)
    device, dtype = torch.device("meta"), dtypes.TORCH[case.dtype]
    module = cast(module.eval().to(device), dtype)
    args, kwargs = (moved_to(value, device, dtype, torch.contiguous_format) for value in as_call(inputs))
    return Subject(case, module, args, kwargs, {"kind": "none"})


def untrained(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a method without its training: that changes weights, and a count needs none."""
    return {name: 0 if name == TRAINING_STEPS else value for name, value in settings.items()}


def for_real(recipe: Recipe, error: Exception) -> Subject:
    """The subject with real tensors and random weights, if it is small enough for that."""
    with torch.device("meta"):
        module, _ = build_model(recipe)
    size = sum(parameter.numel() for parameter in module.parameters())
    if size > REAL_LIMIT:
        raise NotImplementedError(
            f"{recipe.case.label} cannot be counted on the meta device ({type(error).__name__}: {error}), and with "
            f"{size} parameters it is too large to be built for a count (limit {REAL_LIMIT})"
        ) from error
    bare = replace(
        recipe,
        task_path=None,
        checkpoint=None,
        method_settings=untrained(recipe.method_settings),
        case=replace(recipe.case, task="none", device="cpu"),
    )
    return replace(build(bare), case=recipe.case)


@dataclass
class _Found:
    """What was counted."""

    readings: list[Reading]
    details: dict[str, Any]
    flags: list[dict[str, str]]
    layers: dict[str, Any]
    part_layers: dict[str, Any]
    curves: list[dict[str, Any]]
    labels: dict[str, str | None]


def _count(subject: Subject, phase: Phase) -> _Found:
    phase.enter("measure", subject.case.key)
    module = workloads.module_of(subject.case.workload)
    macs.self_test()
    size = params.measure(subject.counted)
    rows = [*size.readings(), *declared.of_subject(subject)]
    found = _Found(
        rows, {"params": size.as_dict(), "macs": {}}, list(size.flags), {}, {}, [], labels_of(subject.counted)
    )
    with counting(subject.case.workload):
        parts = parts_of(subject)
        _count_parts(found, subject, parts)
        if hasattr(module, "counts"):
            _keep(found, module.counts(subject, subject.case.full_shape, parts, counter(subject.counted, macs.count)))
        if hasattr(module, "facts") and subject.device == "meta":  # where there are values, times would be taken
            _keep(found, module.facts(subject, subject.case.full_shape, parts))
    return found


def _keep(found: _Found, facts: Facts) -> None:
    """Add what the workload itself counts: bytes of a cache, steps of a plan, MACs of each step."""
    found.readings += facts.readings
    found.curves += [curve.as_dict() for curve in facts.curves]
    found.details.setdefault("facts", {}).update(facts.details)
    found.flags += facts.flags


def _count_parts(found: _Found, subject: Subject, parts: Sequence[Part]) -> None:
    """Count every part; one that is made of others after them: only what it does besides is traced."""
    counts: dict[str, MacsCount] = {}
    for part in sorted(parts, key=lambda part: bool(part.made_of)):
        traced = part if part.besides is None else replace(part, call=part.besides, counted=None)
        with as_forward(subject, traced) as (module, args, kwargs):
            counted = macs.count(module, args, kwargs, second_count=False)
            if part.made_of:
                counted = macs.joined([*(counts[name] for name in part.made_of), counted], subject.counted)
            table = layers.table(module, args, kwargs, repeats=0, counted=counted)
        counts[part.name] = counted
        _keep_part(found, subject, part.name, counted, table, is_whole=part is parts[0])


def _keep_part(
    found: _Found, subject: Subject, name: str, counted: MacsCount, table: layers.LayerTable, *, is_whole: bool
) -> None:
    details = counted.as_dict()
    found.flags += details.pop("flags", [])
    rows = [*macs.readings(counted, subject.case.batch), *declared.counts_of_part(counted, subject, name)]
    found.readings += [replace(item, part=name) if METRICS[item.metric].per_part else item for item in rows]
    layer = {"layers": table.rows, "info": table.info}
    if is_whole:
        found.layers = layer
        found.details["macs"].update(details)
    else:
        found.part_layers[name] = layer
        found.details["macs"].setdefault("parts", {})[name] = details
