"""What the pages of a report draw from: rows, groups, columns and the rest of one site."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.store.records import Record
from bench.version import __version__
from reports.bibliography import Reference
from reports.columns import Column
from reports.groups import Group
from reports.rows import Row

#: One side of a comparison: its name and its records.
Side = tuple[str, list[Record]]


@dataclass(frozen=True)
class Link:
    """An entry of the navigation."""

    title: str
    path: str


@dataclass
class Site:
    """Everything the pages draw from; made once per build and never changed by a page."""

    title: str
    rows: list[Row]
    groups: list[Group]
    columns: list[Column]
    problems: list[str]
    roots: list[Path]
    claims: list[dict[str, Any]] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    show_paths: bool = False
    sides: tuple[Side, Side] | None = None
    navigation: list[Link] = field(default_factory=list)
    version: str = __version__

    @cached_property
    def records(self) -> list[Record]:
        """The records behind the rows, in the order of the rows."""
        return [row.record for row in self.rows]

    @cached_property
    def newest(self) -> str:
        """The day of the newest record, empty for no records."""
        return max((str(record.get("finished_at") or record["started_at"])[:10] for record in self.records), default="")

    @cached_property
    def by_key(self) -> dict[tuple[str, str], Row]:
        """Rows by case key and machine key."""
        return {(row.case_key, row.machine_key): row for row in self.rows}

    def baseline(self, row: Row) -> Row | None:
        """The row that `row` is compared with on the same machine; None for a baseline or when it is not here."""
        return None if row.case.is_baseline else self.by_key.get((row.record.get("baseline_key", ""), row.machine_key))

    def in_group(self, index: int) -> list[Row]:
        """The rows of one group."""
        return [row for row in self.rows if row.group == index]
