"""`job=verify row=<bundle>`: whether a bundle is whole and safe to read."""

from __future__ import annotations

import os
from pathlib import Path

from bench.app.terminal import tell
from bench.config.schema import Config
from bench.errors import UsageError
from bench.foreign_text import shortened
from bench.store import bundle
from bench.words import plural


def run(config: Config) -> int:
    """Print what was found; 0 if every check passed, 1 if not.

    Raises:
        UsageError: there is no such file.
    """
    results = Path(config.paths.results)
    path = Path(config.row) if config.row else results.with_name(f"{results.name}.bundle.zip")
    if not os.path.isfile(path):  # nor can it be, where the name is longer than a file's may be
        raise UsageError(
            f"there is no bundle {shortened(str(path))}: name one with row=FILE.zip, or pack one by job=bundle"
        )
    report = bundle.verify(path)
    for problem in report.problems:
        tell(problem)
    state = "good" if report.ok else plural(len(report.problems), "problem")
    print(f"{path}: {state}; {plural(len(report.records), 'record')} in {plural(report.files, 'file')}")
    return 0 if report.ok else 1
