"""`job=merge sources=[...]`: several results folders and bundles in one, each record once."""

from __future__ import annotations

import glob
from pathlib import Path

from bench.app.terminal import tell
from bench.config.schema import Config
from bench.errors import UsageError
from bench.store import union


def run(config: Config) -> int:
    """Merge `sources` into `paths.results` and say what came in; 0, or 3 if files had to be left out.

    Raises:
        UsageError: a pattern that no folder or bundle fits, or several folders in `paths.results`.
        ResultsError: sources contradict each other; nothing was merged.
    """
    if "," in config.paths.results:
        raise UsageError(f"paths.results={config.paths.results}: job=merge writes into one folder; name one")
    sources = named(config.sources or "")
    done = union.merge(sources, config.paths.results)
    what = f"{len(sources)} source" + ("" if len(sources) == 1 else "s")
    machines = f"{len(done.machines)} machine" + ("" if len(done.machines) == 1 else "s")
    print(
        f"merged   {what} into {config.paths.results}: {done.records} records new, {done.known} there already, "
        f"{done.samples} samples files, {done.calibrations} calibrations; {machines} in all"
    )
    for problem in done.problems:
        tell(f"left out: {problem}")
    return 3 if done.problems else 0


def named(text: str) -> list[Path]:
    """The folders and bundles that a list of places means, each once; a place may be a pattern (`incoming/*.zip`).

    Raises:
        UsageError: nothing is there of a pattern's name.
    """
    found: list[Path] = []
    for place in filter(None, (part.strip() for part in text.split(","))):
        fitting = [Path(place)] if Path(place).exists() else [Path(name) for name in sorted(glob.glob(place))]
        if not fitting:
            raise UsageError(f"sources: {place} is not there; name results folders or bundles (.zip)")
        found.extend(fitting)
    return list(dict.fromkeys(found))
