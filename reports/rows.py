"""One `Row` per record: what the pages know of a case on a machine, with its cells, flags, group and standing.

Readings become `Cell`s keyed by metric and part (`column_key`); comparisons with the other side become further cells
(`speedup`, `mac_ratio`, `realised_gain`, the change of the score), so that a page treats measured and derived numbers
alike. Failed and contaminated cases are rows as well: they have a reason and no rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from bench.analysis import shares
from bench.analysis.lower_bounds import partly_counted
from bench.analysis.parts import as_part
from bench.analysis.table import error_text
from bench.canonical import BASELINE_METHOD
from bench.config.axes import BY_NAME, CROSSABLE
from bench.flags import DISTURBANCES
from bench.foreign_text import shortened
from bench.labels import NO_SPEED, label_of
from bench.metrics import METRICS
from bench.plan.case import Case
from bench.scores import RULES, change, paired_samples
from bench.short_names import short_name, short_names
from bench.statistics import paired_accuracy_difference
from bench.store.record_parts import is_of_part, parts_of, scored, whole_of
from bench.store.records import DISTURBED, Record
from reports.columns import CHANGE, COLUMNS, DERIVED, DERIVED_OF_PARTS, OF, Column, column_key
from reports.own_time import Side, Split, split_of


class Cell(NamedTuple):
    """A number in the metric's own unit, or None with the reason in `note`."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    provenance: str = "unavailable"
    note: str = ""


#: Why a baseline has no comparison with itself.
OF_BASELINE = "this is the baseline"
#: Why a method has no share of own operators.
OF_OTHER_NETWORK = "the other side is another network, whose modules are not these"
OF_REPLACED = (
    "the method works inside modules that replace the network's, where times per module cannot tell the two apart"
)
#: Letters of a name in titles and cells; the page of a case has the whole.
MOST_LETTERS = 120
_COMPARED = tuple(column.key for column in DERIVED)


