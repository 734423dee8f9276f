"""What a record looks like as a tracked run: name, params, tags, metrics, note and files; pure, without MLflow.

Metrics are named `section/metric`, and `section/part/metric` for a further part of the workload, so that a tracking
page groups them into sections; the ends of intervals are `interval/metric_low` and `_high`, a section that can be
folded away; `log10/metric` are logarithms, because MLflow's scatter plots have no logarithmic axes. A reading without a
value is no metric: its reason is in the note.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.canonical import BASELINE_METHOD, content_hash
from bench.config.axes import AXES
from bench.metrics import METRICS
from bench.plan.case import Case
from bench.short_names import short_name
from bench.store.record_parts import is_of_part, whole_of
from bench.store.records import DISTURBED, Record, seal
from bench.tracking.over_processes import PROCESSES, SYSTEM, Point, milliseconds, points
from bench.tracking.preview import waterline_svg

#: What MLflow takes in one value; longer text is cut with a mark.
PARAM_LIMIT = 6000
TAG_LIMIT = 5000
NOTE_LIMIT = 4900
DIGEST_LIMIT = 36
ROW_COLUMNS = ("module_path", "op", "macs", "time_ms", "share", "read_bytes", "write_bytes", "tokens")

#: Okabe and Ito's palette, distinguishable with any colour vision; the baseline is grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#5D3A9B")
BASELINE_COLOUR = "#7F7F7F"
COLOUR_SALT = 159  # keeps the methods of the first suites apart

INTERVALS = "interval"
LOGARITHMS = "log10"
#: Sections whose values are another metric's, or have a page of their own.
FOLDED = frozenset({INTERVALS, LOGARITHMS, PROCESSES, SYSTEM})
#: Metrics that are drawn on logarithmic axes.
_ON_LOGS = (
    "compute/macs", "compute/mac_ratio", "latency/latency_ms", "latency/speedup", "throughput/throughput_per_s",
    "memory/peak_memory_bytes",
)  # fmt: skip
KIND = "waterline.kind"
CASE_KIND, SWEEP_KIND, SUPERSEDED_KIND = "case", "sweep", "superseded"


@dataclass(frozen=True)
class Data:
    """What a case was scored on: the task's name, the digest of its samples, and what the task says of it as JSON."""

    name: str
    digest: str
    about: str


@dataclass(frozen=True)
class TrackedRun:
    """One run as it is to appear; `files` are artifact path to text, times are milliseconds since 1970.

    `points` are the values of each process, `data` is what it was scored on, if it was.
    """

    name: str
    status: str
    started_ms: int | None
    ended_ms: int | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    files: dict[str, str]
    points: tuple[Point, ...] = ()
    data: Data | None = None


def identity(record: Record) -> str:
    """The content hash, also of a record that is not sealed yet."""
    return str(record.get("content_hash") or content_hash(seal(record)))


def describe(record: Record, derived: Mapping[str, float] | None = None) -> TrackedRun:
    """The run that mirrors a record.

    Args:
        record: what is mirrored.
        derived: metrics that follow from it and the record that it is compared with, by `section/metric`.
    """
    case = Case.from_dict(record["case"])
    metrics = {**dict(_metrics(record)), **(derived or {})}
    return TrackedRun(
        name=short_name(case.label),
        status=_run_status(record["status"]),
        started_ms=milliseconds(record.get("started_at")),
        ended_ms=milliseconds(record.get("finished_at")),
        params=_params(record, case),
        tags=_tags(record, case),
        metrics={**metrics, **dict(_logarithms(metrics))},
        files=_files(record),
        points=tuple(points(record)),
        data=_data(record, case),
    )


def _run_status(status: str) -> str:
    """MLflow's word for a case's status; a disturbed case has numbers and no rank, so it is not shown as a success."""
    return {"ok": "FINISHED", DISTURBED: "KILLED", "interrupted": "KILLED"}.get(status, "FAILED")


def _data(record: Record, case: Case) -> Data | None:
    """What the case was scored on; None where it was not scored."""
    quality = record.get("quality") or {}
    digest = quality.get("samples_digest") or case.data
    if case.task == "none" or not digest:
        return None
    return Data(case.task, str(digest)[:DIGEST_LIMIT], json.dumps(quality.get("task") or {}, sort_keys=True))


def _logarithms(metrics: Mapping[str, float]) -> Iterable[tuple[str, float]]:
    """Logarithms of what is drawn on logarithmic axes, by the metric's last name."""
    for name in _ON_LOGS:
        if metrics.get(name, 0.0) > 0:
            yield f"{LOGARITHMS}/{name.rpartition('/')[2]}", math.log10(metrics[name])


