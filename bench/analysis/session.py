"""When a group has been timed enough: pure decisions over the raw samples of its invocations.

A session is the set of invocations that time the same members; it is what pairs a case with its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from bench.allocation import ratio_by_rounds
from bench.config.protocol import Latency
from bench.host import gpu_clocks
from bench.statistics import (
    Interval,
    iqr_over_median,
    log_mean_interval,
    outlier_share,
    ratio_interval_paired,
    spread_class,
)

Invocation = dict[str, Any]


@dataclass(frozen=True)
class Decision:
    """Whether a session is finished, and why."""

    done: bool
    reason: str


def preempted_share(invocation: Invocation) -> float:
    """Share of the raw samples during which the process was preempted, of the member that suffered most.

    Preemption hits a long sample more often than a short one, so that the slowest member bounds what it does to ratios.
    """
    flags = [part["preempted"] for part in [*invocation["cases"].values(), invocation["twin"]]]
    return max((sum(own) / len(own) for own in flags if own), default=0.0)


def is_set_aside(invocation: Invocation, protocol: Latency) -> bool:
    """Whether so many samples were preempted that the invocation is kept but not used."""
    return preempted_share(invocation) > protocol.preempted_share


def is_long(invocation: Invocation, protocol: Latency) -> bool:
    """Whether a run of the slowest that was timed lasts so long that a process takes few."""
    if protocol.long_run_s is None:
        return False
    members = [*invocation["cases"].values(), invocation["twin"]]
    timed = [part for item in members for part in (item, *item.get("parts", {}).values())]
    return max(median(part["latency_ms"]) for part in timed) >= 1e3 * protocol.long_run_s


def least(invocations: Sequence[Invocation], protocol: Latency) -> int:
    """Processes at least: fewer where runs are long."""
    long = bool(invocations) and is_long(invocations[0], protocol)
    return protocol.long_least if long else protocol.invocations


def usable(invocations: Sequence[Invocation], protocol: Latency) -> tuple[list[Invocation], bool]:
    """The invocations that count, and whether they are clean.

    If too few clean ones are left after the allowed replacements, all of them count and the rows are contaminated.
    """
    clean = [item for item in invocations if not is_set_aside(item, protocol)]
    if len(clean) >= least(invocations, protocol) or len(clean) == len(invocations):
        return clean, True
    return list(invocations), False


def medians(invocations: Sequence[Invocation], key: str, part: str | None = None) -> list[float]:
    """Per invocation the median of a member's raw samples, in milliseconds; of the whole run unless a part is named."""
    return [median(member(item, key, part)["latency_ms"]) for item in invocations]


def member(invocation: Invocation, key: str, part: str | None = None) -> dict[str, Any]:
    """A member's raw samples of the whole run, or of a further part of it; `twin` is the baseline's twin."""
    whole: dict[str, Any] = invocation["twin"] if key == "twin" else invocation["cases"][key]
    found: dict[str, Any] = whole if part is None else whole["parts"][part]
    return found


def further_parts(invocations: Sequence[Invocation], key: str) -> list[str]:
    """The parts of a member's workload besides the whole, in the order that they were made."""
    return list(member(invocations[0], key).get("parts", {})) if invocations else []


def have_part(invocations: Sequence[Invocation], key: str, part: str | None) -> bool:
    """Whether a member was timed in this part; two sides of a comparison may have different stages."""
    return part is None or all(part in member(item, key).get("parts", {}) for item in invocations)


def speed_ratio(
    invocations: Sequence[Invocation], baseline: str, key: str, protocol: Latency, part: str | None = None
) -> Interval:
    """The baseline's time over a case's, process by process; with the twin as control where the protocol says so."""
    own = medians(invocations, key, part)
    return ratio_interval_paired([_against_ms(item, key, baseline, part, protocol) for item in invocations], own)


def twin_ratio(
    invocations: Sequence[Invocation], baseline: str, protocol: Latency, part: str | None = None
) -> Interval:
    """The baseline's time over its identical twin's, process by process: what a ratio differs from 1 by chance."""
    own = medians(invocations, "twin", part)
    return ratio_interval_paired([_beside_twin_ms(item, baseline, part, protocol) for item in invocations], own)


def _precise(kept: Sequence[Invocation], keys: Sequence[str], baseline: str, protocol: Latency, share: float) -> bool:
    """Whether every interval is within this share of the half-width that the protocol asks for."""
    if len(kept) < 2:
        return False
    for key in keys:
        wanted = []
        if protocol.absolute_half_width is not None:
            wanted.append((log_mean_interval(medians(kept, key)), protocol.absolute_half_width))
        if key != baseline:
            wanted.append((speed_ratio(kept, baseline, key, protocol), protocol.ratio_half_width))
        if any(found.half_width is None or found.half_width > share * goal for found, goal in wanted):
            return False
    return True


