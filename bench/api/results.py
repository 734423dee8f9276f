"""Tables that read: what was asked, each value with its interval and unit, and everything that is known behind it."""

from __future__ import annotations

import html
import shutil
from collections.abc import Sequence
from typing import Any

import pandas

from bench.analysis import batch_curve
from bench.analysis.table import of_part
from bench.api.drawn import as_read
from bench.metrics import METRICS

#: Columns of a table of results.
COLUMNS = ("metric", "value", "low", "high", "unit", "provenance", "note")
#: Signs of a line of text at least; a longer note is cut there, and whole in the table's column and in a notebook.
MOST_WIDE = 120
#: Columns of the long table that stand first where its rows differ in them.
_TOLD_APART = ("model", "method", "part")
#: Said of the best of several batches or numbers of instances.
_FEWEST = "the smallest that cannot be told from the fastest"


class Table(pandas.DataFrame):
    """A table that people read in a notebook or a terminal; what is selected of it is a plain `DataFrame`."""

    @property
    def _constructor(self) -> Any:
        return pandas.DataFrame

    def shown(self) -> pandas.DataFrame:
        """The table as text: a value with its interval and unit in one cell."""
        raise NotImplementedError

    def remarks(self) -> Sequence[str]:
        """What a reader has to know of all of it, a line each."""
        return []

    def _repr_html_(self) -> str:
        shown = self.shown()
        head = "".join(f"<th style='text-align:left'>{html.escape(str(name))}</th>" for name in shown.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
            for row in shown.itertuples(index=False, name=None)
        )
        below = "".join(f"<div>{html.escape(line)}</div>" for line in self.remarks())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{below}"

    def __repr__(self) -> str:
        shown = self.shown()
        widths = [max([len(str(name)), *map(len, map(str, shown[name]))]) for name in shown.columns]
        lines = [list(shown.columns), *shown.itertuples(index=False, name=None)]
        text = [
            "  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        most = max(MOST_WIDE, shutil.get_terminal_size((MOST_WIDE, 24)).columns)
        cut = [line if len(line) <= most else f"{line[: most - 1]}…" for line in text]
        return "\n".join([*cut, *self.remarks()])


class Results(Table):
    """What `bench.measure` found, one row per metric and part.

    Attributes:
        long: the whole tidy table behind it (`bench.reading.COLUMNS`), with conditions, keys and statistics.
    """

    _metadata = ["long"]  # noqa: RUF012 - pandas' own way to keep an attribute
    long: pandas.DataFrame

    @classmethod
    def of(cls, long: pandas.DataFrame) -> Results:
        """The narrow table of a tidy one."""
        names = {"ci_low": "low", "ci_high": "high", "method_note": "note"}
        narrow = long.rename(columns=names).assign(part=long["part"].mask(of_part(long), ""))
        apart = [name for name in _TOLD_APART if narrow[name].nunique(dropna=False) > 1]
        made = cls(narrow[[*apart, *COLUMNS]])
        made.long = long
        made.attrs = dict(long.attrs)
        return made

    def shown(self) -> pandas.DataFrame:
        """The table as text: what was asked, the value with its interval, where it comes from, why it is missing."""
        rows = []
        for row in self.to_dict("records"):
            cells = {name: row[name] for name in _TOLD_APART if name in row}
            rows.append({
                **cells,
                "metric": METRICS[row["metric"]].title,
                "value": as_read(row["value"], row["unit"], row["low"], row["high"]),
                "from": row["provenance"],
                "note": "" if pandas.isna(row["note"]) else row["note"],
            })  # fmt: skip
        return pandas.DataFrame(rows)

    def remarks(self) -> list[str]:
        """The flags of what was measured."""
        return list(dict.fromkeys(f"{flag['severity']}: {flag['text']}" for flag in self.attrs.get("flags", [])))


class Layers(Table):
    """What `bench.layers` found: one row per layer, in the order in which they run."""

    def shown(self) -> pandas.DataFrame:
        """The table as text: of the columns those that say where operations, bytes and time are."""
        rows = [
            {
                "layer": row["module_path"],
                "kind": row["op"],
                "MACs": as_read(row["macs"], METRICS["macs"].unit),
                "moved": as_read(_sum(row["read_bytes"], row["write_bytes"]), "B"),
                "time": as_read(row["time_ms"], "ms", row["time_low_ms"], row["time_high_ms"]),
                "share": as_read(_sum(row["share"], times=100.0), "%"),
            }
            for row in self.to_dict("records")
        ]
        return pandas.DataFrame(rows, columns=["layer", "kind", "MACs", "moved", "time", "share"])

    def remarks(self) -> list[str]:
        """The time of the whole, and where the other columns are."""
        whole = self.attrs.get("info", {}).get("end_to_end_ms")
        told = [] if whole is None else [f"the whole run takes {as_read(whole, 'ms')}"]
        return [*told, f"{len(self.columns)} columns in all: list(table.columns)"]


def _sum(*values: Any, times: float = 1) -> float | None:
    """The sum of these values, so many times; None where one is missing."""
    return None if any(pandas.isna(value) for value in values) else float(times * sum(values))


class Compared(Table):
    """What `bench.compare` found: one row per metric, the value of each side, their ratio and the verdict.

    Attributes:
        long: the whole tidy tables of both sides, one below the other.
    """

    _metadata = ["long"]  # noqa: RUF012 - pandas' own way to keep an attribute
    long: pandas.DataFrame

    def shown(self) -> pandas.DataFrame:
        """The table as text; a ratio above 1 says that the second side is better."""
        first, second = self.attrs["names"]
        rows = [
            {
                "metric": METRICS[row["metric"]].title + (f" of {row['part']}" if row["part"] else ""),
                first: as_read(row["a"], row["unit"]),
                second: as_read(row["b"], row["unit"]),
                "better by": as_read(row["ratio"], "x", row["low"], row["high"]),
                "verdict": row["verdict"],
                "why": row["why"],
            }
            for row in self.to_dict("records")
        ]
        return pandas.DataFrame(rows)

    def remarks(self) -> list[str]:
        """What speaks of the comparison as a whole."""
        return list(self.attrs.get("notes", []))


class Batches(Table):
    """What `bench.largest_batch` found: one row per batch that was tried; `attrs` has what follows from them."""

    def shown(self) -> pandas.DataFrame:
        """The table as text: memory, throughput and latency of each batch, and what became of it."""
        rows = [
            {
                "batch": row["batch"],
                "peak memory": as_read(row["peak_bytes"], "B"),
                "throughput": _rate(row),
                "latency": _latency(row),
                "state": row["state"],
            }
            for row in self.to_dict("records")
        ]
        return pandas.DataFrame(rows, columns=["batch", "peak memory", "throughput", "latency", "state"])

    def remarks(self) -> list[str]:
        """The answer: how memory grows, the largest batch, the best one, and from where more no longer pays."""
        found = self.attrs
        if "growth" not in found:
            return []
        memory = [as_read(size, "B") for size in (*found["growth"], found["limit_bytes"])]
        timed = int((self["state"] == "timed").sum())
        best, bend = found["best"], found["bend"]
        if bend is None:
            more = "none: the last doubling still gained a tenth" if timed > 1 else "unknown: fewer than two were timed"
        else:
            more = f"{bend}, beyond which no doubling gains a tenth"
        return [
            f"memory   {memory[0]} and {memory[1]} a sample, of {memory[2]}",
            f"largest  {found['largest']}",
            f"best     {'unknown: none was timed' if best is None else f'{best} is {_FEWEST}'}",
            f"bend     {more}",
        ]


class Instances(Table):
    """What `bench.instances` found: one row per number of instances."""

    def shown(self) -> pandas.DataFrame:
        """The table as text: throughput of all together, latency of one, and what disturbed them."""
        rows = [
            {
                "instances": row["instances"],
                "threads each": row["threads"],
                "together": _rate(row),
                "latency of one": _latency(row),
                "99th percentile": as_read(row["p99_ms"], "ms"),
                "disturbed by": row["flag"] or "",
            }
            for row in self.to_dict("records")
        ]
        names = ["instances", "threads each", "together", "latency of one", "99th percentile", "disturbed by"]
        return pandas.DataFrame(rows, columns=names)

    def remarks(self) -> list[str]:
        """The answer: the fewest instances that give all there is, and their throughput over that of the fewest."""
        rows = {row["instances"]: row for row in self.to_dict("records")}
        points = [_point(count, row) for count, row in rows.items()]
        best = batch_curve.best(points)
        if best is None:
            return []
        told = f"best     {best.batch} is {_FEWEST}"
        first = min(points, key=lambda point: point.batch)
        if best.batch == first.batch:
            return [told]
        gain, delay = (rows[best.batch][name] / rows[first.batch][name] for name in ("throughput_per_s", "latency_ms"))
        return [f"{told}: {gain:.3g} times the throughput of {first.batch}, at {delay:.3g} times its latency"]


def _rate(row: dict[str, Any]) -> str:
    return as_read(row["throughput_per_s"], "sample/s", row["throughput_low"], row["throughput_high"])


def _latency(row: dict[str, Any]) -> str:
    return as_read(row["latency_ms"], "ms", row["latency_low"], row["latency_high"])


def _point(count: int, row: dict[str, Any]) -> batch_curve.Throughput:
    low, high = (None if pandas.isna(row[f"throughput_{end}"]) else row[f"throughput_{end}"] for end in ("low", "high"))
    return batch_curve.Throughput(count, row["throughput_per_s"], low, high)
