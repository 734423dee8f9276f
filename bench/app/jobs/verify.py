"""`job=verify row=<bundle>`: whether a bundle is whole and safe to read."""

from __future__ import annotations

from pathlib import Path

from bench.app.terminal import tell
from bench.config.schema import Config
from bench.store import bundle


def run(config: Config) -> int:
    """Print what was found; 0 if every check passed, 1 if not."""
    results = Path(config.paths.results)
    path = Path(config.row) if config.row else results.with_name(f"{results.name}.bundle.zip")
    report = bundle.verify(path)
    for problem in report.problems:
        tell(problem)
    state = "good" if report.ok else f"{len(report.problems)} problems"
    print(f"{path}: {state}; {len(report.records)} records in {report.files} files")
    return 0 if report.ok else 1
