"""`job=calibrate`: measure again what this machine can do."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.config.schema import Config
from bench.errors import BenchError
from bench.host.environment import environment
from bench.host.identity import machine_key
from bench.plan.plan import check_device, threads
from bench.store.records import Store, write_json
from bench.sweep import calibration
from bench.worker.client import Failed, Workers

BUDGET_S = 20.0


def run(config: Config) -> int:
    """Measure, keep and print peak rates and bandwidth; 0."""
    check_device(config.device.name)
    store, count = Store(config.paths.results), threads(config)
    key = machine_key(environment(config.device.name))
    with Workers(config.executor.timeouts_s.model_dump()) as workers:
        outcome = calibration.measure(workers, config.device.name, count, BUDGET_S, store.logs / "calibrate.log")
    if isinstance(outcome, Failed):
        raise BenchError(f"calibration failed: {outcome.message}")
    path = store.calibration_path(key, config.device.name, count)
    write_json(path, {**outcome.result, "measured_at": time.time()})
    show(outcome.result, path)
    return 0


def show(found: dict, path: Path) -> None:
    """Print a calibration."""
    table = Table("quantity", "threads", "value", "range", "n")
    for row in found["peaks"]:
        table.add_row(f"peak {row['dtype']}", str(row["threads"]), *_numbers(row, 1e9, f"G{row['unit']}"))
    if found.get("bandwidth"):
        table.add_row("bandwidth", "", *_numbers(found["bandwidth"], 1e9, "GB/s"))
    Console().print(table)
    for note in found.get("notes", []):
        print(note)
    print(f"kept in {path}")


def _numbers(row: dict, scale: float, unit: str) -> tuple[str, str, str]:
    span = f"{row['low'] / scale:.4g} to {row['high'] / scale:.4g}"
    return f"{row['value'] / scale:.4g} {unit}", span, str(row["n"])
