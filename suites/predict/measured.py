"""What was measured, read from records: rows of tables and whole networks, process by process.

A record of a cohort has a time for each of its entries in every process (`timing.invocations[].spans`); one of a plain
forward is a network of the family `zoo`, whose rows are its table of layers. Rows and networks of one condition
(machine, device, threads, dtype, batch) belong together: a table for four threads says nothing of one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.canonical import parse_settings
from bench.plan.case import spec_text
from bench.prediction_errors import REPEATS_WITHIN, repeatability
from bench.store.outline import Head
from bench.store.record_parts import reading_of
from bench.store.records import Store
from bench.workloads import prediction
from suites.predict.networks import (
    RESOLUTION,
    Network,
    fbnet_network,
    mobilenetv2,
    named,
    of_layers,
    table_rows,
)
from suites.predict.operators import Row

SUITE = "predict"
#: Whose plain forwards are networks of the zoo.
ZOO_SUITES = (SUITE, "convnets")
ROWS = frozenset({"fbnet_rows", "mobile_rows"})
NETWORKS = frozenset({"fbnet_networks", "mobile_networks", "dense_networks", "conv_networks"})

Record = Mapping[str, Any]
#: How rows and networks were run: `plain`, `folded` or `channels_last`, `warm` or `cold`.
Way = tuple[str, str]


@dataclass(frozen=True)
class Cost:
    """What one thing took in every process, the session of those processes, and whether other work disturbed them."""

    values: tuple[float, ...]
    session: str = ""
    disturbed: bool = False

    @property
    def value(self) -> float:
        """The geometric mean over processes; a cost of zero is zero."""
        if min(self.values) <= 0:
            return sum(self.values) / len(self.values)
        return math.exp(sum(map(math.log, self.values)) / len(self.values))

    @property
    def repeatability(self) -> float | None:
        """Relative standard deviation over processes; None of one process."""
        return repeatability(self.values)

    @property
    def is_refused(self) -> bool:
        """Whether its processes vary by more than a tenth."""
        return (self.repeatability or 0.0) > REPEATS_WITHIN


@dataclass(frozen=True)
class Measured:
    """A network with what it took."""

    network: Network
    cost: Cost


@dataclass(frozen=True)
class Measurements:
    """All that was measured under one condition.

    Attributes:
        rows: costs by key of a row, by how it was run.
        known: what the keys stand for.
        networks: by how they were run.
        operations_per_s, bytes_per_s: peaks of the machine; None where it was not calibrated.
        seconds: of the processes of each session, together.
        source: hash of the rows of results that this is made from; empty where it is no results folder.
        unit_ms: whether costs are milliseconds.
        simulated: whether there is no machine behind them.
        other_conditions: what else the records hold, by how many records.
    """

    rows: Mapping[Way, Mapping[str, Cost]] = field(default_factory=dict)
    known: Mapping[str, Row] = field(default_factory=dict)
    networks: Mapping[Way, Sequence[Measured]] = field(default_factory=dict)
    operations_per_s: float | None = None
    bytes_per_s: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    unit_ms: bool = True
    simulated: bool = False
    other_conditions: Mapping[str, int] = field(default_factory=dict)


def of_store(store: Store, target: str = "latency_ms") -> Measurements:
    """Rows and networks of a results folder; records that can be neither are known by their heads and not read.

    Args:
        store: the folder.
        target: as for `read`.
    """
    heads = store.heads([])
    source = prediction.source_of((head.brief() for head in heads.values()), SUITE)
    return read((store.read_again(name) for name, head in heads.items() if _may_be_usable(head)), target, source)


def read(records: Iterable[Record], target: str = "latency_ms", source: str | None = None) -> Measurements:
    """Rows and networks of the condition that most records have.

    Args:
        records: of a results folder, none superseded.
        target: `latency_ms`; of plain forwards alone `peak_memory_bytes`, or `accuracy`, whose cost is the share of
            wrong answers, per cent.
        source: hash of the rows that these are made from, where not all records of the folder are given.
    """
    everything = [dict(record) for record in records]
    source = prediction.source_of(everything, SUITE) if source is None else source
    usable = [record for record in everything if _is_usable(record)]
    conditions = Counter(map(_condition, usable))
    if not conditions:
        return Measurements(source=source)
    chosen = min(conditions, key=lambda condition: (-conditions[condition], condition))
    own = [record for record in usable if _condition(record) == chosen]
    rows: dict[Way, dict[str, Cost]] = {}
    known: dict[str, Row] = {}
    networks: dict[Way, list[Measured]] = {}
    for record in own:
        if record["case"]["model"] in ROWS and target == "latency_ms":
            rows.setdefault(_way(record), {}).update(_entries(record))
            known |= _described(record)
        else:
            networks.setdefault(_way(record), []).extend(_networks(record, target))
    peaks = _peaks(own)
    return Measurements(
        rows, known, networks, *peaks, _seconds(own), source, target == "latency_ms",
        other_conditions={" ".join(key): n for key, n in conditions.items() if key != chosen},
    )  # fmt: skip


def _may_be_usable(head: Head) -> bool:
    """Whether the record of this head may be a usable one."""
    ended_well = head.timed and head.status in ("ok", "contaminated")
    return ended_well and (head.model in ROWS | NETWORKS or head.suite in ZOO_SUITES)


def _is_usable(record: Record) -> bool:
    """Whether it is a cohort, or a plain forward of one picture of a suite whose networks make the zoo."""
    case = record["case"]
    if record["status"] not in ("ok", "contaminated") or not (record.get("timing") or {}).get("invocations"):
        return False
    if case["model"] in ROWS | NETWORKS:
        return True
    plain = case.get("workload", "forward") == "forward" and case["method"] == "none" and case["batch"] == 1
    return plain and case["suite"] in ZOO_SUITES and not case["model"].startswith("fbnet")


def _condition(record: Record) -> tuple[str, ...]:
    case = record["case"]
    names = ("device", "dtype", "batch", "threads", "backend", "compile", "memory_format")
    return (str(record["machine_key"]), *(f"{name} {case.get(name)}" for name in names))


def _way(record: Record) -> Way:
    settings = parse_settings(record["case"]["model_settings"])
    return str(settings.get("form", "plain")), str(settings.get("inputs", "warm"))


def _lines(record: Record) -> list[Mapping[str, Any]]:
    """The processes that count: those not set aside, or all where none was left."""
    lines = record["timing"]["invocations"]
    return [line for line in lines if not line.get("set_aside")] or list(lines)


def _entries(record: Record) -> dict[str, Cost]:
    """The cost of every entry of a cohort that every process has."""
    spans = [line.get("spans") or {} for line in _lines(record)]
    names = [name for name in spans[0] if all(name in own for own in spans)]
    session, disturbed = str(record["timing"].get("session") or ""), record["status"] != "ok"
    return {name: Cost(tuple(own[name] for own in spans), session, disturbed) for name in names}


def _described(record: Record) -> dict[str, Row]:
    """The rows that a cohort of rows can have, by key."""
    side = record["case"].get("resolution") or RESOLUTION
    if record["case"]["model"] == "mobile_rows":
        width = parse_settings(record["case"]["model_settings"]).get("width", 100)
        return {row.key: row for row in mobilenetv2(int(width), side).rows}
    ends = [row for plan in ("fbnet_a", "fbnet_b", "fbnet_c") for row in fbnet_network(plan, side).rows]
    return {row.key: row for row in [*table_rows(side).values(), *ends] if row is not None}


def _networks(record: Record, target: str) -> list[Measured]:
    case = record["case"]
    if case["model"] in NETWORKS:
        if target != "latency_ms":
            return []
        side = case.get("resolution") or RESOLUTION
        return [Measured(named(name, side), cost) for name, cost in _entries(record).items()]
    if case["model"] in ROWS:
        return []
    label = spec_text(case["model"], case["model_settings"])
    if target == "accuracy":
        return _errors(record, f"{label} @{case.get('resolution') or RESOLUTION}")
    network = of_layers(label, "zoo", record.get("layers") or [])
    session = str(record["timing"].get("session") or "")
    if target == "latency_ms":
        return [Measured(network, Cost(tuple(float(line["median_ms"]) for line in _lines(record)), session))]
    found = reading_of(dict(record), target)
    value = None if found is None else found["value"]
    return [Measured(network, Cost((float(value),), session))] if value else []


def _errors(record: Record, name: str) -> list[Measured]:
    """The share of wrong answers of a network that was trained on digits; none without such a score."""
    found = reading_of(dict(record), "accuracy") if record["case"].get("task") == "digits" else None
    if found is None:
        return []
    wrong = max(100.0 - float(found["value"]), 50.0 / float(found.get("n") or 100))  # half an answer where none is
    return [Measured(of_layers(name, "digits", record.get("layers") or []), Cost((wrong,), "digits"))]


def _peaks(records: Sequence[Record]) -> tuple[float | None, float | None]:
    """Operations and bytes a second of the machine, fp32, as the newest record has them."""
    machine = max(records, key=lambda record: str(record.get("finished_at"))).get("machine") or {}
    threads = records[0]["case"]["threads"]
    peaks = [
        peak["value"] for peak in machine.get("peaks") or [] if (peak["dtype"], peak["threads"]) == ("fp32", threads)
    ]
    bandwidth = (machine.get("bandwidth") or {}).get("value")
    return (float(peaks[0]) if peaks else None), (float(bandwidth) if bandwidth else None)


def _seconds(records: Sequence[Record]) -> dict[str, float]:
    """Seconds of the processes behind each session, each process once."""
    found: dict[str, dict[Any, float]] = {}
    for record in records:
        own = found.setdefault(str(record["timing"].get("session") or ""), {})
        own |= {line.get("index"): float(line.get("seconds") or 0.0) for line in record["timing"]["invocations"]}
    return {session: sum(processes.values()) for session, processes in found.items()}
