"""The verbs of the command line: `job=` names one, each is a module with `run(config) -> exit code`."""

from __future__ import annotations

import importlib

from bench.config.schema import Config
from bench.config.verbs import JOBS

_MODULES = {name: f"bench.app.jobs.{'sweep' if name == 'run' else name}" for name in JOBS}


def run_job(config: Config) -> int:
    """Do the configured job; its exit code."""
    code: int = importlib.import_module(_MODULES[config.job]).run(config)
    return code
