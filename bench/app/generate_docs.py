"""Writes what documents say about systems from their cards: `python -m bench.app.generate_docs [--check]`.

Between the marks `<!-- systems: begin -->` and `<!-- systems: end -->` of a suite's README stands its table of systems;
the whole of `docs/systems.md` is made; `docs/testing_your_own.md` has the checks of the battery and the keys of a card,
and CONTRIBUTING the map of the rooms. The reference's metrics, settings, protocols and verbs are made from the code.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from bench.app.listing import index_table, suite_table
from bench.app.map_of_rooms import rooms_table
from bench.app.reference_tables import metrics_page, protocols_page, settings_page, verbs_table
from bench.config import cards
from bench.config.cards import Card
from bench.config.paths import PACKAGE
from bench.errors import UsageError
from bench.testing import CHECKS

ROOT = PACKAGE.parent


def between(text: str, name: str, content: str, file: Path) -> str:
    """The document with new content between the two marks of this name.

    Raises:
        UsageError: the marks are not there, each once.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UsageError(f"{file}: needs a line {begin} and after it a line {end}, each once")
    head, tail = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    return f"{head}\n{content}\n{tail}"


def documents(root: Path = ROOT) -> dict[Path, str]:
    """Every document that is made or partly made, as it should be."""
    by_suite = {folder.name: cards.read(folder) for folder in sorted((root / "suites").iterdir()) if folder.is_dir()}
    made = {root / "docs" / "systems.md": _index(by_suite)}
    for suite, found in by_suite.items():
        readme = root / "suites" / suite / "README.md"
        if found and readme.is_file():
            made[readme] = between(readme.read_text(encoding="utf-8"), "systems", suite_table(found), readme)
    reference = root / "docs" / "reference"
    made |= {
        reference / "metrics.md": metrics_page(),
        reference / "settings.md": settings_page(),
        reference / "protocols.md": protocols_page(),
    }
    commands = root / "docs" / "commands.md"
    made[commands] = between(commands.read_text(encoding="utf-8"), "verbs", verbs_table(), commands)
    guide = root / "docs" / "testing_your_own.md"
    text = between(guide.read_text(encoding="utf-8"), "checks", _checks(), guide)
    made[guide] = between(text, "card", _card_keys(), guide)
    contributing = root / "CONTRIBUTING.md"
    made[contributing] = between(contributing.read_text(encoding="utf-8"), "rooms", rooms_table(root), contributing)
    return made


def _index(by_suite: dict[str, list[Card]]) -> str:
    """The index of systems: a table for each suite."""
    every = [card for found in by_suite.values() for card in found]
    systems = sum(card.kind == "system" for card in every)
    parts = [
        "# Systems\n\nMade from the cards in `suites/*/systems.yaml` by `python -m bench.app.generate_docs`; do not "
        f"edit.\n\n{systems} systems and {len(every) - systems} families of plain networks. `bench job=list word=...` "
        "finds them by word."
    ]
    parts += [f"## {suite}\n\n{index_table(found)}" for suite, found in by_suite.items() if found]
    return "\n\n".join(parts) + "\n"


def _checks() -> str:
    return "\n".join(
        ["| check | holds a subject to |", "|---|---|", *(f"| `{n}` | {c.promise} |" for n, c in CHECKS.items())]
    )


def _card_keys() -> str:
    """The keys of a card with their meaning, from the documentation of the class."""
    described = re.findall(r"^ {4}([a-z_, ]+): (.+?)(?=^ {4}\w|\Z)", _attributes(), re.M | re.S)
    rows = [
        f"| {', '.join(f'`{n}`' for n in names.split(', '))} | {' '.join(text.split())} |" for names, text in described
    ]
    return "\n".join(["| key | says |", "|---|---|", *rows])


def _attributes() -> str:
    text = inspect.cleandoc(Card.__doc__ or "").partition("Attributes:\n")[2]
    hidden = re.compile(r"^ {4}(name|suite): .*\n(?: {8}.*\n)*", re.M)  # they follow from where the card stands
    return hidden.sub("", text)


def main() -> None:
    """Write the documents; with `--check` only say which are stale, and exit with 1 if one is."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        raise SystemExit(f"unknown words {sys.argv[1:]}; there is only --check")
    stale = [
        file for file, text in documents().items() if not file.is_file() or file.read_text(encoding="utf-8") != text
    ]
    for file in stale:
        if check:
            print(f"{file.relative_to(ROOT)} is stale: run python -m bench.app.generate_docs", file=sys.stderr)
        else:
            file.write_text(documents()[file], encoding="utf-8")
            print(f"wrote {file.relative_to(ROOT)}")
    raise SystemExit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
