"""One `Row` per record: what the pages know of a case on a machine, with its cells, flags, group and standing.

Readings become `Cell`s keyed by metric; comparisons with the baseline become further cells (`speedup`, `mac_ratio`,
`realised_gain`, `accuracy_change`), so that a page treats measured and derived numbers alike. Failed and contaminated
cases are rows as well: they have a reason and no rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.analysis.table import error_text
from bench.foreign_text import shortened
from bench.metrics import METRICS
from bench.plan.case import Case
from bench.scores import paired_samples
from bench.statistics import paired_accuracy_difference
from bench.store.record_parts import is_of_part, scored, whole_of
from bench.store.records import Record
from reports.labels import brief_each
from reports.own_time import Split, split


@dataclass(frozen=True)
class Cell:
    """A number in the metric's own unit, or None with the reason in `note`."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    provenance: str = "unavailable"
    note: str = ""


@dataclass(frozen=True)
class Column:
    """What a column of the leaderboard holds; `better` is lower, higher or none."""

    key: str
    title: str
    unit: str
    better: str
    section: str
    definition: str
    default: bool = False


DERIVED: tuple[Column, ...] = (
    Column("mac_ratio", "MAC ratio", "x", "higher", "compute",
           "The baseline's MACs over the case's: the speed-up that the operations promise. The MACs that a method makes to decide "
           "what goes are left out, as papers do; they stand under MACs of the method itself."),
    Column("realised_gain", "Realised gain", "x", "higher", "latency",
           "Measured speed-up divided by the MAC ratio: how much of the promised saving the machine gives.", True),
    Column("own_share", "Time in own operators", "%", "lower", "latency",
           "Share of a forward's time in modules that the method adds to the network: matching, sorting, gathering. The ends add "
           "up the ends of the modules' own intervals."),
    Column("accuracy_change", "Accuracy change", "pp", "higher", "quality",
           "Accuracy less the baseline's in percentage points, image by image, with the paired 95 % interval of Bonett and Price."),
)  # fmt: skip

#: What papers print of their own weights; see `reports.published`.
PUBLISHED = Column(
    "published_accuracy", "Published accuracy", "%", "none", "quality",
    "The accuracy that the method's paper prints for this setting, of the paper's own weights: never ranked, drawn or joined to a "
    "cost, which here is of other weights.", True,
)  # fmt: skip

#: Why a baseline has no comparison with itself.
OF_BASELINE = "this is the baseline"
#: Why a method has no share of own operators.
OF_REPLACED = (
    "the method works inside modules that replace the network's, where times per module cannot tell the two apart"
)
#: Letters of a name in titles and cells; the page of a case has the whole.
MOST_LETTERS = 120
_COMPARED = tuple(column.key for column in DERIVED)
_DEFAULT = ("latency_ms", "speedup", "macs", "accuracy", "peak_memory_bytes", "energy_j")
_ORDER = (
    "latency_ms", "speedup", "macs", "mac_ratio", "realised_gain", "own_share", "accuracy", "accuracy_change", "published_accuracy", "peak_memory_bytes",
    "energy_j", "throughput_per_s", "params", "size_bytes",
)  # fmt: skip

#: Every column in the order of the table; those not named in `_ORDER` follow as in `bench.metrics`.
COLUMNS: tuple[Column, ...] = tuple(
    sorted(
        (*(Column(m.name, m.title, m.unit, m.better, m.section, m.definition, m.name in _DEFAULT)
           for m in METRICS.values()), *DERIVED, PUBLISHED),
        key=lambda column: _ORDER.index(column.key) if column.key in _ORDER else len(_ORDER),
    )
)  # fmt: skip


@dataclass
class Row:
    """A case on a machine as the pages show it; `rank` and `group` are filled in by `reports.standing`.

    `shown` is the method with its setting, long lists cut where no other row would look alike.
    """

    record: Record
    case: Case
    status: str
    reason: str
    cells: dict[str, Cell]
    page: str
    group: int = 0
    rank: dict[str, tuple[int, int]] = field(default_factory=dict)
    pareto: str = ""
    pareto_note: str = ""
    contaminated: str = ""
    shown: str = ""

    @property
    def case_key(self) -> str:
        """The key of the case; the same on every machine."""
        return str(self.record["case_key"])

    @property
    def machine_key(self) -> str:
        """The key of the machine that the case ran on."""
        return str(self.record["machine_key"])

    @property
    def name(self) -> str:
        """Model and method with setting in one line."""
        model = f"{self.case.model}({self.case.model_settings})" if self.case.model_settings else self.case.model
        return f"{shortened(model, MOST_LETTERS)} · {self.shown or shortened(self.case.method_label, MOST_LETTERS)}"

    @property
    def ranked(self) -> bool:
        """Whether the row may take part in a ranking."""
        return self.status == "ok" and not self.contaminated

    def value(self, metric: str) -> float | None:
        """The value of a metric, None where there is none."""
        cell = self.cells.get(metric)
        return None if cell is None else cell.value


