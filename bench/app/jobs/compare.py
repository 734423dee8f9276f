"""`job=compare a=... b=...`: what changed between two runs; the exit code is a gate."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.analysis import compare, gate, history, history_text
from bench.analysis.comparison_text import as_markdown, as_text
from bench.app.sources import records_at
from bench.config.schema import Config
from bench.store.records import Record, without_superseded, write_atomically

MARKDOWN = "comparison.md"
#: The gate over a history, for programs and for CI servers.
GATE_JSON, GATE_JUNIT = "gate.json", "gate.junit.xml"


def run(config: Config) -> int:
    """Print the comparison, keep it as Markdown and as a page; 0, or 1 if something got worse beyond doubt.

    `a` and `b` may each name several results folders, bundles or records, separated by commas: sessions of one side.
    Where cases have three sessions or more in all, their history comes first; without `a` and `b` it is all there is,
    of the folders that `paths.results` names, with a gate over it.
    """
    if config.a is None and config.b is None:
        return _history_alone(config)
    a, b = ([Path(place.strip()) for place in str(side).split(",") if place.strip()] for side in (config.a, config.b))
    records = [side_at(side) for side in (a, b)]
    names = sides_names(a, b)
    followed = history.follow([record for side in records for record in side])
    if any(len(course.sessions) >= history.FEWEST for course in followed.courses):
        print(history_text.as_text(followed, width=_width()))
    found = compare.compare(*records, label_a=names[0], label_b=names[1])
    print(as_text(found, every=config.all, width=_width()))
    if {place.resolve() for place in a} == {place.resolve() for place in b}:
        print("a and b are the same place: nothing can differ")
    path = Path(config.paths.site) / MARKDOWN
    write_atomically(path, as_markdown(found).encode())
    print(f"kept in {path}")
    if config.report.enabled and len(a) == len(b) == 1 and a[0].is_dir() and b[0].is_dir():
        print(f"as a page in {_page(a[0], b[0], path.parent / 'comparison')}")
    return found.exit_code


def _history_alone(config: Config) -> int:
    """Print what changed over all sessions of the results folders, and keep the gate for CI as JSON and JUnit XML.

    1 if something is worse and not mended, 5 if nothing could be judged, else 0.
    """
    places = [Path(place.strip()) for place in config.paths.results.split(",") if place.strip()]
    records = side_at(places)
    followed = history.follow(history.from_on(records, config.since) if config.since else records)
    print(history_text.as_text(followed, width=_width()))
    found = gate.judge(followed)
    print(gate.as_text(found), end="")
    site = Path(config.paths.site)
    write_atomically(site / GATE_JSON, gate.as_json(found))
    write_atomically(site / GATE_JUNIT, gate.as_junit(found, followed))
    print(f"kept in {site / GATE_JSON} and {site / GATE_JUNIT}")
    return found.exit_code


def _width() -> int | None:
    """Signs of the terminal's line; None where the output goes to a file or another program, which gets all of it."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def side_at(places: Sequence[Path]) -> list[Record]:
    """The records of one side: each once, though two places hold it, and none that another supersedes.

    A record in a bundle that had personal parts taken out is the one that it was made of (`redacted_from`), which
    stands where both are there.
    """
    found: dict[str, Record] = {}
    for record in (record for place in places for record in records_at(str(place))):
        origin = record.get("redacted_from") or record["content_hash"]
        if origin not in found or origin == record["content_hash"]:
            found[origin] = record
    return without_superseded(found.values())


def sides_names(a: Sequence[Path], b: Sequence[Path]) -> tuple[str, str]:
    """What the sides are called: as much of the ends of their paths as tells them apart."""
    for length in (1, 2, 3):
        names = [", ".join(dict.fromkeys("/".join(place.parts[-length:]) for place in side)) for side in (a, b)]
        if names[0] != names[1]:
            return names[0], names[1]
    return "a", "b"


def _page(a: Path, b: Path, folder: Path) -> Path:
    """The site of both folders with the page that compares them; that page."""
    from reports.site import build

    made = build([a, b], folder, compare=(str(a), str(b)))
    return made.index.with_name("compare.html")
