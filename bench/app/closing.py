"""How a sweep ends on a terminal: its rows in a table; what was disturbed or failed, and how to measure that again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.foreign_text import escape_controls, shortened
from bench.metrics import METRICS
from bench.plan.estimate import in_words
from bench.store.record_parts import score_of
from bench.store.records import DISTURBED, Record

if TYPE_CHECKING:
    from reports.rows import Row

#: Rows of the table; a larger sweep is read on its page.
MOST_ROWS = 40
#: Columns where no terminal gives a width.
WIDTH = 140
#: Metrics of a model that nothing is compared with.
_ALONE = ("latency_ms", "macs", "params", "peak_memory_bytes")
_COMPARED = ("latency_ms", "speedup", "mac_ratio")
_TITLES = {"speedup": "speed-up", "mac_ratio": "promised", "latency_ms": "latency", "peak_memory_bytes": "memory"}


def in_order_of(keys: Iterable[str], records: Iterable[Record]) -> list[Record]:
    """Records in the order of their cases' `keys`, in which a reader wrote the cases down; others behind them."""
    places = {key: place for place, key in enumerate(keys)}
    return sorted(records, key=lambda record: places.get(str(record["case_key"]), len(places)))


def show_rows(records: Sequence[Record]) -> None:
    """Print what a sweep measured: one line a row, those that were compared with their speed-up and its promise."""
    from reports.rows import rows_of

    rows = _by_side(rows_of(records, []))
    if not rows:
        return
    varying = _varying(rows)
    compared = any(row.value("speedup") is not None for row in rows)
    metrics = [name for name in (_COMPARED if compared else _ALONE) if any(row.value(name) is not None for row in rows)]
    scored = any(_score(row) for row in rows)
    table = Table("row", box=SIMPLE_HEAD)
    for title in (*map(_title, metrics), *(["quality"] if scored else [])):
        table.add_column(title, justify="right")
    table.add_column("state")
    side = None
    for row in rows[:MOST_ROWS]:
        if side is not None and row.side.key != side:
            table.add_section()
        side = row.side.key
        cells = [
            _name(row, varying),
            *(_value(row, name) for name in metrics),
            *([_score(row)] if scored else []),
            _state(row),
        ]
        table.add_row(*(escape(escape_controls(cell)) for cell in cells))
    Console(width=None if Console().is_terminal else WIDTH).print(table)
    if len(rows) > MOST_ROWS:
        print(f"and {len(rows) - MOST_ROWS} more rows, on the page")


def _title(metric: str) -> str:
    return _TITLES[metric] if metric in _TITLES else METRICS[metric].title


def _by_side(rows: Sequence[Row]) -> list[Row]:
    """Rows that are compared with one side together, that side first; sides in the order of their first row."""
    sides = {row.side.key: place for place, row in reversed(list(enumerate(rows)))}
    return sorted(rows, key=lambda row: (sides[row.side.key], row.case.key != row.side.key))


def _varying(rows: Sequence[Row]) -> set[str]:
    """The axes of the shape in which rows differ."""
    shapes = [row.case.full_shape for row in rows]
    return {name for shape in shapes for name in shape if len({str(each.get(name)) for each in shapes}) > 1}


def _name(row: Row, varying: set[str]) -> str:
    """The row's name, with what of its shape is not the same in every row."""
    own = {name: value for name, value in row.case.full_shape.items() if name in varying and name != "batch"}
    told = {name: value for name, value in own.items() if value is not None}
    conditions = [f"{value}px" if name == "resolution" else f"{name} {value}" for name, value in told.items()]
    return shortened(" · ".join([row.name, *conditions, f"batch {row.case.batch}"]), 78)


def _value(row: Row, metric: str) -> str:
    from reports.numbers import quantity

    cell = row.cells.get(metric)
    if cell is None or cell.value is None:
        return ""
    unit = "x" if metric == "mac_ratio" else METRICS[metric].unit
    return quantity(cell.value, unit, cell.low, cell.high)


def _score(row: Row) -> str:
    from reports.numbers import quantity

    found = score_of(row.record)
    if found is None or found["value"] is None:
        return ""
    return quantity(found["value"], found["unit"], found.get("ci_low"), found.get("ci_high"))


def _state(row: Row) -> str:
    return "disturbed" if row.status == DISTURBED else row.status


def state_text(records: Iterable[Record], again: Mapping[str, float] | None = None) -> str:
    """How many rows are well, disturbed and failed, and what measures those again with about the time that it takes.

    Args:
        records: of the sweep.
        again: seconds that measuring the rows again takes, by `disturbed` and `failed`; left out where it is not known.
    """
    kinds = Counter(_kind(record) for record in records)
    said = [f"{kinds['ok']} ok"]
    for kind, why in (("disturbed", " by other work"), ("failed", "")):
        if kinds[kind]:
            time = (again or {}).get(kind, 0.0)
            about = f", about {in_words(time)}" if time > 0 else ""
            said.append(f"{kinds[kind]} {kind}{why} (retry={kind} measures {_them(kinds[kind])} again{about})")
    if kinds["interrupted"]:
        said.append(f"{kinds['interrupted']} interrupted (the same command measures {_them(kinds['interrupted'])})")
    return "; ".join(said)


def _them(count: int) -> str:
    return "it" if count == 1 else "them"


def _kind(record: Record) -> str:
    return {"ok": "ok", DISTURBED: "disturbed", "interrupted": "interrupted"}.get(str(record["status"]), "failed")


def seconds_again(
    records: Iterable[Record], group_of: Mapping[str, str], seconds: Mapping[str, float]
) -> dict[str, float]:
    """Estimated seconds of measuring the disturbed and the failed rows again, whole groups at a time.

    Args:
        records: of the sweep.
        group_of: group key by case key.
        seconds: of measuring a group, by its key.
    """
    groups: dict[str, set[str]] = {"disturbed": set(), "failed": set()}
    for record in records:
        kind, group = _kind(record), group_of.get(record["case_key"])
        if kind in groups and group is not None:
            groups[kind].add(group)
    return {kind: sum(seconds.get(key, 0.0) for key in keys) for kind, keys in groups.items()}