@dataclass
class Row:
    """A case on a machine as the pages show it; `rank` and `group` are filled in by `reports.standing`.

    Attributes:
        record: as it was read.
        case: the record's.
        side: the case that it is compared with, itself for a baseline.
        status: of the record.
        reason: why it failed.
        cells: by `column_key`.
        page: where its page is.
        whole: the part that is one run of its workload.
        parts: the further parts, in order.
        shown: the method with its setting, long lists cut where no other row would look alike.
        of_models: its suite compares models and knows no methods, so that the model is what it is called by.
        is_other_side: another row is compared with it.
        conditions: filled in by `reports.groups.conditions_of`.
    """

    record: Record
    case: Case
    side: Case
    status: str
    reason: str
    cells: dict[str, Cell]
    page: str
    whole: str = ""
    parts: tuple[str, ...] = ()
    of_models: bool = False
    is_other_side: bool = False
    group: int = 0
    rank: dict[str, tuple[int, int]] = field(default_factory=dict)
    pareto: str = ""
    pareto_note: str = ""
    contaminated: str = ""
    shown: str = ""
    conditions: tuple[Any, ...] = field(default=(), init=False, repr=False, compare=False)

    @property
    def case_key(self) -> str:
        """The key of the case; the same on every machine."""
        return str(self.record["case_key"])

    @property
    def machine_key(self) -> str:
        """The key of the machine that the case ran on."""
        return str(self.record["machine_key"])

    @cached_property
    def model(self) -> str:
        """The model with its settings, no longer than a title or a cell has room for."""
        return shortened(self.case.model_label, MOST_LETTERS)

    @property
    def by_model(self) -> bool:
        """Whether the row is called by its model: it has no method, and none is what it is compared by."""
        return self.case.method == BASELINE_METHOD and (self.of_models or bool(self.case.against))

    @cached_property
    def apart(self) -> str:
        """In which conditions the row differs from the side that it is compared with: `onnxruntime`, `bf16`."""
        return " · ".join(
            BY_NAME[name].show(getattr(self.case, name))
            for name in CROSSABLE
            if BY_NAME[name].condition and getattr(self.case, name) != getattr(self.side, name)
        )

    @cached_property
    def head(self) -> str:
        """What distinguishes the row from those with the same other side: its method and setting, or the model."""
        own = self.model if self.by_model else self.shown or shortened(self.case.method_label, MOST_LETTERS)
        return " · ".join(filter(None, [own, self.apart]))

    @property
    def head_in_full(self) -> str:
        """The same with every entry of a long setting."""
        own = self.case.model_label if self.by_model else self.case.method_label
        return " · ".join(filter(None, [own, self.apart]))

    @property
    def name_in_full(self) -> str:
        """Model and method with every entry, by their short names, a comma between: as tables in pages have it."""
        own = short_name(self.head_in_full)
        return own if self.by_model else f"{short_name(self.case.model_label)}, {own}"

    @cached_property
    def name(self) -> str:
        """Model and method with setting in one line, and the conditions in which it differs from its other side."""
        return self.head if self.by_model else f"{self.model} · {self.head}"

    @cached_property
    def against(self) -> str:
        """The named other side in words; empty for a baseline and where it is the same model without a method."""
        return shortened(self.case.against_label, MOST_LETTERS) if self.case.against else ""

    @cached_property
    def family(self) -> str:
        """What shares a colour: a method, or a model where the row is called by it."""
        own = shortened(self.case.model if self.by_model else self.case.method, MOST_LETTERS)
        return " · ".join(filter(None, [own, self.apart]))

    @property
    def legend(self) -> str:
        """The family as a legend says it."""
        if self.family == BASELINE_METHOD:
            return "baseline"
        return f"{self.family} (baseline)" if self.is_other_side else self.family

    @property
    def disturbed(self) -> bool:
        """Whether other work disturbed it: its ratios stand, its ranks are withheld."""
        return self.status == DISTURBED or (self.status == "ok" and bool(self.contaminated))

    @property
    def state(self) -> str:
        """How the row ended, in the word that every page uses: `disturbed` for a record that says `contaminated`."""
        return "disturbed" if self.disturbed else self.status

    @property
    def ranked(self) -> bool:
        """Whether the row may take part in a ranking."""
        return self.status == "ok" and not self.contaminated

    def value(self, metric: str, part: str = "") -> float | None:
        """The value of a metric of the whole run, the subject or a further part; None where there is none."""
        cell = self.cells.get(column_key(metric, part) if part else metric)
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
    names = short_names(row.case.method_label for row in rows)
    with_methods = {row.case.suite for row in rows if row.case.method != BASELINE_METHOD}
    others = {(str(row.record.get("baseline_key")), row.machine_key) for row in rows if not row.case.is_baseline}
    for row in rows:
        row.shown = shortened(names[row.case.method_label], MOST_LETTERS)
        row.of_models = row.case.suite not in with_methods
        row.is_other_side = (row.case_key, row.machine_key) in others
    _compare_with_baselines(rows)
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[Any, ...]:
    """Rows of one other side together, that side first."""
    return row.side.model, not row.case.is_baseline, row.case.model, row.case.method_label, row.page


def columns_of(rows: Iterable[Row]) -> list[Column]:
    """The columns that have at least one value or one reason in `rows`, the whole run's first, then those of parts."""
    listed = list(rows)
    present = set[str]().union(*(row.cells for row in listed))
    parts = list(dict.fromkeys(part for row in listed for part in row.parts))
    every = (*COLUMNS, *(base.of(part) for base in COLUMNS for part in parts))
    return [column for column in every if column.key in present]


def page_name(record: Record) -> str:
    """Where the page of a record is, relative to the site; only letters that are safe in a file name and an address."""
    return f"cases/{_slug(record['case_key'])}.{_slug(record['machine_key'])}.html"


def _slug(text: Any) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "_" for letter in str(text))


def _row(record: Record) -> Row:
    whole, case = whole_of(record), Case.from_dict(record["case"])
    return Row(
        record=record,
        case=case,
        side=case.baseline,
        whole=whole,
        parts=tuple(parts_of(record)),
        status=str(record["status"]),
        reason=_reason(record),
        cells=_cells(record, whole),
        page=page_name(record),
        contaminated=_contamination(record),
    )


