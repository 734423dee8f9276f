"""The time a plan will take, group by group, from counts on the meta device."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.config.schema import Config
from bench.host.environment import environment
from bench.host.identity import machine_key
from bench.plan import estimate
from bench.plan.plan import Plan, threads
from bench.plan.recipe import recipe_for
from bench.store.records import Store, read_calibration
from bench.worker.client import Done, Workers

#: Seconds that counting one model may take: a forecast is worth no more.
FORECAST_CAP_S = 20.0


def _peak(config: Config) -> float | None:
    """The machine's measured fp32 peak, if it was calibrated before."""
    key = machine_key(environment(config.device.name))
    saved = read_calibration(Store(config.paths.results).calibration_path(key, config.device.name, threads(config)))
    peaks = saved["peaks"] if saved else []
    return next((float(row["value"]) for row in peaks if row["dtype"] == "fp32"), None)


def group_seconds(config: Config, plan: Plan) -> dict[str, float]:
    """Estimated seconds per group key; a second or so for the counts, nothing where nothing is timed."""
    if not config.protocol.timed:
        return {group.key: estimate.COUNT_S * len(group.cases) for group in plan.groups}
    recipes = [recipe_for(group.baseline, plan, config).as_dict() for group in plan.groups]
    limits = config.executor.timeouts_s
    patient = {
        **limits.model_dump(),
        "load": min(limits.load, FORECAST_CAP_S),
    }  # a model that hangs is the probe's matter
    with Workers(patient) as workers, tempfile.TemporaryDirectory() as scratch:
        outcome = workers.run("estimate", {"recipes": recipes}, log=Path(scratch) / "log")
    counted = outcome.result["macs"] if isinstance(outcome, Done) else {}
    peak, found = _peak(config), {}
    for group in plan.groups:
        macs = counted.get(group.baseline.key, {}).get("macs")
        iteration = estimate.forward_ms(macs, peak, threads(config))
        found[group.key] = estimate.group_seconds(group, iteration, config.protocol)
    return found