def _enough(clean: Sequence[Invocation], keys: Sequence[str], baseline: str, protocol: Latency) -> bool:
    """Whether the intervals are narrow enough, and not only by luck.

    An interval that ends the session because it is narrow is too narrow a little more often than its level says. So the
    first processes that give the precision asked for are followed by `further_invocations`, whatever those give, unless
    the intervals are far narrower (`at_once`), where luck is no matter.

    Source: G. Simons, "On the cost of not knowing the variance when making a fixed-width confidence interval for the
    mean", Ann. Math. Statist. 39, 1968: further observations after stopping restore the coverage.
    """
    if _precise(clean, keys, baseline, protocol, protocol.at_once):
        return True
    earlier = len(clean) - protocol.further_invocations
    return earlier >= least(clean, protocol) and _precise(clean[:earlier], keys, baseline, protocol, 1.0)


def decide(invocations: Sequence[Invocation], keys: Sequence[str], baseline: str, protocol: Latency) -> Decision:
    """Whether to add another process.

    Args:
        invocations: all there are, in order.
        keys: case keys of the members.
        baseline: the member that the others are compared with.
        protocol: limits on number, precision and time.
    """
    clean = [item for item in invocations if not is_set_aside(item, protocol)]
    set_aside, fewest = len(invocations) - len(clean), least(invocations, protocol)
    if len(clean) < fewest:
        exhausted = set_aside > protocol.replacements
        if exhausted and len(invocations) >= fewest + protocol.replacements:
            return Decision(True, f"{set_aside} processes were preempted too often to replace them all")
        return Decision(False, "too few processes")
    if _enough(clean, keys, baseline, protocol):
        decides = protocol.absolute_half_width is not None or any(key != baseline for key in keys)
        return Decision(True, "the precision asked for" if decides else "no ratio that would ask for more processes")
    limit = _limit(invocations, clean, protocol)
    return Decision(limit is not None, limit or "intervals too wide")


def _limit(invocations: Sequence[Invocation], clean: Sequence[Invocation], protocol: Latency) -> str | None:
    """Which limit a session has reached, if one."""
    if len(clean) >= protocol.max_invocations:
        return f"the cap of {protocol.max_invocations} processes"
    if len(invocations) >= protocol.max_invocations + protocol.replacements:
        return f"the cap of {protocol.max_invocations} processes and {protocol.replacements} replaced"
    if sum(item["seconds"] for item in invocations) >= protocol.budget_s:
        return f"the time budget of {protocol.budget_s:g} s"
    return None


def drift(values: Sequence[float]) -> float | None:
    """Median of the last third over median of the first, less one; None with fewer than nine samples."""
    third = len(values) // 3
    if third < 3:
        return None
    return median(values[-third:]) / median(values[:third]) - 1.0


def faults_per_iteration(part: dict[str, Any]) -> float:
    """Minor page faults per forward of a member's raw samples."""
    return sum(part["minor_faults"]) / max(1, len(part["latency_ms"]) * part["block"])


def labels(invocation: Invocation, key: str, protocol: Latency) -> list[str]:
    """What disturbed this member in this invocation, in words that the report explains."""
    part = member(invocation, key)
    found = list(invocation["labels"])
    if part["warmup"]["steady"] is False:  # one run of a long one says neither
        found.append("no steady state")
    moved = drift(part["latency_ms"])
    if moved is not None and abs(moved) > protocol.drift:
        found.append("drift")
    if faults_per_iteration(part) > protocol.page_faults:
        found.append("page faults")
    if not invocation.get("allocator", {}).get("in_force", True):
        found.append("allocator not pinned")
    spread = spread_class(iqr_over_median(part["latency_ms"]))
    if spread != "ok":
        found.append(spread)
    if is_set_aside(invocation, protocol):
        found.append("preempted")
    return found


def throughput(part: dict[str, Any], batch: int) -> float | None:
    """Units per second: over a member's windows the median window, else one run's units over its median time.

    None where the process took no windows although the run can go back to back.
    """
    units = part.get("units", batch)
    if part["throughput"] is None:
        return None
    if not part["throughput"]:
        return float(units / median(part["latency_ms"]) * 1e3)
    return median(units * window["iterations"] / window["ms"] * 1e3 for window in part["throughput"])


