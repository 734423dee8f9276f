"""Builds the report from the results folder; the only door between the instrument and the reports."""

from __future__ import annotations

from pathlib import Path

from bench.app.terminal import tell
from bench.config.paths import suite_folders
from bench.config.schema import Config
from bench.words import plural


def build(config: Config, results: list[Path] | None = None) -> Path:
    """Write the static site; the path of its index page.

    Args:
        config: where results and site are.
        results: several results folders to merge; default the configured one.
    """
    from reports import fresh

    folders = results or [Path(config.paths.results)]
    site, report = Path(config.paths.site), config.report
    rates = (report.grid_g_per_kwh, report.price_per_kwh, report.currency)
    asked = fresh.asked(site, show_paths=report.show_paths, rates=rates)
    said = fresh.kept(site, fresh.Inputs(folders, suite_folders(), asked))
    if said is not None:
        for problem in said["problems"]:
            tell(problem)
        return site / "index.html"
    from reports.footprint import Rates
    from reports.site import build as build_site

    made = build_site(
        folders,
        site,
        show_paths=report.show_paths,
        claims=suite_folders(),
        figure_seconds=report.figure_seconds,
        rates=Rates(*rates),
    )
    for problem in made.problems:
        tell(problem)
    if made.brief:
        tell(_waiting(made.brief))
    return made.index


def _waiting(brief: int) -> str:
    """How pages come to the figures that this build had no time left for."""
    wait = "waits for its" if brief == 1 else "wait for their"
    return f"{plural(brief, 'page')} {wait} figures: job=report goes on, report.figure_seconds=null makes all"
