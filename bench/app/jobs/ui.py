"""`job=ui`: MLflow's own interface on the mirror, opened on the useful view."""

from __future__ import annotations

import os
import subprocess

from bench.app.mirror import tracking_uri
from bench.config.schema import Config


def run(config: Config) -> int:
    """Start the interface and wait until it is ended with Ctrl-C; its exit code, 0 for Ctrl-C."""
    from bench.tracking.ui import ui_command

    command, environment, url = ui_command(
        tracking_uri(config), experiment=config.tracking.experiment, suite=config.suite.name
    )
    print(f"mlflow   {url}   (Ctrl-C ends it)")
    if not command:
        return 0
    try:
        return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
    except KeyboardInterrupt:
        return 0
