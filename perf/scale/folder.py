"""Results folders of any size: made-up records of the cases of a real plan, so that it has nothing left to do.

Records come from `tests.synthetic`; what of a record's size is its readings, its layers and its processes is as there.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from bench.config import catalogue
from bench.config.protocol import Protocol
from bench.config.schema import Config, validate
from bench.host.environment import environment
from bench.host.identity import machine_key
from bench.plan import plan
from bench.plan.case import Case
from bench.plan.plan import Plan
from bench.store.records import Record, Store, seal

#: Methods beside the plain network in every group; a group is one batch.
SETTINGS = tuple(range(1, 10))


def configuration(folder: Path, cases: int) -> Config:
    """A sweep of so many cases, in groups of ten, into a results folder."""
    methods = [f"tome(r={setting})" for setting in SETTINGS]
    batches = list(range(1, -(-cases // (len(SETTINGS) + 1)) + 1))
    block = {"models": ["deit_tiny"], "methods": methods, "batches": batches}
    return validate({
        "suite": {"name": "vit_tokens", "grids": {"default": [block]}},
        "protocol": Protocol().model_dump(),
        "tracking": {"enabled": False},
        "report": {"enabled": False},
        "counts": False,
        "paths": {"results": str(folder / "results"), "site": str(folder / "site"), "cache": str(folder / "cache")},
    })  # fmt: skip


def planned(folder: str, cases: int) -> tuple[Config, Plan]:
    """The sweep and its plan."""
    config = configuration(Path(folder), cases)
    return config, plan.make(config, catalogue.load())


def record_of(case: Case, machine: str) -> Record:
    """A made-up record of a case that went well."""
    made = {**_of_setting(case.setting, machine), "case": case.as_dict()}
    keys = {"case_key": case.key, "group_key": case.group_key, "baseline_key": case.baseline.key}
    return seal({**made, **keys, "record_key": f"{case.key}.{machine}"})


@cache
def _of_setting(setting: str, machine: str) -> Record:
    """What the records of a setting share: everything but the case."""
    from tests.synthetic import record

    kept = 1 - len(setting) / 20
    method = "tome" if setting else "none"
    return record(
        method=method, setting=setting, machine_key=machine, macs=1.25e9 * kept, latency_ms=40.0 * kept, accuracy=90.0
    )


def fill(folder: str, cases: int) -> int:
    """Write a record of every case of the plan, without waiting for the disk; bytes of all."""
    config, made = planned(folder, cases)
    store, machine = Store(config.paths.results), machine_key(environment(config.device.name))
    store.records.mkdir(parents=True)
    total = 0
    for case in made.cases:
        data = json.dumps(record_of(case, machine), separators=(",", ":")).encode()
        store.record_path(case.key, machine).write_bytes(data)
        total += len(data)
    os.sync()
    return total
