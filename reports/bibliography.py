"""BibTeX of what a report rests on: the instrument's own sources, and the papers of the methods and models it shows.

A suite carries its references in `references.yaml` beside its claims; a suite without the file has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.config.yaml_file import read_yaml
from bench.errors import UsageError, did_you_mean
from bench.version import __version__

FILE = "references.yaml"


@dataclass(frozen=True)
class Reference:
    """A paper: authors as `Last, First`, a venue or only an arXiv number; `of` are the names it belongs to."""

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    of: tuple[str, ...] = ()
    venue: str | None = None
    arxiv: str | None = None
    volume: int | None = None
    number: int | None = None
    pages: str | None = None
    doi: str | None = None
    journal: bool = False

    @property
    def bibtex(self) -> str:
        """The entry; what is not known has no field."""
        preprint = self.venue is None
        kind = "article" if self.journal or preprint else "inproceedings"
        where = f"arXiv preprint arXiv:{self.arxiv}" if preprint else self.venue
        lines = {
            "title": self.title,
            "author": " and ".join(self.authors),
            "journal" if kind == "article" else "booktitle": where,
            "volume": self.volume,
            "number": self.number,
            "pages": self.pages,
            "year": self.year,
            "doi": self.doi,
            "eprint": self.arxiv,
            "archiveprefix": self.arxiv and "arXiv",
        }
        body = "".join(f"  {name} = {{{_escaped(value)}}},\n" for name, value in lines.items() if value is not None)
        return f"@{kind}{{{self.key},\n{body}}}"


OWN = (
    Reference(
        "lavin2024efficiency",
        "On the Efficiency of Convolutional Neural Networks",
        ("Lavin, Andrew",),
        2024,
        arxiv="2404.03617",
    ),
    Reference(
        "williams2009roofline",
        "Roofline: An Insightful Visual Performance Model for Multicore Architectures",
        ("Williams, Samuel", "Waterman, Andrew", "Patterson, David"),
        2009,
        venue="Communications of the ACM",
        volume=52,
        number=4,
        journal=True,
    ),
)
_SOFTWARE = (
    "@software{waterline,\n  title = {Waterline: reproducible efficiency benchmarks for neural networks},\n"
    f"  version = {{{__version__}}},\n}}"
)


def load(folder: Path | str) -> list[Reference]:
    """The references of a suite's folder.

    Raises:
        UsageError: the file is not as described; the message names the entry and the field.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        return []
    entries = read_yaml(file).get("references")
    if not isinstance(entries, list):
        raise UsageError(f"{file}: must have a list under `references`")
    return [_reference(entry, f"{file}: reference {number}") for number, entry in enumerate(entries, 1)]


def _reference(entry: Any, where: str) -> Reference:
    """One entry of the file, checked."""
    names = [field.name for field in fields(Reference)]
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: must be a mapping")
    for name in entry:
        if name not in names:
            raise UsageError(f'{where}: unknown field "{name}"; {did_you_mean(str(name), names)}')
    missing = [name for name in ("key", "title", "authors", "year", "of") if not entry.get(name)]
    if missing:
        raise UsageError(f"{where}: needs {', '.join(missing)}")
    for name in ("authors", "of"):
        if not isinstance(entry[name], list) or not all(isinstance(item, str) for item in entry[name]):
            raise UsageError(f"{where}: {name} must be a list of names")
    if not entry.get("venue") and not entry.get("arxiv"):
        raise UsageError(f"{where}: needs a venue or an arXiv number")
    return Reference(**{**entry, "authors": tuple(entry["authors"]), "of": tuple(entry["of"])})


def entries_for(names: Iterable[str], references: Sequence[Reference] = ()) -> list[str]:
    """BibTeX entries: the instrument and its sources, then those of `references` that belong to a name, by key."""
    wanted = set(names)
    papers = {item.key: item for item in references if wanted.intersection(item.of)}
    return [_SOFTWARE, *(item.bibtex for item in (*OWN, *(papers[key] for key in sorted(papers))))]


def _escaped(value: object) -> str:
    """Text as TeX takes it: an ampersand is no column there."""
    return str(value).replace("&", "\\&")
