"""`job=doctor`: what can be measured here, what cannot, and why."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.app.surroundings import surroundings
from bench.config.schema import Config
from bench.foreign_text import escape_controls
from bench.host.environment import environment
from bench.host.identity import machine_class, machine_key


def run(config: Config) -> int:
    """Print the machine, what a report of trouble has to say, and each capability with its reason and remedy; 0."""
    from bench.meters.peaks import capabilities

    found = environment(config.device.name)
    screen = Console()
    width = screen.width if screen.is_terminal else None
    for name, value in (("machine", machine_class(found)), ("key", machine_key(found)), *surroundings(config)):
        print(_line(name, escape_controls(value), width))
    table = Table("what", "here", "how, or why not", "what would help")
    for row in capabilities():
        reason = row["how"] if row["available"] else row["why_not"]
        table.add_row(
            *map(_shown, (row["what"], "yes" if row["available"] else "no", reason or "", row["remedy"] or ""))
        )
    Console(width=width or 160).print(table)
    return 0


def _line(name: str, value: str, width: int | None) -> str:
    """A fact in two columns, wrapped where there is a terminal; a program that reads it gets one line."""
    text = f"{name:<10} {value}"
    if width is None:
        return text
    return textwrap.fill(text, width, subsequent_indent=" " * 11, break_long_words=False, break_on_hyphens=False)


def _shown(text: str) -> str:
    """Foreign text as it is: neither markup nor a terminal's commands."""
    return escape(escape_controls(text))
