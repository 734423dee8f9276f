"""`job=compare a=... b=...`: what changed between two runs, with a verdict per row and an exit code for gates."""

from __future__ import annotations

from pathlib import Path

from bench import compare
from bench.app.sources import records_at
from bench.comparison_text import as_markdown, as_text
from bench.config import Config
from bench.records import write_atomically

MARKDOWN = "comparison.md"


def run(config: Config) -> int:
    """Print the comparison, keep it as Markdown beside the site; 0, or 1 if something got worse beyond doubt.

    `a` and `b` may each name several results folders, separated by commas: sessions of one side.
    """
    a, b = ([Path(place.strip()) for place in str(side).split(",")] for side in (config.a, config.b))
    records = [[record for place in side for record in records_at(str(place))] for side in (a, b)]
    names = [", ".join(place.name for place in side) for side in (a, b)]
    found = compare.compare(*records, label_a=names[0], label_b=names[1])
    print(as_text(found))
    path = Path(config.paths.site) / MARKDOWN
    write_atomically(path, as_markdown(found).encode())
    print(f"kept in {path}")
    return found.exit_code
