"""From a probe's result and a session's raw samples to one record: pure, so that it can be done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis import roofline
from bench.analysis.layer_times import merge
from bench.analysis.session import Invocation, medians, member, summarise, throughput, usable
from bench.config.protocol import Protocol
from bench.metrics import METRICS
from bench.plan.case import Case
from bench.reading import Reading, reading, unavailable
from bench.statistics import Interval, log_mean_interval, percentile, ratio_interval_paired
from bench.store.records import Record

GEOMETRIC = "geometric mean over processes of the median, 95 % t-interval on logs"

COLD = "the L2 cache is flushed before every iteration, outside the time"

#: Metrics that the timed processes give, each of which a row has even when it is unavailable.
TIMED = ("latency_ms", "latency_p90_ms", "latency_p99_ms", "throughput_per_s", "first_inference_ms", "load_ms")

Clock = Callable[[], str]


@dataclass(frozen=True)
class Context:
    """What all records of a sweep share."""

    protocol: Protocol
    environment: dict[str, Any]
    machine_key: str
    machine: dict[str, Any]
    code: dict[str, Any]


@dataclass(frozen=True)
class Session:
    """A finished session: its id, its invocations, the member that the others are compared with, why it ended.

    `anchor_recorded_here` is false where the anchor's own row is of an earlier session: the group did not fit into memory
    at once, or the members came later.
    """

    id: str
    invocations: tuple[Invocation, ...]
    anchor: str
    anchor_is_baseline: bool
    stop_reason: str
    anchor_recorded_here: bool = True


def _measured(metric: str, interval: Interval, statistic: str, note: str = "") -> Reading:
    return reading(
        metric, interval.value, "measured", ci_low=interval.low, ci_high=interval.high, n=interval.n,
        statistic=statistic, method_note=note,
    )  # fmt: skip


def _percentile(kept: Sequence[Invocation], key: str, percent: int) -> Reading:
    """A percentile per process, if every process has samples enough for it."""
    metric = f"latency_p{percent}_ms"
    found = [percentile(member(item, key)["latency_ms"], percent / 100) for item in kept]
    why = next((item.reason for item in found if item.value is None), None)
    if why is not None:
        return unavailable(metric, why)
    interval = log_mean_interval([item.value for item in found if item.value is not None])
    return _measured(metric, interval, f"geometric mean over processes of the {percent}th percentile")


def timed_readings(case: Case, session: Session, protocol: Protocol) -> list[Reading]:
    """Everything that the session says of a case."""
    kept, _ = usable(session.invocations, protocol.latency)
    key = case.key
    parts = [member(item, key) for item in kept]
    rates = [throughput(part, case.batch) for part in parts]
    readings = [
        _measured(
            "latency_ms",
            log_mean_interval(medians(kept, key)),
            GEOMETRIC,
            COLD if protocol.latency.l2 == "cold" else "",
        ),
        _percentile(kept, key, 90),
        _percentile(kept, key, 99),
        _measured("throughput_per_s", log_mean_interval(rates), "geometric mean over processes of the median window"),
        _measured("first_inference_ms", log_mean_interval([p["first_inference_ms"] for p in parts]), "geometric mean"),
        _measured("load_ms", log_mean_interval([p["load_ms"] for p in parts]), "geometric mean"),
    ]
    anchor = medians(kept, session.anchor)
    if key == session.anchor:
        floor = ratio_interval_paired(anchor, medians(kept, "twin"))
        readings.append(_measured("aa_ratio", floor, "paired ratio of medians to the identical twin"))
    elif session.anchor_is_baseline:
        ratio = ratio_interval_paired(anchor, medians(kept, key))
        readings.append(_measured("speedup", ratio, "paired ratio of medians by process, 95 % t-interval on logs"))
    if key != session.anchor and not session.anchor_is_baseline:
        readings.append(unavailable("speedup", "the baseline failed, so there is nothing to compare with"))
    return readings


def _timing(case: Case, session: Session, protocol: Protocol) -> dict[str, Any]:
    kept, clean = usable(session.invocations, protocol.latency)
    floor = ratio_interval_paired(medians(kept, session.anchor), medians(kept, "twin"))
    lines = [summarise(item, case.key, session.anchor, case.batch, protocol.latency) for item in session.invocations]
    return {
        "session": session.id, "paired": session.anchor_is_baseline, "stop_reason": session.stop_reason,
        "noise_floor": {"value": floor.value, "low": floor.low, "high": floor.high, "n": floor.n},
        "clean": clean, "invocations": lines,
    }  # fmt: skip


def _flags(timing: dict[str, Any]) -> list[dict[str, str]]:
    """One flag per kind of disturbance with how many processes it touched."""
    lines = timing["invocations"]
    kinds = sorted({label for line in lines for label in line["labels"]})
    found = []
    for kind in kinds:
        count = sum(kind in line["labels"] for line in lines)
        text = f"{kind} in {count} of {len(lines)} processes"
        found.append(
            {"code": kind.replace(" ", "_"), "severity": "info" if count * 2 < len(lines) else "warn", "text": text}
        )
    return found


def _apart(session: Session) -> list[dict[str, str]]:
    """A flag where the row's session is not that of its baseline's row."""
    if session.anchor_recorded_here:
        return []
    text = (
        "timed beside its baseline, but in another session than the baseline's own row: its ratios are of this session, "
        "its milliseconds of another moment"
    )
    return [{"code": "another_session", "severity": "info", "text": text}]


def _head(case: Case, context: Context, started_at: str, finished_at: str) -> Record:
    return {
        "record_key": f"{case.key}.{context.machine_key}", "case_key": case.key, "group_key": case.group_key,
        "baseline_key": case.baseline.key, "machine_key": context.machine_key, "supersedes": None,
        "case": case.as_dict(), "started_at": started_at, "finished_at": finished_at, "code": context.code,
        "protocol": context.protocol.as_record(), "environment": context.environment, "machine": context.machine,
    }  # fmt: skip


_EMPTY: dict[str, Any] = {
    "layers": [], "layers_info": {}, "counts": {}, "params": {}, "memory": {}, "energy": {}, "quality": {},
    "weights": {}, "timing": {"session": None, "paired": False, "stop_reason": "", "noise_floor": None, "invocations": []},
    "picture": None, "claims": [],
}  # fmt: skip


def failed(
    case: Case, context: Context, status: str, error: dict[str, Any], started_at: str, finished_at: str,
    probe: dict[str, Any] | None = None,
) -> Record:  # fmt: skip
    """The record of a case that did not finish: what the probe found if it did, every other metric unavailable."""
    why = f"the case ended as {status} in the phase {error['phase']}: {error['message']}"
    known = {item["metric"]: item for item in (probe or {}).get("readings", [])}
    expected = ["params", "size_bytes", "macs", "peak_memory_bytes", "energy_j", "accuracy", *TIMED]
    rows = [*known.values(), *(unavailable(name, why).as_dict() for name in expected if name not in known)]
    return {
        **_head(case, context, started_at, finished_at), **_EMPTY, **_details(probe or {}),
        "status": status, "error": error, "flags": (probe or {}).get("flags", []), "readings": rows,
    }  # fmt: skip


def _details(probe: dict[str, Any]) -> dict[str, Any]:
    details = probe.get("details", {})
    counts = dict(details.get("macs", {}))
    names = ("params", "memory", "energy", "quality")
    found = {name: details[name] for name in names if name in details}
    return {**found, "counts": counts, "weights": probe.get("weights", {}), "picture": probe.get("picture")}


def finished(case: Case, context: Context, probe: dict[str, Any], session: Session | None, finished_at: str) -> Record:
    """The record of a measured case.

    Args:
        case: what was measured.
        context: what the sweep's records share.
        probe: the probe's result.
        session: the session that timed it; None where no timing was wanted.
        finished_at: UTC, ISO 8601.
    """
    record = {**_head(case, context, probe["started_at"], finished_at), **_EMPTY, **_details(probe)}
    rows = list(probe["readings"])
    flags, status = list(probe["flags"]), "ok"
    if session is not None:
        rows += [item.as_dict() for item in timed_readings(case, session, context.protocol)]
        record["timing"] = _timing(case, session, context.protocol)
        flags += _flags(record["timing"]) + _apart(session)
        status = "ok" if record["timing"]["clean"] else "contaminated"
        kept, _ = usable(session.invocations, context.protocol.latency)
        record["layers"], record["layers_info"] = merge(
            probe.get("layers", []), probe.get("layers_info", {}), kept, case.key
        )
    rows += [item.as_dict() for item in _modelled(record)]
    if any(flag["severity"] == "invalid" for flag in flags):
        status = "invalid"
    error = _why_contaminated(record["timing"]) if status == "contaminated" else _invalid(flags)
    return {**record, "status": status, "error": error, "flags": flags, "readings": _ordered(rows)}


def _why_contaminated(timing: dict[str, Any]) -> dict[str, Any]:
    lines = timing["invocations"]
    text = (
        f"{sum(line['set_aside'] for line in lines)} of {len(lines)} processes were preempted in too many of their samples "
        "and replacing them did not help: other work was using the cores. Times are too long, and ratios favour the "
        "shorter network, which is preempted less often. Measure again on a quiet machine with retry_failed=true"
    )
    return {"phase": "measure", "type": "contaminated", "message": text, "log_tail": ""}


def _modelled(record: Record) -> list[Reading]:
    """Ideal and attainable latency from the layers and the machine's measured peaks, or why there are none."""
    line, why = roofline.from_record(record)
    if line is None:
        return [unavailable(metric, why) for metric in ("ideal_ms", "attainable_ms")]
    return roofline.readings(line)


def _invalid(flags: list[dict[str, str]]) -> dict[str, Any] | None:
    for flag in flags:
        if flag["severity"] == "invalid":
            return {"phase": "measure", "type": flag["code"], "message": flag["text"], "log_tail": ""}
    return None


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    order = {name: place for place, name in enumerate(METRICS)}
    return sorted(rows, key=lambda row: order[row["metric"]])
