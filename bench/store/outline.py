"""What of a record is kept beside it: a head to find it by, and an outline without its long parts for tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

#: Parts of a record that an outline has as they are; of `error`, `protocol`, `quality` and `timing` it has the rest.
KEPT = (
    "schema", "record_key", "case_key", "group_key", "baseline_key", "machine_key", "content_hash", "redacted_from",
    "supersedes", "case", "status", "flags", "started_at", "finished_at", "code", "readings", "labels",
)  # fmt: skip
#: What grows with the processes, samples or lines behind a row.
LONG = {"error": ("log_tail",), "protocol": ("parameters",), "quality": ("per_sample",), "timing": ("invocations",)}


@dataclass(frozen=True, slots=True)
class Head:
    """What a record is found by, and what says whether it counts.

    Attributes:
        case_key, machine_key: of which case and machine it is.
        content_hash, redacted_from, supersedes: what it is, was before personal parts were taken out, and replaces.
        status: how the case ended.
        started_at: when it was measured.
        suite, workload, model: of the case.
        timed: whether processes timed it.
        file_digest: of the bytes of its file (`bench.store.index.file_digest`).
    """

    case_key: str
    machine_key: str
    content_hash: str
    redacted_from: str | None
    supersedes: str | None
    status: str
    started_at: str
    suite: str
    workload: str
    model: str
    timed: bool
    file_digest: str

    @classmethod
    def of(cls, record: Record, file_digest: str) -> Head:
        """The head of a record that was checked."""
        case = record["case"]
        return cls(
            record["case_key"],
            sys.intern(record["machine_key"]),
            record["content_hash"],
            record.get("redacted_from"),
            record.get("supersedes"),
            sys.intern(record["status"]),
            record["started_at"],
            sys.intern(case["suite"]),
            sys.intern(case.get("workload", "")),
            sys.intern(case["model"]),
            bool((record.get("timing") or {}).get("invocations")),
            file_digest,
        )

    @classmethod
    def from_list(cls, values: list[Any]) -> Head:
        """The head that `as_list` wrote."""
        made = cls(*values)
        for name in (
            "machine_key",
            "status",
            "suite",
            "workload",
            "model",
        ):  # a few texts stand in all of a folder's heads
            object.__setattr__(made, name, sys.intern(getattr(made, name)))
        return made

    def as_list(self) -> list[Any]:
        """Plain JSON data."""
        return [getattr(self, name) for name in self.__slots__]

    @property
    def record_key(self) -> str:
        """The record's name: its case and machine."""
        return f"{self.case_key}.{self.machine_key}"

    @property
    def identities(self) -> set[str]:
        """The content hashes that it goes by."""
        return {name for name in (self.content_hash, self.redacted_from) if name}

    def brief(self) -> Record:
        """The same as parts of a record, for who only asks whether the row counts; `invocations` is true or false."""
        return {
            "record_key": self.record_key,
            "content_hash": self.content_hash,
            "status": self.status,
            "case": {"suite": self.suite, "workload": self.workload},
            "timing": {"invocations": self.timed},
        }


def outline_of(record: Record) -> Record:
    """The record without its long parts: what tables of readings and a sweep's closing words are made from."""
    kept = {name: record[name] for name in KEPT if name in record}
    return {**kept, **{name: _shortened(record[name], LONG[name]) for name in LONG if name in record}}


def _shortened(part: Any, long: Iterable[str]) -> Any:
    """A part without its long fields, in it and in the objects of its lists."""
    if isinstance(part, dict):
        return {
            name: [_shortened(item, long) for item in value] if isinstance(value, list) else value
            for name, value in part.items()
            if name not in long
        }
    return part
