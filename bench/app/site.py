"""Builds the report from the results folder; the only door between the instrument and the reports."""

from __future__ import annotations

from pathlib import Path

from bench.app.terminal import tell
from bench.config.paths import suite_folders
from bench.config.schema import Config


def build(config: Config, results: list[Path] | None = None) -> Path:
    """Write the static site; the path of its index page.

    Args:
        config: where results and site are.
        results: several results folders to merge; default the configured one.
    """
    from reports.footprint import Rates
    from reports.site import build as build_site

    folders = results or [Path(config.paths.results)]
    made = build_site(
        folders,
        Path(config.paths.site),
        show_paths=config.report.show_paths,
        claims=suite_folders(),
        figure_seconds=config.report.figure_seconds,
        rates=Rates(config.report.grid_g_per_kwh, config.report.price_per_kwh, config.report.currency),
    )
    for problem in made.problems:
        tell(problem)
    return made.index
