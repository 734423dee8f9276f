"""From a probe's result and a session's raw samples to one record: pure, so that it can be done again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench import workloads
from bench.analysis import roofline, roofline_of_record, utilisation
from bench.analysis.layer_times import merge
from bench.analysis.session import (
    Invocation,
    further_parts,
    have_part,
    is_long,
    medians,
    member,
    speed_ratio,
    summarise,
    throughput,
    twin_ratio,
    usable,
)
from bench.config.protocol import Latency, Protocol
from bench.flags import DISTURBANCES, flag
from bench.meters.table import METERS
from bench.metrics import METRICS, rate_of
from bench.plan.case import Case
from bench.reading import Reading, reading, unavailable
from bench.scores import DEFAULT_SCORE
from bench.statistics import GEOMETRIC, Interval, log_mean_interval, percentile
from bench.store.records import Record

COLD = "the L2 cache is flushed before every iteration, outside the time"

#: Metrics that the timed processes give, each of which a row has even when it is unavailable.
TIMED = ("latency_ms", "latency_p90_ms", "latency_p99_ms", "throughput_per_s", "first_inference_ms", "load_ms")

#: Fewer raw samples than this in a process are said beside the time.
FEW = 10


@dataclass(frozen=True)
class Context:
    """What all records of a sweep share; `scores` are the metrics of its tasks, by the task's name."""

    protocol: Protocol
    environment: dict[str, Any]
    machine_key: str
    machine: dict[str, Any]
    code: dict[str, Any]
    scores: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """A finished session: its id, its invocations, the member that the others are compared with, why it ended.

    `baseline_is_own` is false where the group's baseline failed and its first member is compared with in its place.
    `baseline_recorded_here` is false where the baseline's own row is of an earlier session: the group did not fit into
    memory at once, or the members came later.
    """

    id: str
    invocations: tuple[Invocation, ...]
    baseline: str
    baseline_is_own: bool
    stop_reason: str
    baseline_recorded_here: bool = True


def _measured(metric: str, interval: Interval, statistic: str, note: str = "") -> Reading:
    return reading(
        metric,
        interval.value,
        "measured",
        ci_low=interval.low,
        ci_high=interval.high,
        n=interval.n,
        statistic=statistic,
        method_note=note,
    )


def _percentile(kept: Sequence[Invocation], key: str, percent: int, part: str | None, latency: Latency) -> Reading:
    """A percentile per process, if every process has samples enough for it; where they are planned, over those that do.

    How many a process was planned to take tells nothing of its times.
    """
    metric = f"latency_p{percent}_ms"
    found = [percentile(member(item, key, part)["latency_ms"], percent / 100) for item in kept]
    values = [item.value for item in found if item.value is not None]
    if not values or (len(values) < len(found) and latency.most_samples is None):
        return unavailable(metric, next((item.reason for item in found if item.value is None), "no samples"))
    note = (
        f"in the {len(values)} of {len(found)} processes that took samples enough" if len(values) < len(found) else ""
    )
    return _measured(
        metric, log_mean_interval(values), f"geometric mean over processes of the {percent}th percentile", note
    )


def timed_readings(case: Case, session: Session, protocol: Protocol) -> list[Reading]:
    """Everything that the session says of a case, part by part."""
    kept, _ = usable(session.invocations, protocol.latency)
    key, whole = case.key, workloads.find(case.workload).whole
    runs = [member(item, key) for item in kept]
    readings = [
        *_of_part(case, session, kept, None, protocol),
        _measured(
            "first_inference_ms", log_mean_interval([run["first_inference_ms"] for run in runs]), "geometric mean"
        ),
        _measured("load_ms", log_mean_interval([run["load_ms"] for run in runs]), "geometric mean"),
    ]
    readings = [replace(item, part=whole) if METRICS[item.metric].per_part else item for item in readings]
    for part in further_parts(kept, key):
        readings += [replace(item, part=part) for item in _of_part(case, session, kept, part, protocol)]
    return readings


def _of_part(
    case: Case, session: Session, kept: Sequence[Invocation], part: str | None, protocol: Protocol
) -> list[Reading]:
    """Time, rate and comparison of one part; the whole run without a part."""
    key = case.key
    note = _few(case, kept, part) or (COLD if protocol.latency.l2 == "cold" and part is None else "")
    return [
        _measured("latency_ms", log_mean_interval(medians(kept, key, part)), GEOMETRIC, note),
        _percentile(kept, key, 90, part, protocol.latency),
        _percentile(kept, key, 99, part, protocol.latency),
        _rate(case, kept, part),
        *_compared(case, session, kept, part, protocol.latency),
    ]


