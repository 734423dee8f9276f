"""The time a plan will take, group by group, from counts on the meta device."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.app import counted_before
from bench.app.fault_text import one_line
from bench.config.schema import Config
from bench.host.environment import environment
from bench.host.identity import machine_key
from bench.plan import estimate
from bench.plan.case import Case
from bench.plan.plan import Group, Plan, threads
from bench.plan.recipe import recipe_for
from bench.store.records import CorruptRecord, Store, counts, read_calibration
from bench.worker.client import Done, Workers

#: Seconds that counting one model may take, and that counting one by one may: a forecast is worth no more.
FORECAST_CAP_S = 20.0
#: Why a case was not counted that nothing is wrong with.
TOO_LONG = "it took too long"


@dataclass(frozen=True)
class Forecast:
    """Estimated seconds per group key; and a label and a reason for each case that could not be counted."""

    seconds: dict[str, float]
    uncounted: Mapping[str, str] = field(default_factory=dict)


def peak_rate(config: Config) -> float | None:
    """The machine's measured fp32 peak, if it was calibrated before."""
    key = machine_key(environment(config.device.name))
    saved = read_calibration(Store(config.paths.results).calibration_path(key, config.device.name, threads(config)))
    peaks = saved["peaks"] if saved else []
    return next((float(row["value"]) for row in peaks if row["dtype"] == "fp32"), None)


def _countable(case: Case) -> Case:
    """What of a case its products follow from: cases that share it are counted once."""
    return replace(
        case.plain, dtype="fp32", backend="eager", compile="off", cuda_graphs=False, memory_format="contiguous"
    )


def patient_workers(config: Config) -> Workers:
    """Workers that count and try cases, to be entered; a model that hangs keeps them for `FORECAST_CAP_S` at most."""
    limits = config.executor.timeouts_s
    return Workers({**limits.model_dump(), "load": min(limits.load, FORECAST_CAP_S)})


def group_seconds(config: Config, plan: Plan, groups: Sequence[Group] | None = None) -> dict[str, float]:
    """Estimated seconds per group key; a second or so for the counts."""
    return forecast(config, plan, groups).seconds


def unfinished_groups(config: Config, plan: Plan) -> list[Group]:
    """The groups with a case that is still to be measured, or that was disturbed or failed."""
    store, key = Store(config.paths.results), machine_key(environment(config.device.name))
    return [group for group in plan.groups if not all(_is_well(store, case, key) for case in group.cases)]


def _is_well(store: Store, case: Case, key: str) -> bool:
    try:
        head = store.head(case.key, key)
        return head is not None and counts(head.status, retry="all")
    except CorruptRecord:
        return True  # it is not measured again before its file is moved away


def forecast(
    config: Config, plan: Plan, groups: Sequence[Group] | None = None, workers: Workers | None = None
) -> Forecast:
    """Estimated seconds per group, and what the estimate had to do without; counts nothing where nothing is timed.

    Args:
        config: protocol, device, and where results are.
        plan: the sweep.
        groups: those that are estimated; by default all of the plan.
        workers: `patient_workers` that others use as well; its own by default.
    """
    groups = plan.groups if groups is None else groups
    if not config.protocol.timed or not groups:
        return Forecast({group.key: estimate.COUNT_S * len(group.cases) for group in groups})
    if workers is None:
        with patient_workers(config) as own:
            return forecast(config, plan, groups, own)
    cases = {case.key: case for group in groups for case in (group.baseline, *group.cases)}
    plain = {key: _countable(case) for key, case in cases.items()}
    counted = _counted(config, plan, {case.key: case for case in plain.values()}, workers)
    peak, count = peak_rate(config), threads(config)
    parts = {
        key: estimate.parts_ms(counted.get(plain[key].key, {}).get("macs"), case, peak, count)
        for key, case in cases.items()
    }
    seconds = {group.key: estimate.group_seconds(group, parts, config.protocol) for group in groups}
    missing = {
        plain[key].label: counted.get(plain[key].key, {}).get("why") or TOO_LONG
        for key in cases
        if None in (counted.get(plain[key].key, {}).get("macs") or {"": None}).values()
    }
    return Forecast(seconds, missing)


def _counted(config: Config, plan: Plan, cases: Mapping[str, Case], workers: Workers) -> dict[str, Any]:
    """Case key -> MACs by part with a reason; without the cases whose counting ended its process or took too long.

    What an earlier estimate counted is taken from the cache folder.
    """
    folder = Path(config.paths.cache)
    before = counted_before.read(folder)
    found = {key: before[key] for key in cases if key in before}
    missing = {key: case for key, case in cases.items() if key not in found}
    if missing:
        new = _counted_now(config, plan, missing, workers)
        counted_before.keep(folder, new)
        found |= new
    return found


def _counted_now(config: Config, plan: Plan, cases: Mapping[str, Case], workers: Workers) -> dict[str, Any]:
    """As `_counted`, by a worker."""
    recipes = {key: recipe_for(case, plan, config).as_dict() for key, case in cases.items()}
    with tempfile.TemporaryDirectory() as scratch:
        together = _ask(workers, list(recipes.values()), Path(scratch))
        if together is not None:
            return together
        found: dict[str, Any] = {}
        end = time.monotonic() + FORECAST_CAP_S
        for recipe in recipes.values():  # one of them broke the process that counts: the others still can be counted
            if time.monotonic() < end:
                found |= _ask(workers, [recipe], Path(scratch)) or {}
    return found


def faults(config: Config, plan: Plan, cases: Iterable[Case], workers: Workers) -> dict[str, str]:
    """Why cases cannot be built or run, by key, from one run of each without weights; no entry for one that can.

    A case that takes too long or ends its process is the probe's matter and has no entry.
    """
    recipes = [recipe_for(case, plan, config).as_dict() for case in cases]
    if not recipes:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        outcome = workers.run("rehearse", {"recipes": recipes}, log=Path(scratch) / "log")
    found = outcome.result["faults"] if isinstance(outcome, Done) else {}
    return {key: one_line(fault) for key, fault in found.items() if fault is not None}


def _ask(workers: Workers, recipes: Sequence[dict[str, Any]], scratch: Path) -> dict[str, Any] | None:
    outcome = workers.run("estimate", {"recipes": list(recipes)}, log=scratch / "log")
    return outcome.result["macs"] if isinstance(outcome, Done) else None
