"""BibTeX of what a report rests on: the instrument's own sources, and the papers of the methods and models it shows.

A suite carries its references in `references.bib` beside its claims, as they are pasted from elsewhere, with one field
of ours: `of = {tome, deit_tiny}` names what of the catalogue an entry belongs to. A suite without the file has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.foreign_files import read_regular
from bench.version import __version__

FILE = "references.bib"
#: What was read before; a file that is left of it would go unseen.
FORMER = "references.yaml"
#: The field that ties an entry to the catalogue; it is left out where the entry is printed.
OF = "of"
MOST_BYTES = 4 * 2**20
#: Of these an entry needs one: where it appeared, or its number as a preprint.
_PLACES = ("booktitle", "journal", "publisher", "institution", "school", "howpublished", "eprint", "url")

_SOFTWARE = (
    "@software{waterline,\n  title = {Waterline: reproducible efficiency benchmarks for neural networks},\n"
    f"  version = {{{__version__}}},\n}}"
)


@dataclass(frozen=True)
class Reference:
    """A paper: its BibTeX key and entry; `of` are the names of the catalogue that it belongs to."""

    key: str
    bibtex: str
    of: tuple[str, ...] = ()


def load(folder: Path | str) -> list[Reference]:
    """The references of a suite's folder, in the order of its file.

    Raises:
        UsageError: the file is not as described; the message names the entry and the field.
    """
    file = Path(folder) / FILE
    former = file.with_name(FORMER)
    if former.is_file():
        raise UsageError(f"{former}: is not read any more; put its entries into {FILE} as BibTeX, with the field {OF}")
    if not file.is_file():
        return []
    found = read_bibtex(file)
    for reference in found:
        if not reference.of:
            raise UsageError(f"{file}: {reference.key}: needs {OF}, names of the catalogue such as {OF} = {{tome}}")
    return found


def read_bibtex(file: Path) -> list[Reference]:
    """Every entry of a BibTeX file, checked.

    Raises:
        UsageError: the file is no BibTeX, or an entry lacks what a citation needs.
    """
    from pybtex.database.input.bibtex import Parser
    from pybtex.exceptions import PybtexError

    try:
        parsed = Parser().parse_string(read_regular(file, MOST_BYTES).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
    except (PybtexError, RecursionError) as error:
        raise UsageError(f"{file}: is no valid BibTeX: {error}") from error
    return [_reference(entry, f"{file}: {key}") for key, entry in parsed.entries.items()]


def _reference(entry: Any, where: str) -> Reference:
    """One entry of a file, checked, with its text as it is cited."""
    fields = {name.lower(): " ".join(str(value).split()) for name, value in entry.fields.items()}
    people = {role.lower(): " and ".join(str(person) for person in found) for role, found in entry.persons.items()}
    of = tuple(name.strip() for name in fields.pop(OF, "").split(",") if name.strip())
    missing = [name for name in ("title", "year") if not fields.get(name)]
    if not people:
        missing.append("author")
    if missing:
        raise UsageError(f"{where}: needs {', '.join(missing)}")
    if not any(fields.get(name) for name in _PLACES):
        raise UsageError(f"{where}: needs a venue (booktitle, journal, ...) or an eprint number")
    lines = {"title": fields.pop("title"), **people, **fields}
    body = "".join(f"  {name} = {{{value}}},\n" for name, value in lines.items())
    return Reference(entry.key, f"@{entry.type}{{{entry.key},\n{body}}}", of)


def entries_for(names: Iterable[str], references: Sequence[Reference] = ()) -> list[str]:
    """BibTeX entries: the instrument and its sources, then those of `references` that belong to a name, by key."""
    wanted = set(names)
    own = read_bibtex(Path(__file__).with_name(FILE))
    papers = {item.key: item for item in references if wanted.intersection(item.of)}
    return [_SOFTWARE, *(item.bibtex for item in (*own, *(papers[key] for key in sorted(papers))))]