def _rate(case: Case, kept: Sequence[Invocation], part: str | None) -> Reading:
    """Units a second over the processes that took throughput windows, or where no run can go back to back over all."""
    metric, runs = rate_of(workloads.find(case.workload).unit), [member(item, case.key, part) for item in kept]
    rates = [rate for rate in (throughput(run, case.batch) for run in runs) if rate is not None]
    if not rates:
        return unavailable(metric, "no process that counts took throughput windows")
    windows = any(run["throughput"] for run in runs)
    how = "geometric mean over processes of the median window" if windows else "units of a run over its median time"
    note = f"windows in {len(rates)} of {len(kept)} processes" if len(rates) < len(kept) else ""
    note += ", so it has no interval" if note and len(rates) == 1 else ""
    return _measured(metric, log_mean_interval(rates), how, note)


def _of_spans(case: Case, probe: dict[str, Any], session: Session, protocol: Protocol) -> list[Reading]:
    """What the workload makes of the spans inside the timed runs, process by process."""
    module = workloads.module_of(case.workload)
    kept, _ = usable(session.invocations, protocol.latency)
    runs = [member(item, case.key) for item in kept]
    if not hasattr(module, "spanned") or not all(run.get("spans") for run in runs):
        return []
    spans = [{name: [sum(each[name]) for each in run["spans"]] for name in run["spans"][0]} for run in runs]
    wholes = [[run["block"] * ms for ms in run["latency_ms"]] for run in runs]
    found: list[Reading] = module.spanned(spans, wholes, probe.get("details", {}).get("facts", {}))
    return found


def _few(case: Case, kept: Sequence[Invocation], part: str | None) -> str:
    """Said of runs that last so long that a process made only a few."""
    least = min(len(member(item, case.key, part)["latency_ms"]) for item in kept)
    return f"{least} runs a process, because one takes long" if least < FEW else ""


def _compared(
    case: Case, session: Session, kept: Sequence[Invocation], part: str | None, latency: Latency
) -> list[Reading]:
    """The part's time against the same part of the baseline, or for a baseline against its twin."""
    key, baseline = case.key, session.baseline
    if key == baseline:
        floor = twin_ratio(kept, baseline, latency, part)
        return [_measured("aa_ratio", floor, f"{_of_a_process(latency)} to the identical twin")]
    if not session.baseline_is_own:
        return [unavailable("speedup", "the baseline failed, so there is nothing to compare with")]
    if not have_part(kept, baseline, part):
        return [unavailable("speedup", f"the baseline has no part {part}")]
    ratio = speed_ratio(kept, baseline, key, latency, part)
    control = ", the twin as control" if latency.twin_control else ""
    how = f"{_of_a_process(latency)} by process{control}, 95 % t-interval on logs"
    return [_measured("speedup", ratio, how)]


def _of_a_process(latency: Latency) -> str:
    """What a protocol takes for the ratio of a process, in words."""
    return "median ratio of the rounds" if latency.by_rounds else "paired ratio of medians"


def _timing(case: Case, session: Session, protocol: Protocol) -> dict[str, Any]:
    kept, clean = usable(session.invocations, protocol.latency)
    floor = twin_ratio(kept, session.baseline, protocol.latency)
    lines = [summarise(item, case.key, session.baseline, case.batch, protocol.latency) for item in session.invocations]
    return {
        "session": session.id,
        "paired": session.baseline_is_own,
        "stop_reason": session.stop_reason,
        "noise_floor": {"value": floor.value, "low": floor.low, "high": floor.high, "n": floor.n},
        "clean": clean,
        "invocations": lines,
    }


def _flags(timing: dict[str, Any]) -> list[dict[str, str]]:
    """One flag per kind of disturbance with how many processes it touched."""
    lines = timing["invocations"]
    kinds = sorted({label for line in lines for label in line["labels"]})
    found = []
    for kind in kinds:
        count = sum(kind in line["labels"] for line in lines)
        text = f"{kind} in {count} of {len(lines)} processes"
        found.append(flag(kind.replace(" ", "_"), "info" if count * 2 < len(lines) else "warn", text))
    return found


def _apart(session: Session) -> list[dict[str, str]]:
    """A flag where the row's session is not that of its baseline's row."""
    if session.baseline_recorded_here:
        return []
    text = (
        "timed beside its baseline, but in another session than the baseline's own row: its ratios are of this "
        "session, its milliseconds of another moment"
    )
    return [{"code": "another_session", "severity": "info", "text": text}]


