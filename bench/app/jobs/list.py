"""`job=list`: every system, model, method, task and suite, or those that a `word=` occurs in."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.app.listing import Listed, everything, fitting
from bench.config import cards, catalogue
from bench.config.paths import suite_folders
from bench.config.schema import Config
from bench.errors import UsageError, did_you_mean


def run(config: Config) -> int:
    """Print a table for each kind of thing, a line each; 0.

    Raises:
        UsageError: the word occurs nowhere.
    """
    rows = everything(cards.load(), catalogue.load(), suite_folders())
    found = fitting(rows, config.word or "")
    if not found:
        names = [row.name for row in rows]
        raise UsageError(f'word="{config.word}" occurs nowhere; {did_you_mean(config.word or "", names)}')
    console = Console(width=None if Console().is_terminal else 140)
    for kind in dict.fromkeys(row.kind for row in found):
        console.print(_table(kind, [row for row in found if row.kind == kind]))
    return 0


def _table(kind: str, rows: list[Listed]) -> Table:
    table = Table("name", "what it is", "suite", title=f"{kind} ({len(rows)})", title_justify="left")
    for row in rows:
        table.add_row(*map(escape, (row.name, row.text, row.suite)))
    return table
