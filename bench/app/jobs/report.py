"""`job=report`: rebuild the site from the records, without measuring."""

from __future__ import annotations

from pathlib import Path

from bench.app import site
from bench.config.schema import Config
from bench.errors import UsageError


def run(config: Config) -> int:
    """Write the site; `paths.results` may name several folders, separated by commas; 0."""
    folders = [Path(text.strip()) for text in config.paths.results.split(",")]
    for folder in folders:
        if not (folder / "records").is_dir():
            raise UsageError(f"paths.results: {folder} holds no records; measure first with `python -m bench`")
    print(f"report   {site.build(config, folders)}")
    return 0
