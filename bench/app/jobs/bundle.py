"""`job=bundle`: pack records, samples and site with checksums, to publish or archive."""

from __future__ import annotations

from pathlib import Path

from bench.app import site
from bench.app.terminal import tell
from bench.config.schema import Config
from bench.store import bundle


def run(config: Config) -> int:
    """Write `<results>.bundle.zip` beside the folder; 0, 3 if files had to be left out, 1 if it is incomplete."""
    results = Path(config.paths.results)
    page = site.build(config).parent if config.report.enabled else None
    problems: list[str] = []
    path = bundle.pack(
        results,
        page,
        results.with_name(f"{results.name}.bundle.zip"),
        problems=problems,
        private=config.report.show_paths,
    )
    report = bundle.verify(path)
    print(f"bundle   {path} ({len(report.records)} records, {report.files} files, {path.stat().st_size / 1e6:.1f} MB)")
    for problem in problems:
        tell(f"left out: {problem}")
    for problem in report.problems:
        tell(f"{path}: {problem}")
    if not report.ok:
        return 1
    return 3 if problems else 0