def _glance(protocol: Protocol, kept: Sequence[Invocation]) -> list[dict[str, str]]:
    """A flag where one process alone counts: by the protocol, or of runs so long that a process is a few of them."""
    if protocol.latency.max_invocations > 1 and len(kept) != 1:
        return []
    runs = min(len(part["latency_ms"]) for part in kept[0]["cases"].values())
    if is_long(kept[0], protocol.latency):
        said = f"{runs} run{'' if runs == 1 else 's'} of one process"
        text = f"{said}, because a run lasts seconds: a value without an interval, so the verdict stays open"
    else:
        text = "a glance: one process was timed, which gives no interval, so no verdict and no rank"
    return [flag("glance", "warn", text)]


def blank(case: Case, context: Context, started_at: str, finished_at: str) -> Record:
    """The record of a case before anything is known of it: what it is of, and every part that a record has, empty."""
    return {
        "record_key": f"{case.key}.{context.machine_key}",
        "case_key": case.key,
        "group_key": case.group_key,
        "baseline_key": case.baseline.key,
        "machine_key": context.machine_key,
        "supersedes": None,
        "case": case.as_dict(),
        "started_at": started_at,
        "finished_at": finished_at,
        "code": context.code,
        "protocol": context.protocol.as_record(),
        "environment": context.environment,
        "machine": context.machine,
        **copy.deepcopy(_EMPTY),
    }


_EMPTY: dict[str, Any] = {
    **{meter.key: {} for meter in METERS},
    "layers": [],
    "layers_info": {},
    "weights": {},
    "picture": None,
    "curves": [],
    "part_layers": {},
    "conversion": {},
    "timing": {"session": None, "paired": False, "stop_reason": "", "noise_floor": None, "invocations": []},
}


def failed(
    case: Case,
    context: Context,
    status: str,
    error: dict[str, Any],
    started_at: str,
    finished_at: str,
    probe: dict[str, Any] | None = None,
) -> Record:
    """The record of a case that did not finish: what the probe found if it did, every other metric unavailable."""
    why = f"the case ended as {status} in the phase {error['phase']}: {error['message']}"
    known = {(item["metric"], item.get("part", "")): item for item in (probe or {}).get("readings", [])}
    score = context.scores.get(case.task, DEFAULT_SCORE)
    expected = ["params", "size_bytes", "macs", "peak_memory_bytes", "energy_j", score, *TIMED]
    whole = workloads.find(case.workload).whole
    missing = [unavailable(name, why) for name in expected if name not in {metric for metric, _ in known}]
    rows = [*known.values(), *(replace(m, part=whole if METRICS[m.metric].per_part else "").as_dict() for m in missing)]
    return {
        **blank(case, context, started_at, finished_at),
        **_details(probe or {}),
        "status": status,
        "error": error,
        "flags": (probe or {}).get("flags", []),
        "readings": rows,
    }


def _details(probe: dict[str, Any]) -> dict[str, Any]:
    details = probe.get("details", {})
    found = {meter.key: dict(details[meter.name]) for meter in METERS if meter.name in details}
    found |= {"conversion": details["conversion"]} if "conversion" in details else {}
    kept: dict[str, Any] = {name: probe[name] for name in ("curves", "weights", "picture", "labels") if name in probe}
    return {**found, **kept}


def finished(case: Case, context: Context, probe: dict[str, Any], session: Session | None, finished_at: str) -> Record:
    """The record of a measured case.

    Args:
        case: what was measured.
        context: what the sweep's records share.
        probe: the probe's result.
        session: the session that timed it; None where no timing was wanted.
        finished_at: UTC, ISO 8601.
    """
    record = {**blank(case, context, probe["started_at"], finished_at), **_details(probe)}
    rows, flags = list(probe["readings"]), list(probe["flags"])
    if session is not None:
        timed = [*timed_readings(case, session, context.protocol), *_of_spans(case, probe, session, context.protocol)]
        better = {item.key for item in timed}  # of the timed processes, where the probe's one told it as well
        rows = [row for row in rows if (row["metric"], row["part"]) not in better]
        rows += [item.as_dict() for item in timed]
        record["timing"] = _timing(case, session, context.protocol)
        kept, _ = usable(session.invocations, context.protocol.latency)
        flags += _glance(context.protocol, kept) + _flags(record["timing"]) + _apart(session)
        record["layers"], record["layers_info"] = merge(
            probe.get("layers", []), probe.get("layers_info", {}), kept, case.key
        )
        record["part_layers"] = _part_layers(probe, kept, case.key)
    rows += [item.as_dict() for item in _modelled(record)]
    rows += [item.as_dict() for item in _utilised(case, record, rows)]
    rows += [item.as_dict() for item in _derived(case, rows)]
    status, error = _judged(flags, record["timing"])
    return {**record, "status": status, "error": error, "flags": flags, "readings": _ordered(rows)}


