"""The commands that pages name: what measures a row again, and what measures those again that other work disturbed."""

from __future__ import annotations

from collections.abc import Iterable

from bench.canonical import OWN_NETWORKS
from bench.config.overrides import as_word
from bench.config.schema import Paths
from bench.store.records import DISTURBED
from reports.content import Site
from reports.rows import Row

#: The results folder that a command takes where none is named.
USUAL_RESULTS = Paths().results


def reproduce(site: Site, row: Row) -> str:
    """The command that measures a row again, by case and machine."""
    return " ".join(["python -m bench job=reproduce", as_word("row", row.record["record_key"]), *_folder(site)])


def retry(site: Site, suite: str, rows: Iterable[Row]) -> str:
    """The command that measures the disturbed ones of a suite's rows again, empty if none is.

    Of users' networks it leaves the names open, for they may be several.
    """
    if all(row.status != DISTURBED for row in rows):
        return ""
    subject = "model=..." if suite == OWN_NETWORKS else as_word("suite", suite)
    return " ".join(["python -m bench", subject, "retry=disturbed", *_folder(site)])


def _folder(site: Site) -> list[str]:
    """The results folder as a word, if it is unusual.

    Of a folder outside the one that the report was made in only the name is told, unless the site shows paths. A report
    of several folders does not know which of them a row is of.
    """
    if len(site.roots) != 1:
        return []
    root = site.roots[0]
    shown = str(root) if site.show_paths or not (root.is_absolute() or ".." in root.parts) else root.name
    return [as_word("paths.results", shown)] if shown != USUAL_RESULTS else []