def summarise(invocation: Invocation, key: str, baseline: str, batch: int, protocol: Latency) -> dict[str, Any]:
    """The line of a record's `timing.invocations` for one member."""
    part = member(invocation, key)
    values = part["latency_ms"]
    return {
        "index": invocation["index"],
        "samples_file": f"samples/{invocation['session']}/{invocation['index']:02d}.json.gz",
        "n": len(values),
        "block": part["block"],
        "median_ms": median(values),
        "device_median_ms": median(part["device_ms"]) if part["device_ms"] else None,
        "baseline_median_ms": median(member(invocation, baseline)["latency_ms"]),
        "twin_median_ms": median(invocation["twin"]["latency_ms"]),
        "against_ms": _against_ms(invocation, key, baseline, None, protocol),
        **_by_rounds(invocation, baseline, None, protocol),
        "gemm_median_ms": median(invocation["reference_gemm"]["ms"]),
        "throughput_per_s": throughput(part, batch),
        "first_inference_ms": part["first_inference_ms"],
        "compile_ms": part.get("compile_ms"),
        "compiled": part.get("compiled"),
        "capture_ms": part.get("capture_ms"),
        "load_ms": part["load_ms"],
        "steady_state": part["warmup"]["steady"],
        "warmup_s": part["warmup"].get("seconds"),
        "set_aside": is_set_aside(invocation, protocol),
        "labels": labels(invocation, key, protocol),
        "iqr_over_median": iqr_over_median(values),
        "outlier_share": outlier_share(values),
        "preempted_share": sum(part["preempted"]) / len(values),
        "drift": drift(values),
        "minor_faults_per_iteration": faults_per_iteration(part),
        "started_at": invocation["started_at"],
        "seconds": invocation["seconds"],
        "gpu": gpu_clocks.summary(invocation.get("gpu")),
        "host": {name: value for name, value in (invocation.get("host") or {}).items() if name != "labels"},
        "l2": invocation.get("l2"),
        "spans": _span_medians(part),
        "parts": {name: _part_line(invocation, key, baseline, name, protocol) for name in part.get("parts", {})},
    }


def _span_medians(part: dict[str, Any]) -> dict[str, float]:
    """Median milliseconds of each span inside a run, over the process's samples; spans of one name in a run add up."""
    runs = part.get("spans") or []
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: median([sum(run[name]) for run in runs if run.get(name)]) for name in names}


def _against_ms(invocation: Invocation, key: str, baseline: str, part: str | None, protocol: Latency) -> float:
    """The time that a process's speed-up is a ratio to: the baseline's, with its twin where that is a control.

    By rounds it is the case's own median times the median of the rounds' ratios.
    """
    base = member(invocation, baseline, part)["latency_ms"]
    if key == baseline:
        return float(median(base))
    others = [base, member(invocation, "twin", part)["latency_ms"]] if protocol.twin_control else [base]
    return _other_ms(others, member(invocation, key, part)["latency_ms"], protocol)


def _by_rounds(invocation: Invocation, baseline: str, part: str | None, protocol: Latency) -> dict[str, Any]:
    """What a line says besides where ratios are taken round by round: that they are, and the same of the twin."""
    if not protocol.by_rounds:
        return {}
    return {"by_rounds": True, "beside_twin_ms": _beside_twin_ms(invocation, baseline, part, protocol)}


def _beside_twin_ms(invocation: Invocation, baseline: str, part: str | None, protocol: Latency) -> float:
    """The same of the twin: the baseline's median, or the twin's times the median of the rounds' ratios."""
    base, twin = (member(invocation, name, part)["latency_ms"] for name in (baseline, "twin"))
    return _other_ms([base], twin, protocol)


def _other_ms(others: Sequence[Sequence[float]], own: Sequence[float], protocol: Latency) -> float:
    """Milliseconds whose ratio to the own median is that of the others, by rounds or by medians.

    By medians where members have unequal numbers of samples, which are then of no common rounds.
    """
    if protocol.by_rounds and all(len(other) == len(own) for other in others):
        logs = np.log(np.array(others, dtype=float))
        return float(median(own) * np.exp(ratio_by_rounds(logs, np.log(np.array(own, dtype=float)))))
    return math.exp(math.fsum(math.log(median(other)) for other in others) / len(others))


def _part_line(invocation: Invocation, key: str, baseline: str, name: str, protocol: Latency) -> dict[str, Any]:
    """What a line says of a further part of the workload."""
    part = member(invocation, key, name)
    values = part["latency_ms"]
    line = {
        "n": len(values),
        "block": part["block"],
        "median_ms": median(values),
        "throughput_per_s": throughput(part, 1),
        "iqr_over_median": iqr_over_median(values),
    }
    for field, other in (("baseline_median_ms", baseline), ("twin_median_ms", "twin")):
        found = have_part([invocation], other, name)
        line[field] = median(member(invocation, other, name)["latency_ms"]) if found else None
    both = have_part([invocation], baseline, name) and have_part([invocation], "twin", name)
    line["against_ms"] = _against_ms(invocation, key, baseline, name, protocol) if both else None
    return line | (_by_rounds(invocation, baseline, name, protocol) if both else {})
