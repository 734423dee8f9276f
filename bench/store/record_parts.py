"""The parts of a record that others compute with: one reading by name, and what its kinds alone do not say."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from bench import workloads
from bench.foreign_text import escape_controls
from bench.host.identity import machine_class
from bench.scores import DEFAULT_SCORE, RULES
from bench.store.foreign import CorruptRecord

#: What to say of a value without an interval where one is needed.
ONE_REPLICATE = "one replicate gives no interval; at least 2 are needed"


def whole_of(record: dict[str, Any]) -> str:
    """The part that is one run of the record's workload: the first with a latency, where the workload is none of ours.

    A record may come from anywhere, so a module that it names is never imported to read it.
    """
    name = str(record["case"].get("workload", workloads.FORWARD))
    if name in workloads.WORKLOADS:
        return _whole_of_ours(name)
    return next((str(row.get("part", "")) for row in record["readings"] if row["metric"] == "latency_ms"), "")


@cache
def _whole_of_ours(name: str) -> str:
    return workloads.find(name).whole


def parts_of(record: dict[str, Any]) -> list[str]:
    """The parts of the record's workload besides the whole, in the order in which they were made."""
    whole = whole_of(record)
    named = (str(row.get("part", "")) for row in record["readings"])
    return [part for part in dict.fromkeys(named) if part not in ("", whole)]


def is_of_part(row: dict[str, Any], part: str | None, whole: str) -> bool:
    """Whether a reading is of this part; `None` asks for the whole run or the subject."""
    own = row.get("part", "")
    return bool(own == part or (part is None and own in ("", whole)))


def readings_of(record: dict[str, Any], metric: str, part: str | None = None) -> list[dict[str, Any]]:
    """All readings of a metric and part, with a value or without; more than one is an error of the record."""
    whole = whole_of(record)
    return [row for row in record["readings"] if row["metric"] == metric and is_of_part(row, part, whole)]


def reading_of(record: dict[str, Any], metric: str, part: str | None = None) -> dict[str, Any] | None:
    """The reading of a metric that has a value, or `None`.

    Args:
        record: as it was read.
        metric: in the metrics table.
        part: of the workload; `None` is the whole run, or the subject for what has no parts.

    Raises:
        CorruptRecord: the record has two, so that neither can be taken for the value.
    """
    found = [row for row in readings_of(record, metric, part) if row["value"] is not None]
    if len(found) > 1:
        name = metric if part is None else f"{metric} of {part}"
        raise CorruptRecord(
            f"record {record.get('record_key', '?')}: {len(found)} readings of {name}; there can be one"
        )
    return found[0] if found else None


def score_of(record: dict[str, Any]) -> dict[str, Any] | None:
    """The reading of the metric that the record's task scores, or `None` where it has no score.

    Records of before there were other scores do not name their metric: it is `DEFAULT_SCORE`.
    """
    return reading_of(record, (record.get("quality") or {}).get("metric") or DEFAULT_SCORE)


def scored(record: dict[str, Any], metric: str) -> dict[str, Any] | None:
    """The reading of a score with its evidence (`per_sample`, `samples_digest`, `details`), or None."""
    found, quality = reading_of(record, metric), record.get("quality") or {}
    if found is None:
        return None
    parts = [quality, *quality.get("also", [])]
    own: dict[str, Any] = next((part for part in parts if (part.get("metric") or DEFAULT_SCORE) == metric), {})
    return {**own, **found}


def contradictions(record: dict[str, Any]) -> Iterable[str]:
    """What is wrong with a record whose parts are of the right kinds, beyond the kinds."""
    try:
        machine_class(record.get("environment") or {})
    except (AttributeError, TypeError, ValueError, OverflowError, KeyError) as error:
        yield f"environment describes no machine ({error})"
    if record["record_key"] != f"{record['case_key']}.{record['machine_key']}":
        yield "record_key is not case_key and machine_key"
    seen: set[tuple[str, str]] = set()
    for row in record["readings"]:
        key = (row["metric"], row.get("part", ""))
        if key in seen:
            yield (
                f"readings holds {escape_controls(key[0])[:60]} of part "
                f"{escape_controls(key[1])[:60] or 'the subject'} twice"
            )
        seen.add(key)
    quality = record.get("quality") or {}
    metric = str(quality.get("metric") or DEFAULT_SCORE)
    if metric not in RULES:
        yield f"quality.metric is {escape_controls(metric)[:60]}, which is no score"
    whole_set = metric in RULES and RULES[metric].kind == "distribution"  # one number of all samples together
    if quality.get("samples_digest") and not quality.get("per_sample") and not whole_set:
        yield "quality.per_sample is missing, though quality.samples_digest is there"
