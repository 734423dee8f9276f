"""Every curve of the records as one tidy table, never averaged.

A line per value, over its index (step, layer, input, rate).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.table import read_records
from bench.labels import LABELS, label_of
from bench.metrics import METRICS
from bench.reading import PROVENANCES
from bench.store.records import Record

_OF_CASE = (
    "suite",
    "model",
    "method",
    "setting",
    "workload",
    "device",
    "dtype",
    "batch",
    "resolution",
    "shape",
    "backend",
    "task",
)
#: Columns of the table, in order.
COLUMNS: tuple[str, ...] = (
    "case_key", *_OF_CASE, "metric", "part", "index", "position", "at", "value", "unit", "provenance", "note", *LABELS,
    "status", "protocol", "machine_key", "started_at",
)  # fmt: skip


def load(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """The curves of one or several results folders; `df.attrs["problems"]` lists what could not be read.

    Args:
        paths: results folders, folders of record files, or single record files.
    """
    found = read_records(paths)
    frame = from_records(found.records)
    frame.attrs["problems"] = found.problems + frame.attrs["problems"]
    return frame


def from_records(records: Iterable[Record]) -> pd.DataFrame:
    """The curves of records, a line per value: `position` counts from 0, `at` is its place on the index.

    Missing values are missing (`pandas.isna`), never a number.
    """
    problems: list[str] = []
    lines: list[dict[str, Any]] = []
    for record in records:
        try:
            lines += list(_lines(record, problems))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            name = record.get("record_key") if isinstance(record, dict) else repr(record)[:40]
            problems.append(f"record {name}: its curves are left out, a part is missing or malformed ({error!r})")
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    frame["value"] = pd.Series([np.nan if v is None else v for v in frame["value"]], dtype="float64")
    frame.attrs["problems"] = problems
    return frame


def _lines(record: Record, problems: list[str]) -> Iterator[dict[str, Any]]:
    case = record["case"]
    head = {
        "case_key": record["case_key"],
        **{name: case.get(name) for name in _OF_CASE},
        "status": record["status"],
        **{label: label_of(record, label) for label in LABELS},
        "protocol": (record.get("protocol") or {}).get("hash"),
        "machine_key": record["machine_key"],
        "started_at": record.get("started_at"),
    }
    for curve in record.get("curves") or []:
        if curve["metric"] not in METRICS or curve["provenance"] not in PROVENANCES:
            problems.append(
                f"record {record.get('record_key')}: a curve of {curve['metric']!r} is not of a known metric "
                "and provenance, left out"
            )
            continue
        of_curve = {name: curve.get(name, "") for name in ("metric", "part", "index", "provenance", "note")}
        unit = METRICS[curve["metric"]].unit
        for position, (at, value) in enumerate(zip(curve["at"], curve["values"], strict=True)):
            yield {**head, **of_curve, "unit": unit, "position": position, "at": at, "value": value}
