"""`job=doctor`: what can be measured here, what cannot, and why."""

from __future__ import annotations

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
    print(f"machine  {machine_class(found)}")
    print(f"key      {machine_key(found)}")
    for name, value in surroundings(config):
        print(f"{name:<8} {escape_controls(value)}")
    table = Table("what", "here", "how, or why not", "what would help")
    for row in capabilities():
        reason = row["how"] if row["available"] else row["why_not"]
        table.add_row(
            *map(_shown, (row["what"], "yes" if row["available"] else "no", reason or "", row["remedy"] or ""))
        )
    Console(width=None if Console().is_terminal else 160).print(table)
    return 0


def _shown(text: str) -> str:
    """Foreign text as it is: neither markup nor a terminal's commands."""
    return escape(escape_controls(text))