def _cells(record: Record, whole: str) -> dict[str, Cell]:
    """The record's readings by metric and part.

    Raises:
        ValueError: the record has two of one metric and part, so that neither can be taken for the value.
    """
    cells: dict[str, Cell] = {}
    for item in record["readings"]:
        if item["metric"] not in METRICS:
            continue
        key = column_key(item["metric"], "" if is_of_part(item, None, whole) else item["part"])
        if key in cells:
            raise ValueError(f"two readings of {key}")
        note = str(item.get("method_note") or "")
        cells[key] = Cell(
            item.get("value"), item.get("ci_low"), item.get("ci_high"), item.get("n"), item["provenance"], note
        )
    return cells


def _keeps_from_ranking(flag: dict[str, Any]) -> bool:
    return flag.get("severity") == "invalid" or flag.get("code") in DISTURBANCES


def _reason(record: Record) -> str:
    """Why a row ended as it did; of a disturbed one what disturbed it, without the phase and the kind of a failure."""
    error = record.get("error")
    if record["status"] == DISTURBED and error:
        return str(error.get("message") or "")
    return error_text(error) or ""


def _contamination(record: Record) -> str:
    """Why a row that finished may not be ranked: its contamination or an invalidating flag; else nothing."""
    weighty = [each for each in record.get("flags") or [] if _keeps_from_ranking(each)]
    flags = [str(each.get("text", "")) for each in weighty]
    if record["status"] == DISTURBED:
        return "; ".join(flags) or "the host was disturbed while this was measured"
    return "; ".join(flags)


def _compare_with_baselines(rows: list[Row]) -> None:
    baselines = {(row.case_key, row.machine_key): row for row in rows if row.case.is_baseline}
    sides: dict[str, Side] = {}
    for row in rows:
        base = baselines.get((str(row.record.get("baseline_key")), row.machine_key))
        if row.status not in ("ok", DISTURBED):  # of disturbed rows the ratios stand: both sides were timed in turns
            continue
        if row.case.is_baseline:
            row.cells |= {name: Cell(None, note=OF_BASELINE) for name in ("speedup", *_COMPARED)}
            continue
        for part in ("", *row.parts):
            row.cells[column_key("mac_ratio", part)] = _mac_ratio(base, row, part)
            row.cells[column_key("realised_gain", part)] = _share(row, part, shares.realised_gain)
            row.cells[column_key("arrived_share", part)] = _share(row, part, shares.arrived_share)
        if row.status == "ok":
            row.cells["own_share"] = _own_share(base, row, sides)
        row.cells["size_ratio"] = _ratio(base, row, "size_bytes")
        row.cells["bits_ratio"] = _bits_ratio(base, row)
        row.cells |= {f"{name}{CHANGE}": _score_change(base, row, name) for name in RULES if name in row.cells}


def _mac_ratio(base: Row | None, row: Row, part: str) -> Cell:
    """The promised ratio; none where either count is a lower bound."""
    for side in (base, row):
        bound = "" if side is None else partly_counted(side.record)
        if side is not None and bound:
            return Cell(None, note=f"the products of {side.name} are a lower bound ({bound}): they have no ratio")
    return _ratio(base, row, column_key("macs", part))


def _ratio(base: Row | None, row: Row, key: str) -> Cell:
    over, under = (base.value(key) if base else None), row.value(key)
    if over is None or not under:
        return Cell(None, note=f"the {key.replace(OF, ' of ')} of the baseline or of this case are missing")
    if not over:  # a part in which the other side does nothing, as a ranking model's decode
        return Cell(None, note=f"the {key.replace(OF, ' of ')} of the baseline are 0: there is no ratio to them")
    return Cell(over / under, provenance=row.cells[key].provenance)


def _bits_ratio(base: Row | None, row: Row) -> Cell:
    stored, nominal = (base.value("effective_bits") if base else None), row.value("nominal_bits")
    if stored is None or not nominal:
        return Cell(None, note="the case declares no nominal bits, or the baseline's stored ones are missing")
    return Cell(stored / nominal, provenance="counted")