#: Axes that no param tells: digests of code, which tags and the record hold, and the protocol's hash, told by its name.
_UNTOLD = frozenset({"protocol", "subject_digest", "checkpoint", "against_digest"})
#: Axes that a search needs as tags too.
_SEARCHED = ("suite", "model", "method", "workload", "backend")


def _params(record: Record, case: Case) -> dict[str, str]:
    """What was asked for, an axis each, the workload's shape by its own axes too; empty settings are left out."""
    values: dict[str, Any] = {axis.name: getattr(case, axis.name) for axis in AXES if axis.name not in _UNTOLD}
    values = {**case.axes, **values, "compared_with": case.against_label if case.against else ""}
    protocol = record.get("protocol") or {}
    values["protocol"] = f"{protocol.get('name', '?')} v{protocol.get('version', '?')}"
    values["method_label"] = short_name(case.method_label)
    return {name: cut(str(value), PARAM_LIMIT) for name, value in values.items() if value not in (None, "")}


def _tags(record: Record, case: Case) -> dict[str, str]:
    """What a search or a column needs, and the note."""
    code = record.get("code") or {}
    tags = {
        KIND: CASE_KIND,
        "status": record["status"],
        "disturbed": "true" if record["status"] == DISTURBED else None,
        **{name: getattr(case, name) for name in _SEARCHED},
        "against": case.against_label,
        "case_key": record["case_key"],
        "group_key": record["group_key"],
        "baseline_key": record["baseline_key"],
        "machine_key": record["machine_key"],
        "record_key": re.sub(r"[^\w.:-]", "_", record["record_key"]),
        "content_hash": identity(record),
        "protocol_hash": (record.get("protocol") or {}).get("hash"),
        "code_version": code.get("version"),
        "flags": ", ".join(flag["code"] for flag in record.get("flags") or []),
        "error": _error_line(record),
        "mlflow.source.name": f"waterline-bench suite={case.suite}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": code.get("commit"),
        "mlflow.runColor": colour_of(case),
        "mlflow.note.content": cut(note(record), NOTE_LIMIT),
        "mlflow.loggedArtifacts": '[{"path": "layers.json", "type": "table"}]' if record.get("layers") else None,
    }
    return {name: cut(str(value), TAG_LIMIT) for name, value in tags.items() if value}


def colour_of(case: Case) -> str:
    """A case's colour: its method's, without one its model's and backend's; grey for what others are compared with."""
    if case.is_baseline or case.method != BASELINE_METHOD:
        return colour(BASELINE_METHOD if case.is_baseline else case.method)
    return colour(f"{case.model} {case.backend}")


def colour(name: str) -> str:
    """The colour of a method or model, the same in every sweep: picked by a hash of its name."""
    if name == BASELINE_METHOD:
        return BASELINE_COLOUR
    return COLOURS[hashlib.sha256(f"{COLOUR_SALT}{name}".encode()).digest()[0] % len(COLOURS)]


def _metrics(record: Record) -> Iterable[tuple[str, float]]:
    whole = whole_of(record)
    for reading in record["readings"]:
        if reading["value"] is None or reading["metric"] not in METRICS:
            continue
        metric = reading["metric"]
        name = metric if is_of_part(reading, None, whole) else f"{_key(reading['part'])}/{metric}"
        yield f"{METRICS[metric].section}/{name}", float(reading["value"])
        for end in ("low", "high"):
            if reading.get(f"ci_{end}") is not None:
                yield f"{INTERVALS}/{name}_{end}", float(reading[f"ci_{end}"])
    timing = record.get("timing") or {}
    floor = timing.get("noise_floor") or {}
    if timing.get("invocations") and floor.get("low") and floor.get("high"):
        yield "latency/noise_floor_percent", 100 * (max(floor["high"], 1 / floor["low"]) - 1)


def _key(part: str) -> str:
    """A part's name as MLflow takes it in the name of a metric."""
    return re.sub(r"[^\w .-]", "_", part)