def _judged(flags: list[dict[str, str]], timing: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """How a measured case ended and why: what makes it invalid outweighs what disturbed it."""
    invalid = [each for each in flags if each["severity"] == "invalid"]
    if invalid:
        codes = {each["code"] for each in invalid}
        return ("unstable" if codes == {"unstable"} else "invalid"), _ended(invalid[0]["code"], invalid[0]["text"])
    if not timing.get("clean", True):
        return "contaminated", _why_contaminated(timing)
    disturbed = next((each for each in flags if each["code"] in DISTURBANCES), None)
    if disturbed is not None:
        text = f"{disturbed['text']}. Measure again on a quiet machine with retry=disturbed"
        return "contaminated", _ended("contaminated", text)
    return "ok", None


def _ended(kind: str, text: str) -> dict[str, Any]:
    """An error of the measurement as a record holds it."""
    return {"phase": "measure", "type": kind, "message": text, "log_tail": ""}


def _why_contaminated(timing: dict[str, Any]) -> dict[str, Any]:
    lines = timing["invocations"]
    text = (
        f"{sum(line['set_aside'] for line in lines)} of {len(lines)} processes were preempted in too many of their "
        "samples and replacing them did not help: other work was using the cores. Times are too long, and ratios "
        "favour the shorter network, which is preempted less often. Measure again on a quiet machine with "
        "retry=disturbed"
    )
    return _ended("contaminated", text)


def _part_layers(probe: dict[str, Any], kept: Sequence[Invocation], key: str) -> dict[str, Any]:
    """Layer tables of the workload's further parts, with their times."""
    found = {}
    for part, table in probe.get("part_layers", {}).items():
        rows, info = merge(table["layers"], table["info"], kept, key, part)
        found[part] = {"layers": rows, "info": info}
    return found


def _modelled(record: Record) -> list[Reading]:
    """Ideal and attainable latency of every part, from its layers and the machine's measured peaks; else why not."""
    whole = workloads.find(record["case"]["workload"]).whole
    tables = {whole: record["layers"], **{part: table["layers"] for part, table in record["part_layers"].items()}}
    found = []
    for part, layers in tables.items():
        line, why = roofline_of_record.from_record({**record, "layers": layers})
        if line is None:
            found += [unavailable(metric, why, part) for metric in ("ideal_ms", "attainable_ms")]
        else:
            found += [replace(item, part=part) for item in roofline.readings(line)]
    return found


def _utilised(case: Case, record: Record, rows: Sequence[dict[str, Any]]) -> list[Reading]:
    """Share of the machine's peak that every timed part uses."""
    whole = workloads.find(case.workload).whole
    known = {(row["metric"], row["part"]): Reading(**row) for row in rows if row["value"] is not None}
    parts = [part for metric, part in known if metric == "latency_ms"]
    tables = {whole: record["layers"], **{part: table["layers"] for part, table in record["part_layers"].items()}}
    found = []
    for part in parts:
        of_part = {metric: item for (metric, own), item in known.items() if own == part}
        rates = utilisation.readings({**record, "layers": tables.get(part, [])}, of_part.get)
        found += [replace(item, part=part) for item in rates]
    return found


def _derived(case: Case, rows: Sequence[dict[str, Any]]) -> list[Reading]:
    """The field's own names, which the workload makes of what was measured; nothing of what is there already."""
    module = workloads.module_of(case.workload)
    if not hasattr(module, "derive"):
        return []
    whole = module.WORKLOAD.whole
    have = {(row["metric"], row["part"]): Reading(**row) for row in rows}

    def value(metric: str, part: str = "") -> Reading | None:
        found = have.get((metric, part)) or have.get((metric, whole) if part == "" else ("", ""))
        return found if found is not None and found.value is not None else None

    derived: list[Reading] = module.derive(case.full_shape, value)
    return [item for item in derived if item.key not in have]


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    order = {name: place for place, name in enumerate(METRICS)}
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if (row["metric"], row["part"]) in seen:
            raise ValueError(f"two readings of {row['metric']} of part {row['part'] or 'the subject'}")
        seen.add((row["metric"], row["part"]))
    return sorted(rows, key=lambda row: order[row["metric"]])
