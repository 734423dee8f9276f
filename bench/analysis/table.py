"""One tidy pandas table of everything that was measured: one row per reading, from any number of results folders.

The columns are `bench.reading.COLUMNS` in that order, followed by `CONDITIONS`: the case fields and the session that
decide whether two rows may be compared, and the ends of that session's noise floor, inside which they may not be told
apart. Missing values are missing (`pandas.isna`), never a number; the reason stands in `method_note` or `error`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import workloads
from bench.canonical import settings_text
from bench.config import axes
from bench.labels import LABELS, label_of
from bench.metrics import METRICS
from bench.plan.case import Case
from bench.reading import COLUMNS, PROVENANCES
from bench.store.outline import outline_of
from bench.store.record_parts import whole_of
from bench.store.records import CorruptRecord, Record, Store, check, read_json, without_superseded

#: Axes of a case that are columns; digests of source and the protocol, which has a column of its own, are none.
_FROM_CASE = axes.names(lambda axis: axis.name not in ("protocol", "subject_digest", "against_digest"))
#: Further columns, after `COLUMNS`: the other axes, the case that the row is compared with, the part that is one run of
#: the workload, the labels of how it ran, and the session that decides whether two rows may stand side by side and be
#: told apart.
CONDITIONS: tuple[str, ...] = (
    *(name for name in _FROM_CASE if name not in COLUMNS),
    "conditions",
    "whole",
    *LABELS,
    "session",
    "noise_floor_low",
    "noise_floor_high",
)

_FROM_READING = ("metric", "part", "value", "unit", "ci_low", "ci_high", "n", "statistic", "provenance", "method_note")
_FLOATS = ("value", "ci_low", "ci_high", "noise_floor_low", "noise_floor_high")
_INTEGERS = ("n", *axes.names(lambda axis: axis.kind == "integer"))
_BOOLEANS = axes.names(lambda axis: axis.kind == "flag")


@dataclass
class Loaded:
    """Records that were read, each once, and what could not be read."""

    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """The tidy table of one or several results folders, as a union; `df.attrs["problems"]` lists unreadable records.

    Args:
        paths: results folders, folders of record files, or single record files.
    """
    loaded = read_records(paths, whole=False)
    frame = from_records(loaded.records)
    frame.attrs["problems"] = loaded.problems + frame.attrs["problems"]
    return frame


def read_records(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, whole: bool = True) -> Loaded:
    """Every readable record of the folders once: the same content twice is one, a superseded record is left out.

    A record and its copy without personal parts are one.

    Args:
        paths: results folders, folders of record files, or single record files.
        whole: False leaves out their long parts (`bench.store.outline`), which are most of the time and memory.
    """
    loaded = Loaded()
    seen: dict[str, Record] = {}
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        for record in _records_at(Path(path), whole, loaded.problems):
            seen.setdefault(record.get("redacted_from") or record["content_hash"], record)
    loaded.records = without_superseded(seen.values())
    return loaded


def from_records(records: Iterable[Record]) -> pd.DataFrame:
    """The tidy table of records, one row per reading; a failed case without readings has a row with its reason."""
    problems: list[str] = []
    heads: list[dict[str, Any]] = []
    counts: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in _FROM_READING}
    for record in records:
        try:
            head, readings = _head(record), _readings(record, problems)
            rows = [
                tuple(item.get(name) if name != "part" else item.get(name, "") for name in _FROM_READING)
                for item in readings
            ]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            problems.append(f"record {_name(record)}: left out, a part is missing or malformed ({error!r})")
            continue
        heads.append(head)
        counts.append(len(rows))
        for name, values in zip(_FROM_READING, zip(*rows, strict=True), strict=True):
            columns[name].extend(values)
    frame = _assemble(heads, counts, columns)
    frame.attrs["problems"] = problems
    return frame


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the latest record of every case on every machine: for pages that show a case once."""
    if frame.empty:
        return frame
    latest = frame.groupby(["case_key", "machine_key"])["started_at"].transform("max")
    return frame[frame["started_at"] == latest]


def metric(frame: pd.DataFrame, name: str, part: str | None = None) -> pd.DataFrame:
    """The rows of one metric and part that have a value; without a part those of the whole run or of the subject."""
    return frame[(frame["metric"] == name) & frame["value"].notna() & of_part(frame, part)]