def _files(record: Record) -> dict[str, str]:
    """The record itself, its layers as a table (JSON for the page, CSV for others), curves, and the failure's log."""
    files = {"record.json": json.dumps(record, indent=1, sort_keys=True)}
    for part, table in (record.get("part_layers") or {}).items():
        if table.get("layers"):
            columns = list(dict.fromkeys(name for row in table["layers"] for name in row))
            files[f"layers_{_key(part).replace(' ', '_')}.csv"] = _csv(columns, table["layers"])
    if record.get("curves"):
        files["curves.csv"] = _csv(["metric", "part", "index", "at", "value", "unit", "provenance"], _points(record))
    picture = waterline_svg(record)
    if picture is not None:
        files["waterline.svg"] = picture
    rows = record.get("layers") or []
    if rows:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        shown = [name for name in ROW_COLUMNS if name in columns]
        files["layers.csv"] = _csv(columns, rows)
        files["layers.json"] = json.dumps({"columns": shown, "data": [[row.get(c) for c in shown] for row in rows]})
    if record.get("error"):
        files["error.txt"] = f"{_error_line(record)}\n\n{record['error'].get('log_tail') or ''}\n"
    return files


def _points(record: Record) -> list[dict[str, Any]]:
    """The curves of a record, a row per value."""
    return [
        {**curve, "at": at, "value": value}
        for curve in record["curves"]
        for at, value in zip(curve["at"], curve["values"], strict=True)
    ]


def _csv(columns: list[str], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A cell; text that a spreadsheet would take for a formula gets a quote before it."""
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def note(record: Record) -> str:
    """The note of a case in Markdown: outcome, readings with intervals and provenance, flags, where it ran."""
    case = Case.from_dict(record["case"])
    state = "disturbed by other work, so not ranked" if record["status"] == DISTURBED else record["status"]
    parts = [f"**{plain(case.label)}**: {plain(state)}"]
    if case.against and not case.is_baseline:
        parts.append(f"Compared with {plain(case.against_label)}.")
    whole = whole_of(record)
    if record.get("error"):
        parts.append(plain(_error_line(record)))
    have = [reading for reading in _known(record) if reading["value"] is not None]
    if have:
        rows = [f"| {plain(_title(r, whole))} | {_value(r)} | {_interval(r)} | {r['provenance']} |" for r in have]
        parts.append("\n".join(["| reading | value | interval | provenance |", "|---|---|---|---|", *rows]))
    parts += [f"- {plain(flag['severity'])}: {plain(flag['text'])}" for flag in record.get("flags") or []]
    parts += _missing(record)
    environment = record.get("environment") or {}
    cpu = (environment.get("cpu") or {}).get("model")
    gpus = [gpu.get("name") for gpu in environment.get("gpus") or []]
    parts.append(
        "Measured on " + plain(", ".join(str(part) for part in [cpu, *gpus] if part) or "an unknown machine") + "."
    )
    return "\n\n".join(parts)


def _known(record: Record) -> list[dict[str, Any]]:
    """The readings of a metric that is known here; another is a later version's."""
    return [reading for reading in record["readings"] if reading["metric"] in METRICS]


def _missing(record: Record) -> list[str]:
    """A line per reason: what has no value because of it."""
    reasons: dict[str, list[str]] = {}
    whole = whole_of(record)
    for reading in _known(record):
        if reading["value"] is None:
            reasons.setdefault(reading.get("method_note", ""), []).append(_title(reading, whole))
    return [f"Not available ({plain(reason)}): {plain(', '.join(titles))}." for reason, titles in reasons.items()]


def _title(reading: dict[str, Any], whole: str) -> str:
    """The metric's title, with the part where that is not the whole run."""
    title = METRICS[reading["metric"]].title
    return title if is_of_part(reading, None, whole) else f"{title} of {reading['part']}"


def _value(reading: dict[str, Any]) -> str:
    return f"{scaled(reading['value'])} {plain(reading['unit'])}"


def _interval(reading: dict[str, Any]) -> str:
    low, high = reading.get("ci_low"), reading.get("ci_high")
    return "" if low is None or high is None else f"{scaled(low)} to {scaled(high)}"


def scaled(value: float) -> str:
    """Four digits; a million and more as M, G or T, which people read faster than zeros."""
    for factor, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}"


def _error_line(record: Record) -> str:
    error = record.get("error")
    if not error:
        return ""
    return f"{record['status']} during {error.get('phase')}: {error.get('type')}: {error.get('message')}"


def plain(text: object) -> str:
    """Text that Markdown shows as it is, on one line: nothing in it becomes markup, a table cell or a link."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>()#|!~&$])", r"\\\1", flat).replace("\\<", "&lt;").replace("\\>", "&gt;")


def cut(text: str, limit: int) -> str:
    """Text of at most `limit` characters; a cut is marked."""
    return text if len(text) <= limit else text[: limit - 16] + " ... (shortened)"