def rows_of(records: Iterable[Record], problems: list[str]) -> list[Row]:
    """The rows of `records` with cells and comparisons; a malformed record is left out and named in `problems`."""
    rows = []
    for record in records:
        try:
            rows.append(_row(record))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = record.get("record_key", record.get("case_key", "?")) if isinstance(record, dict) else "?"
            problems.append(f"record {name}: left out of the report, a part is missing or malformed ({error})")
    names = brief_each(list(dict.fromkeys(row.case.method_label for row in rows)))
    for row in rows:
        row.shown = shortened(names[row.case.method_label], MOST_LETTERS)
    _compare_with_baselines(rows)
    return sorted(rows, key=lambda row: (row.case.model, row.case.method != "none", row.case.method_label, row.page))


def columns_of(rows: Iterable[Row]) -> list[Column]:
    """The columns that have at least one value or one reason in `rows`."""
    present = {key for row in rows for key in row.cells}
    return [column for column in COLUMNS if column.key in present]


def page_name(record: Record) -> str:
    """Where the page of a record is, relative to the site; only letters that are safe in a file name and an address."""
    return f"cases/{_slug(record['case_key'])}.{_slug(record['machine_key'])}.html"


def _slug(text: Any) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "_" for letter in str(text))


def _row(record: Record) -> Row:
    cells = {}
    whole = whole_of(record)
    for item in record["readings"]:
        if item["metric"] in METRICS and is_of_part(item, None, whole):
            note = str(item.get("method_note") or "")
            cells[item["metric"]] = Cell(
                item.get("value"), item.get("ci_low"), item.get("ci_high"), item.get("n"), item["provenance"], note
            )
    return Row(
        record=record,
        case=Case.from_dict(record["case"]),
        status=str(record["status"]),
        reason=error_text(record.get("error")) or "",
        cells=cells,
        page=page_name(record),
        contaminated=_contamination(record),
    )


def _contamination(record: Record) -> str:
    """Why a row that finished may not be ranked: its contamination or an invalidating flag; else nothing."""
    flags = [str(flag.get("text", "")) for flag in record.get("flags") or [] if flag.get("severity") == "invalid"]
    if record["status"] == "contaminated":
        return "; ".join(flags) or "the host was disturbed while this was measured"
    return "; ".join(flags)


def _compare_with_baselines(rows: list[Row]) -> None:
    baselines = {(row.case_key, row.machine_key): row for row in rows if row.case.is_baseline}
    for row in rows:
        base = baselines.get((str(row.record.get("baseline_key")), row.machine_key))
        if row.status != "ok":
            continue
        if row.case.is_baseline:
            row.cells |= {name: Cell(None, note=OF_BASELINE) for name in ("speedup", *_COMPARED)}
            continue
        row.cells["mac_ratio"] = _ratio(base, row, "macs")
        row.cells["realised_gain"] = _realised(row)
        row.cells["own_share"] = _own_share(base, row)
        row.cells["accuracy_change"] = _accuracy_change(base, row)


def _ratio(base: Row | None, row: Row, metric: str) -> Cell:
    over, under = (base.value(metric) if base else None), row.value(metric)
    if over is None or not under:
        return Cell(None, note=f"the {metric} of the baseline or of this case are missing")
    return Cell(over / under, provenance=row.cells[metric].provenance)


def _realised(row: Row) -> Cell:
    speedup, promised = row.cells.get("speedup"), row.cells["mac_ratio"]
    if speedup is None or speedup.value is None:
        return Cell(None, note=(speedup.note if speedup else "") or "no speed-up was measured")
    if promised.value is None:
        return Cell(None, note=promised.note)
    low, high = (None if end is None else end / promised.value for end in (speedup.low, speedup.high))
    return Cell(speedup.value / promised.value, low, high, speedup.n, speedup.provenance)


def _own_share(base: Row | None, row: Row) -> Cell:
    """The part of the layers' time that the method's own modules take."""
    if base is None:
        return Cell(None, note="the baseline is not among the records")
    found = split(row.record, base.record)
    if isinstance(found, str):
        return Cell(None, note=found)
    if found.replaced_ms:
        return Cell(None, note=OF_REPLACED)
    low, high = (None if end is None else 100 * end / found.ms for end in (found.own_low_ms, found.own_high_ms))
    return Cell(100 * found.own_share, low, high, provenance="measured", note=_of_own_modules(found))


def _of_own_modules(found: Split) -> str:
    return f"{found.own_modules} module{'' if found.own_modules == 1 else 's'}, {found.own_ms:.3g} of {found.ms:.3g} ms"


def _accuracy_change(base: Row | None, row: Row) -> Cell:
    """The accuracy less the baseline's, paired by image where both answered the same ones."""
    before, after = (base.cells.get("accuracy") if base else None), row.cells.get("accuracy")
    if base is None or before is None or after is None or before.value is None or after.value is None:
        return Cell(None, note="the accuracy of the baseline or of this case is missing")
    one, two = (scored(each.record, "accuracy") or {} for each in (base, row))
    if not paired_samples(one, two):
        note = "no interval: the two were not scored on the same images"
        return Cell(after.value - before.value, provenance=after.provenance, note=note)
    answers = [[mark == "1" for mark in part["per_sample"]] for part in (one, two)]
    found = paired_accuracy_difference(answers[0], answers[1])
    note = f"{found.only_first} images lost and {found.only_second} won of {found.n}, McNemar's exact p = {found.p:.2g}"
    return Cell(found.value, found.low, found.high, found.n, after.provenance, note)