def of_part(frame: pd.DataFrame, part: str | None = None) -> pd.Series:
    """Which rows are of this part; `None` is the whole run, or the subject for what has no parts.

    A frame without the columns is of one part alone.
    """
    if "part" not in frame.columns:
        return pd.Series(True, index=frame.index)
    if part is not None:
        return frame["part"] == part
    whole = frame["whole"] if "whole" in frame.columns else workloads.FORWARD
    return (frame["part"].fillna("") == "") | (frame["part"] == whole)


def _records_at(path: Path, whole: bool, problems: list[str]) -> Iterable[Record]:
    """The readable records of a results folder, a folder of records or one file, or their outlines."""
    if path.is_file():
        try:
            record = check(read_json(path), str(path))
            return [record if whole else outline_of(record)]
        except CorruptRecord as error:
            problems.append(str(error))
            return []
    if (path / "records").is_dir():
        return _of_store(Store(path), whole, problems)
    if path.is_dir() and any(path.glob("*.json")):
        return _of_store(Store(path, records=path), whole, problems)
    problems.append(f"{path}: no records here; give a results folder (it has a folder named records)")
    return []


def _of_store(store: Store, whole: bool, problems: list[str]) -> Iterable[Record]:
    return store.every(problems) if whole else store.outlines(problems)


def _head(record: Record) -> dict[str, Any]:
    """The columns that all readings of a record share."""
    case, error = record["case"], record.get("error")
    head = {name: case.get(name) for name in _FROM_CASE}
    head["conditions"], head["whole"] = _conditions(case), whole_of(record)
    head |= {label: label_of(record, label) for label in LABELS}
    code, timing = record.get("code") or {}, record.get("timing") or {}
    floor = timing.get("noise_floor") or {}
    head |= {
        "case_key": record["case_key"],
        "baseline_key": record["baseline_key"],
        "machine_key": record["machine_key"],
        "status": record["status"],
        "error": error_text(error),
        "protocol": (record.get("protocol") or {}).get("hash"),
        "code_version": code.get("version"),
        "started_at": record["started_at"],
        "session": timing.get("session"),
        "noise_floor_low": floor.get("low"),
        "noise_floor_high": floor.get("high"),
    }
    return head


def _conditions(case: dict[str, Any]) -> str:
    """In what rows must be equal to be ranked together: the conditions of the side that this case is compared with."""
    baseline = Case.from_dict(case).baseline
    return settings_text({name: getattr(baseline, name) for name in axes.CONDITIONS})


def error_text(error: dict[str, Any] | None) -> str | None:
    """The error of a record in one line: phase, type and message."""
    if not error:
        return None
    parts = [error.get("phase"), error.get("type"), error.get("message")]
    return ": ".join(str(part) for part in parts if part) or None


def _readings(record: Record, problems: list[str]) -> list[dict[str, Any]]:
    """The record's readings with a known metric and provenance, or the one row that says that there are none."""
    kept = []
    for item in record["readings"]:
        if item["metric"] in METRICS and item["provenance"] in PROVENANCES:
            kept.append(item)
        else:
            name = f"{item['metric']!r} ({item['provenance']!r})"
            problems.append(f"record {_name(record)}: reading {name} is not of a known metric and provenance, left out")
    if kept:
        return kept
    note = f"the case ended as {record['status']}: {error_text(record.get('error')) or 'no readings were taken'}"
    return [
        {
            "metric": "latency_ms",
            "unit": METRICS["latency_ms"].unit,
            "provenance": "unavailable",
            "statistic": "",
            "method_note": note,
        }
    ]


def _name(record: Any) -> str:
    return str(record.get("record_key") or record.get("case_key")) if isinstance(record, dict) else repr(record)[:40]


def _assemble(heads: list[dict[str, Any]], counts: list[int], columns: dict[str, list[Any]]) -> pd.DataFrame:
    """The table: the shared columns are made once per record and repeated, which keeps 10 000 records fast."""
    repeat = np.repeat(np.arange(len(heads)), counts)
    series: dict[str, Any] = {}
    for name in (*COLUMNS, *CONDITIONS):
        if name in columns:
            series[name] = _typed(name, columns[name])
        else:
            series[name] = _typed(name, [head[name] for head in heads]).take(repeat).reset_index(drop=True)
    return pd.DataFrame(series)


def _typed(name: str, values: list[Any]) -> pd.Series:
    if name in _FLOATS:
        return pd.Series([np.nan if value is None else value for value in values], dtype="float64", name=name)
    if name in _INTEGERS:
        return pd.Series([pd.NA if value is None else value for value in values], dtype="Int64", name=name)
    if name in _BOOLEANS:
        return pd.Series([pd.NA if value is None else value for value in values], dtype="boolean", name=name)
    return pd.Series(values, dtype="str", name=name)
