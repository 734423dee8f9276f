"""What there is to be named on the command line, a row each; and the tables of documents, made from cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.canonical import settings_text
from bench.config.cards import Card
from bench.config.catalogue import Catalogue, Entry
from bench.config.schema import Against
from bench.config.yaml_file import first_text


@dataclass(frozen=True)
class Listed:
    """One thing with a name: what kind of thing, in a clause what it is, the suite's folder, and text to find it by."""

    kind: str
    name: str
    text: str
    suite: str
    more: str = ""


def everything(cards: Mapping[str, Card], catalogue: Catalogue, folders: Iterable[Path]) -> list[Listed]:
    """A row for each system, model, method, task and suite, in that order."""
    said = {name: card for card in cards.values() for name in card.names}
    rows = [
        Listed(
            "networks" if card.kind == "network" else "systems",
            card.name,
            about(card),
            card.suite,
            f"{card.title} {' '.join(card.names)} {card.library or ''} {card.arxiv or ''}",
        )
        for card in sorted(cards.values(), key=lambda card: card.kind == "network")
    ]
    for kind, entries in (("models", catalogue.models), ("methods", catalogue.methods), ("tasks", catalogue.tasks)):
        rows += [_entry_row(kind, entry, said.get(entry.name)) for entry in entries.values()]
    rows += [
        Listed("models", f"{prefix}:NAME", "any model of that library", _suite(entry), entry.path)
        for prefix, entry in catalogue.prefixes.items()
    ]
    for folder in folders:
        if (folder / "suite.yaml").is_file():
            name = first_text(folder / "suite.yaml", "name") or folder.name
            rows.append(Listed("suites", name, first_text(folder / "suite.yaml", "title") or "", folder.name))
    order = ("systems", "networks", "models", "methods", "tasks", "suites")
    return sorted(rows, key=lambda row: order.index(row.kind))


def _entry_row(kind: str, entry: Entry, card: Card | None) -> Listed:
    preset = f"{entry.path}({settings_text(entry.settings)})" if entry.settings else entry.path
    return Listed(kind, entry.name, preset, _suite(entry), f"{card.name} {card.title} {card.summary}" if card else "")


def _suite(entry: Entry) -> str:
    return entry.folder.name if entry.folder else ""


def fitting(rows: Iterable[Listed], word: str) -> list[Listed]:
    """The rows in which the word occurs, capitals aside."""
    wanted = word.casefold()
    return [row for row in rows if wanted in f"{row.name} {row.text} {row.suite} {row.more}".casefold()]


def about(card: Card) -> str:
    """A card in a clause: what it does, how much of it is known, and when it was published."""
    known = "" if card.knowledge == "exact" else f"; {card.knowledge}"
    return f"{card.summary} ({card.year}{known})"


# -- documents ----------------------------------------------------------------------------------------------------


def suite_table(cards: Sequence[Card]) -> str:
    """The table of a suite's README: a line for each system, in Markdown."""
    lines = ["| name | settings | what it does | source |", "|---|---|---|---|"]
    for card in cards:
        names = ", ".join(f"`{name}`" for name in card.names) or card.name
        settings = "; ".join(f"`{name}`: {text}" for name, text in card.settings.items())
        known = "" if card.knowledge == "exact" else f"; **{card.knowledge}**: {card.of}"
        lines.append(row_line(names, settings, card.summary + known, source(card)))
    return "\n".join(lines)


def index_table(cards: Sequence[Card]) -> str:
    """The lines of one suite in the index of systems, in Markdown."""
    lines = [
        "| system | what it does | compared with | workload | known | needs | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for card in cards:
        lines.append(
            row_line(card.name, card.summary, _against(card), card.workload, _known(card), _needs(card), source(card))
        )
    return "\n".join(lines)


def source(card: Card) -> str:
    """Where a system was published: its title, its year, and its number as a link."""
    where = f", [arXiv:{card.arxiv}](https://arxiv.org/abs/{card.arxiv})" if card.arxiv else f", {card.venue}"
    return f"{card.title} ({card.year}{where})"


def _against(card: Card) -> str:
    if isinstance(card.against, Against):
        return ", ".join(f"`{value}`" for value in card.against.named.values())
    return "" if card.kind == "network" else "the same model without it"


def _known(card: Card) -> str:
    library = f"; by {card.library} ({card.licence})" if card.library else ""
    return (card.knowledge if card.of is None else f"{card.knowledge}: {card.of}") + library


def _needs(card: Card) -> str:
    parts = [f"extra `{card.needs.extra}`"] if card.needs.extra else []
    return ", ".join(parts + (["a GPU"] if card.needs.device == "cuda" else []))


def row_line(*cells: str) -> str:
    """One line of a Markdown table; a bar inside a cell is escaped."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
