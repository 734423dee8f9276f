"""The parts of a record that others compute with: one reading by name, and whether every part is what it should be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from bench import workloads
from bench.errors import UsageError
from bench.host.identity import machine_class
from bench.scores import RULES
from bench.store.records import CorruptRecord, Record

#: Times and rates in a line of `timing.invocations`; the first two are in every line.
_TIMES = ("median_ms", "baseline_median_ms", "gemm_median_ms", "twin_median_ms", "throughput_per_s")
_ALWAYS = _TIMES[:2]
_READING = frozenset({"metric", "value", "provenance", "ci_low", "ci_high", "n"})

#: What to say of a value without an interval where one is needed.
ONE_REPLICATE = "one replicate gives no interval; at least 2 are needed"


def whole_of(record: Record) -> str:
    """The part that is one run of the record's workload; of a workload that is not installed here what the readings say."""
    name = str(record["case"].get("workload", "forward"))
    try:
        return workloads.find(name).whole
    except UsageError:
        latency = [str(row.get("part", "")) for row in record["readings"] if row["metric"] == "latency_ms"]
        return latency[0] if latency else ""


def is_of_part(row: dict[str, Any], part: str | None, whole: str) -> bool:
    """Whether a reading is of this part; `None` asks for the whole run or the subject."""
    own = row.get("part", "")
    return bool(own == part or (part is None and own in ("", whole)))


def readings_of(record: Record, metric: str, part: str | None = None) -> list[dict[str, Any]]:
    """All readings of a metric and part, with a value or without; more than one is an error of the record."""
    whole = whole_of(record)
    return [row for row in record["readings"] if row["metric"] == metric and is_of_part(row, part, whole)]


def reading_of(record: Record, metric: str, part: str | None = None) -> dict[str, Any] | None:
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


def score_of(record: Record) -> dict[str, Any] | None:
    """The reading of the metric that the record's task scores, or `None` where it has no score.

    Records of before there were other scores do not name their metric: it is the accuracy.
    """
    return reading_of(record, (record.get("quality") or {}).get("metric") or "accuracy")


def scored(record: Record, metric: str) -> dict[str, Any] | None:
    """The reading of a score with what it stands on (`per_sample`, `samples_digest`, `details`), or `None` without one."""
    found, quality = reading_of(record, metric), record.get("quality") or {}
    if found is None:
        return None
    parts = [quality, *quality.get("also", [])]
    own: dict[str, Any] = next((part for part in parts if (part.get("metric") or "accuracy") == metric), {})
    return {**own, **found}


def check_parts(record: Record, where: str) -> Record:
    """The record, whose environment, readings, timing and quality are of the kinds that statistics can take.

    Hash, schema, keys and the kinds of the readings themselves are checked by `bench.store.bundle.check_record`.

    Args:
        record: as it was read.
        where: how to name it in an error.

    Raises:
        CorruptRecord: a part is of another kind, or a time is not a positive number; the message names the field.
    """
    for check in (_plain, _environment, _readings, _timing, _quality):
        for field in check(record):
            raise CorruptRecord(f"{where}: not a record that was measured: {field}")
    return record


_Problems = Iterable[str]


def _plain(record: Record) -> _Problems:
    """What is wrong with the parts that need only be of one kind."""
    yield from _of_kind(record, "started_at", (str,))
    for name in ("timing", "quality", "code"):
        yield from _of_kind(record, name, (dict, type(None)))
    yield from _of_kind(record, "redacted_from", (str, type(None)))


def _of_kind(part: dict[str, Any], name: str, kinds: tuple[type, ...], path: str = "") -> _Problems:
    value = part.get(name)
    if not isinstance(value, kinds):
        words = {str: "a text", dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
        yield f"{path}{name} is {_shown(value)}, not {' or '.join(words[kind] for kind in kinds)}"


def _environment(record: Record) -> _Problems:
    """What is wrong with the environment: the class of the machine must follow from it."""
    yield from _of_kind(record, "environment", (dict, type(None)))
    found = record.get("environment") or {}
    yield from _of_kind(found, "private", (dict, type(None)), "environment.")
    try:
        machine_class(found)
    except (AttributeError, TypeError, ValueError, OverflowError, KeyError) as error:
        yield f"environment describes no machine ({error})"


def _readings(record: Record) -> _Problems:
    for row in record["readings"]:
        if not isinstance(row, dict) or not row.keys() >= _READING or not isinstance(row["metric"], str):
            yield f"readings holds {_shown(row)}, which is no reading"
            return
        for name in ("value", "ci_low", "ci_high", "n"):
            if row[name] is not None and not _is(row[name], math.isfinite):
                yield f"readings.{row['metric']}.{name} is {_shown(row[name])}, not a number"


def _timing(record: Record) -> _Problems:
    """What is wrong with the timed processes: their numbers are divided by each other and put on logs."""
    timing = record.get("timing") or {}
    floor = timing.get("noise_floor")
    ends = floor if isinstance(floor, dict) else {}
    yield from _of_kind(timing, "session", (str, type(None)), "timing.")
    yield from _of_kind(timing, "noise_floor", (dict, type(None)), "timing.")
    for name in ("low", "high"):
        yield from _positive(ends, name, "timing.noise_floor.", needed=False)
    lines = timing.get("invocations") or []
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        yield f"timing.invocations is {_shown(lines)}, not a list of objects"
        return
    for place, line in enumerate(lines):
        path = f"timing.invocations[{place}]."
        if not _is(line.get("index"), lambda value: value >= 0):
            yield f"{path}index is {_shown(line.get('index'))}, not a number of a process"
        for name in _TIMES:
            yield from _positive(line, name, path, needed=name in _ALWAYS)


def _positive(part: dict[str, Any], name: str, path: str, *, needed: bool) -> _Problems:
    value = part.get(name)
    if (value is not None or needed) and not _is(value, lambda number: 0 < number < math.inf):
        yield f"{path}{name} is {_shown(value)}, not a positive number"


def _quality(record: Record) -> _Problems:
    """What is wrong with the answers sample by sample."""
    quality = record.get("quality") or {}
    yield from _of_kind(quality, "samples_digest", (str, type(None)), "quality.")
    yield from _of_kind(quality, "per_sample", (str, list, type(None)), "quality.")
    yield from _of_kind(quality, "metric", (str, type(None)), "quality.")
    yield from _of_kind(quality, "details", (dict, type(None)), "quality.")
    marks = quality.get("per_sample")
    if isinstance(marks, str) and set(marks) - {"0", "1"}:
        yield "quality.per_sample holds other marks than 0 and 1"
    if isinstance(marks, list) and not all(_is(value, math.isfinite) for value in marks):
        yield "quality.per_sample holds a value that is no number"
    if isinstance(quality.get("metric"), str) and quality["metric"] not in RULES:
        yield f"quality.metric is {_shown(quality['metric'])}, which is no score"
    rule = RULES.get(quality["metric"]) if isinstance(quality.get("metric"), str) else None
    whole_set = rule is not None and rule.kind == "distribution"  # one number of all samples together
    if quality.get("samples_digest") and not marks and not whole_set:
        yield "quality.per_sample is missing, though quality.samples_digest is there"


def _is(value: Any, right: Callable[[float], bool]) -> bool:
    """Whether the value is a number for which this holds; true and false are none, nor is one too large for a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return right(float(value))
    except OverflowError:
        return False


def _shown(value: Any) -> str:
    """The value, short and printable."""
    return ascii(value)[:60]