def _share(row: Row, part: str, share: Callable[[float, float | None, float | None, float], shares.Share]) -> Cell:
    """One of the two views of how much of a saving arrives; a row whose time is not its own has none."""
    speedup, promised = row.cells.get(column_key("speedup", part)), row.cells[column_key("mac_ratio", part)]
    execution = str(label_of(row.record, "execution"))
    if execution in NO_SPEED:
        return Cell(None, note=NO_SPEED[execution])
    if speedup is None or speedup.value is None:
        return Cell(None, note=(speedup.note if speedup else "") or "no speed-up was measured")
    if promised.value is None:
        return Cell(None, note=promised.note)
    found = share(speedup.value, speedup.low, speedup.high, promised.value)
    if found.value is None:
        return Cell(None, note=found.reason)
    return Cell(found.value, found.low, found.high, speedup.n, speedup.provenance)


def _own_share(base: Row | None, row: Row, sides: dict[str, Side]) -> Cell:
    """The part of the layers' time that the method's own modules take; `sides` keeps the layers of baselines."""
    if base is None:
        return Cell(None, note="the baseline is not among the records")
    if not same_network(base, row):
        return Cell(None, note=OF_OTHER_NETWORK)
    if base.page not in sides:
        sides[base.page] = Side.of(base.record)
    found = split_of(Side.of(row.record), sides[base.page])
    if isinstance(found, str):
        return Cell(None, note=found)
    if found.replaced_ms:
        return Cell(None, note=OF_REPLACED)
    low, high = (None if end is None else 100 * end / found.ms for end in (found.own_low_ms, found.own_high_ms))
    return Cell(100 * found.own_share, low, high, provenance="measured", note=_of_own_modules(found))


def _of_own_modules(found: Split) -> str:
    return f"{found.own_modules} module{'' if found.own_modules == 1 else 's'}, {found.own_ms:.3g} of {found.ms:.3g} ms"


def same_network(base: Row, row: Row) -> bool:
    """Whether both sides are one model, so that modules of one path are the same module."""
    return (base.case.model, base.case.model_settings) == (row.case.model, row.case.model_settings)


def part_of_record(row: Row, part: str) -> Record:
    """The record of the whole run, or as if one of its parts were the whole."""
    return as_part(row.record, part) if part else row.record


def as_row_of(row: Row, part: str) -> Row:
    """The row as if a further part were its whole run: the subject's own (size, score) stays, the rest is its."""
    own = {key.partition(OF)[0]: cell for key, cell in row.cells.items() if key.partition(OF)[2] == part}
    kept = {key: cell for key, cell in row.cells.items() if OF not in key and not _is_per_part(key)}
    return replace(row, record=part_of_record(row, part), cells={**kept, **own}, whole=part, parts=())


def _is_per_part(key: str) -> bool:
    """Whether a column is of a run, so that a part without it has none."""
    return METRICS[key].per_part if key in METRICS else key in DERIVED_OF_PARTS


def _score_change(base: Row | None, row: Row, metric: str) -> Cell:
    """The score less the baseline's, paired by sample where both answered the same ones."""
    before, after = (base.cells.get(metric) if base else None), row.cells.get(metric)
    if base is None or before is None or after is None or before.value is None or after.value is None:
        return Cell(None, note=f"the {METRICS[metric].title.lower()} of the baseline or of this case is missing")
    noun = "images" if row.case.resolution is not None else "samples"
    one, two = (scored(each.record, metric) or {} for each in (base, row))
    if RULES[metric].kind == "proportion" and paired_samples(one, two):
        return _won_and_lost(one, two, after.provenance, noun)
    found = change(metric, one, two) if one and two else None
    if found is None or found.pairing == "unpaired":
        note = f"no interval: the two were not scored on the same {noun}"
        return Cell(after.value - before.value, provenance=after.provenance, note=note)
    p = "" if found.p is None else f", p = {found.p:.2g}"
    return Cell(found.value, found.low, found.high, after.n, after.provenance, f"{found.pairing}{p}")


def _won_and_lost(one: dict[str, Any], two: dict[str, Any], provenance: str, noun: str) -> Cell:
    """The change of a share of right answers, with what was lost and won."""
    answers = [[mark == "1" for mark in part["per_sample"]] for part in (one, two)]
    found = paired_accuracy_difference(answers[0], answers[1])
    note = f"{found.only_first} {noun} lost and {found.only_second} won of {found.n}, McNemar's exact p = {found.p:.2g}"
    return Cell(found.value, found.low, found.high, found.n, provenance, note)
