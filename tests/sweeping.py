"""A tiny suite and a protocol that takes moments, for tests that run whole sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.config import catalogue
from bench.config.schema import Config, validate
from bench.plan import plan
from bench.sweep.events import Listener
from bench.sweep.loop import Driver
from bench.sweep.writing import Sweep

#: A protocol for tests: everything of the real one, in a second.
QUICK: dict[str, Any] = {
    "name": "test",
    "version": 1,
    "latency": {
        "invocations": 2,
        "max_invocations": 2,
        "samples": 12,
        "min_samples": 10,
        "case_seconds": 0.2,
        "warmup_iterations": 10,
        "warmup_s": 0.0,
        "warmup_cap_s": 0.5,
        "min_sample_ms": 0.0,
        "throughput_windows": 1,
        "throughput_window_s": 0.01,
        "quiet_wait_s": 0.0,
        "preempted_share": 1.0,
    },
    "counting": {"second_count": False, "layer_repeats": 2},
    "energy": {"backend": "off"},
}

HEALTHY = "tests.faults.models:healthy"
#: Whose processes sweeps of tests run in; `local` for one that needs a server of its own or a real calibration.
WORKERS = "tests.workers"


def configuration(folder: Path, models: list[str], methods: list[str] | None = None, **changes: Any) -> Config:
    """A configuration whose results, site and tracking live in `folder`."""
    return validate(
        {
            "suite": {"name": "tiny", "grids": {"default": [{"models": models, "methods": methods or ["none"]}]}},
            "protocol": QUICK,
            "tracking": {"enabled": False},
            "paths": {"results": str(folder / "results"), "site": str(folder / "site"), "cache": str(folder / "cache")},
            **changes,
            "executor": {"name": WORKERS, "retries": 0, **changes.get("executor", {})},
        }
    )


def sweep(config: Config, *listeners: Listener) -> Sweep:
    """Run the sweep of a configuration without a command line."""
    made = plan.make(config, catalogue.load())
    return Driver(config, made, listeners, calibrated=False).run({})
