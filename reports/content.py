"""What the pages of a report draw from: rows, groups, columns and the rest of one site, or of one suite in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis import portability
from bench.analysis.history import History
from bench.analysis.places import device_of
from bench.analysis.portability import Portability
from bench.store import classes
from bench.store.records import Record
from bench.version import __version__
from reports.addresses import INDEX, suite_page
from reports.bibliography import Reference
from reports.columns import Column
from reports.groups import Group
from reports.manifest import digest_of
from reports.rows import Row

if TYPE_CHECKING:
    from bench.config.cards import Card

NO_HISTORY = History(())
#: One side of a comparison: its name and its records.
Side = tuple[str, list[Record]]


@dataclass(frozen=True)
class Link:
    """An entry of the navigation."""

    title: str
    path: str


@dataclass
class Site:
    """Everything the pages draw from; made once per build and never changed by a page.

    Attributes:
        rows, groups, columns: what there is; `groups[row.group]` is a row's own in the whole site.
        cards: of the systems in the suites that rows are of.
        suite_titles: what suites call themselves, by name.
        history: cases over their sessions, where they have several.
        attempts: every record of the folders, those of earlier sessions too; `records` are the newest alone.
        whole: the site that this is one suite of; None for the whole.
        here: the page whose figures are made from this.
        docs: documents that stand beside the site, as paths from its folder (`bench.documentation`).
    """

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
    cards: Sequence[Card] = ()
    suite_titles: Mapping[str, str] = field(default_factory=dict)
    history: History = NO_HISTORY
    attempts: Sequence[Record] = ()
    whole: Site | None = None
    here: str = INDEX
    docs: Mapping[str, str] = field(default_factory=dict)
    version: str = __version__

    @cached_property
    def records(self) -> list[Record]:
        """The records behind the rows, in the order of the rows."""
        return [row.record for row in self.rows]

    @cached_property
    def has_several_places(self) -> bool:
        """Whether rows are of two machines or devices at least."""
        return len({(row.machine_key, device_of(row.record)) for row in self.rows}) > 1

    @cached_property
    def across(self) -> Portability:
        """The same cases on several machines, by the classes that the results folders name; earlier sessions count."""
        labels = classes.by_machine(classes.joined(classes.read(root) for root in self.roots))
        return portability.across(self.attempts or self.records, labels)

    @cached_property
    def newest(self) -> str:
        """The day of the newest record, empty for no records."""
        return max((day_of(record) for record in self.records), default="")

    @cached_property
    def by_key(self) -> dict[tuple[str, str], Row]:
        """Rows by case key and machine key, of every suite: one may measure what another compares with."""
        rows = self.rows if self.whole is None else self.whole.rows
        return {(row.case_key, row.machine_key): row for row in rows}

    @cached_property
    def suites(self) -> list[str]:
        """The suites that rows are of."""
        return sorted({row.case.suite for row in self.rows})

    @cached_property
    def _parts(self) -> dict[str, Site]:
        rows: dict[str, list[Row]] = {name: [] for name in self.suites}
        attempts: dict[str, list[Record]] = {name: [] for name in self.suites}
        for row in self.rows:
            rows[row.case.suite].append(row)
        for record in self.attempts:
            attempts.setdefault(record["case"].get("suite"), []).append(record)
        return {name: self._part(name, own, attempts[name]) for name, own in rows.items()}

    def let_go(self) -> None:
        """Drop the suites' sites, which point back at this one: without them memory is free once nobody holds it."""
        self.__dict__.pop("_parts", None)

    def of_suite(self, name: str) -> Site:
        """The same of the rows of one suite alone."""
        return self._parts[name]

    def _part(self, name: str, rows: list[Row], attempts: list[Record]) -> Site:
        present = set[str]().union(*(row.cells for row in rows))
        return replace(
            self,
            title=self.title if len(self.suites) == 1 else name,
            rows=rows,
            groups=[group for group in self.groups if group.suite == name],
            columns=[column for column in self.columns if column.key in present],
            claims=[claim for claim in self.claims if claim.get("suite", name) in ("", name)],
            attempts=attempts,
            whole=self,
            here=suite_page(name),
        )

    def baseline(self, row: Row) -> Row | None:
        """The row that `row` is compared with on the same machine; None for a baseline or when it is not here."""
        return None if row.case.is_baseline else self.by_key.get((row.record.get("baseline_key", ""), row.machine_key))

    @cached_property
    def _claims_on(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for claim in self.claims:
            for key in claim.get("case_keys") or []:
                found.setdefault(key, []).append(claim)
        return found

    def claims_on(self, row: Row) -> list[dict[str, Any]]:
        """The claims whose verdicts rest on the case of a row."""
        return self._claims_on.get(row.case_key, [])

    @cached_property
    def _by_group(self) -> dict[int, list[Row]]:
        found: dict[int, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return found

    def in_group(self, index: int) -> list[Row]:
        """The rows of one group."""
        return self._by_group.get(index, [])

    @cached_property
    def _marks(self) -> dict[str, str]:
        return {row.page: digest_of(*self._shown(row)) for row in self.rows}

    def mark_of(self, row: Row) -> str:
        """A hash of what pages show of a row; it says whether they are as they were."""
        return (self.whole or self)._marks[row.page]

    def _shown(self, row: Row) -> tuple[str, ...]:
        base, group = self.baseline(row), self.groups[row.group]
        other = (str(base.record["content_hash"]), base.name) if base else ("", "")
        return str(row.record["content_hash"]), *other, row.name, row.legend, group.title, str(group.noise_floor)

    def samples_mark(self, row: Row) -> list[int]:
        """When something was last put into or taken from the folders of a row's raw samples, in ns; 0 for no folder."""
        runs = (row.record.get("timing") or {}).get("invocations") or []
        folders = {str(run.get("samples_file") or "").rpartition("/")[0] for run in runs}
        return [time for folder in sorted(folders) for time in self._changed(folder)]

    def _changed(self, folder: str) -> list[int]:
        """When a folder of samples was last changed, in each results folder."""
        times = (self.whole or self)._times
        if folder not in times:
            places = [root / folder for root in self.roots]
            times[folder] = [place.stat().st_mtime_ns if place.is_dir() else 0 for place in places]
        return times[folder]

    @cached_property
    def _times(self) -> dict[str, list[int]]:
        return {}

    @cached_property
    def _places(self) -> dict[str, tuple[Row | None, Row | None]]:
        """The rows before and after each, by its page."""
        found: dict[str, tuple[Row | None, Row | None]] = {}
        for own in self._by_group.values():
            ordered: list[Row | None] = [None, *sorted(own, key=lambda row: -(row.value("speedup") or 0.0)), None]
            for before, row, after in zip(ordered, ordered[1:], ordered[2:], strict=False):
                if row is not None:
                    found[row.page] = (before, after)
        return found

    def neighbours(self, row: Row) -> tuple[Row | None, Row | None]:
        """The rows before and after it among those of its conditions, fastest over its other side first."""
        return self._places[row.page]

    @cached_property
    def _card_of(self) -> dict[str, Card]:
        return {name: card for card in reversed(self.cards) for name in card.names}

    def card(self, name: str) -> Card | None:
        """The card of a method or model of the catalogue; None where no suite here has one."""
        return self._card_of.get(name)


def day_of(record: Record) -> str:
    """The day on which a record was finished, ISO 8601."""
    return str(record.get("finished_at") or record["started_at"])[:10]
