"""One case on both sides, metric by metric: the values, their ratio, and what speaks against a verdict.

Ratios are turned so that above 1 the second side is better; how times are compared, `bench.analysis.compare` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.analysis.matching import label
from bench.analysis.parts import as_part
from bench.analysis.timings import FIELDS, paired, per_gemm, per_process, speedups, used_invocations
from bench.config.protocol import protocol_key
from bench.host.identity import machine_class
from bench.metrics import METRICS, SECTIONS
from bench.scores import RULES, change
from bench.statistics import (
    EQUIVALENCE,
    Interval,
    difference_p,
    from_summary,
    log_mean_interval,
    ratio_interval_paired,
    ratio_interval_welch,
    ratio_of_summaries,
)
from bench.store.record_parts import ONE_REPLICATE, parts_of, reading_of, scored
from bench.store.records import Record

#: Text of a row whose values are exactly equal.
EQUAL = "equal"

#: What is compared unless told otherwise.
COMPARED = (
    "latency_ms",
    "throughput_per_s",
    "speedup",
    "macs",
    "params",
    "size_bytes",
    "peak_memory_bytes",
    "energy_j",
    *RULES,
)
#: Deterministic but measured: equal within this share.
MEMORY_TOLERANCE = 0.02
#: Sections that every workload has; a metric of another one is compared where a record has it.
_COMMON_SECTIONS = frozenset(name for name, section in SECTIONS.items() if section.compared != "shown") | {"fidelity"}
#: Metrics that the timed processes give.
TIMED = (*FIELDS, "speedup")


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of one case on both sides; `ratio` is above 1 where the second side is better.

    `kind` is FASTER, SLOWER, SAME, AMBIGUOUS or INVALID for times, BETTER and WORSE instead of the first two for other
    metrics. `p` and `p_adjusted` (Holm over all tested rows) are of a difference beyond the margin.
    """

    label: str
    metric: str
    unit: str
    a: float | None
    b: float | None
    ratio: Interval | None
    pairing: str
    kind: str
    text: str
    p: float | None = None
    p_adjusted: float | None = None
    more_invocations: int | None = None
    regression: bool = False
    notes: tuple[str, ...] = ()
    case_key_a: str = ""
    case_key_b: str = ""
    part: str = ""

    @property
    def quantity(self) -> str:
        """The metric, and the part of the workload where it is not the whole run."""
        return f"{self.metric} of {self.part}" if self.part else self.metric


#: What speaks against a verdict: a side is contaminated; only the reference GEMM's units say that nothing changed, and
#: the host did; the clock does not show the difference that those units show.
Doubt = Literal["contaminated", "host changed", "unseen by the clock"]


@dataclass(frozen=True)
class Pending:
    """A row whose verdict waits for the other rows' p-values.

    `floor` is the A/A interval that a difference has to exceed; `exemption` says why the row, if it is worse, is no
    regression.
    """

    row: ComparisonRow
    floor: tuple[float, float] | None = None
    doubts: frozenset[Doubt] = frozenset()
    exemption: str | None = None


#: A row that is decided, or one that waits.
Draft = ComparisonRow | Pending


def drafts(a: list[Record], b: list[Record], metrics: Sequence[str], margin: float, level: float) -> Iterable[Draft]:
    """The rows of one case; a case that failed on a side has one row that says so."""
    left, right = a[-1], b[-1]
    failed = [side for side, record in (("a", left), ("b", right)) if record["status"] not in ("ok", "contaminated")]
    if failed:
        text = f"a: {left['status']}, b: {right['status']}" + "".join(
            f"; {error.get('type')}: {error.get('message')}"
            for error in (left.get("error"), right.get("error"))
            if error
        )
        row = _row(left, right, "latency_ms", None, None, None, "")
        broke = failed == ["b"] and right["status"] != "interrupted"
        yield replace(row, text=text, regression=broke)
        return
    wanted = _metrics_of(left, metrics)
    yield from _of_run(a, b, wanted, margin, level)
    for part in (part for part in parts_of(left) if part in parts_of(right)):
        one, two = ([as_part(record, part) for record in side] for side in (a, b))
        for draft in _of_run(one, two, wanted, margin, level):
            yield _with_part(draft, part)


def _metrics_of(record: Record, metrics: Sequence[str]) -> list[str]:
    """What is compared of a record: what its workload alone measures, and its own rate instead of a foreign one."""
    has = {str(row["metric"]) for row in record["readings"] if row["metric"] in METRICS}
    if metrics is not COMPARED:
        return list(metrics)
    rates = [name for name in METRICS if METRICS[name].section == "throughput"]
    common = [name for name in metrics if name not in rates or name in has]
    further = [
        name
        for name, row in METRICS.items()
        if name in has and name not in common and (name in rates or row.section not in _COMMON_SECTIONS)
    ]
    return common + further


def _with_part(draft: Draft, part: str) -> Draft:
    if isinstance(draft, Pending):
        return replace(draft, row=replace(draft.row, part=part))
    return replace(draft, part=part)


def _of_run(a: list[Record], b: list[Record], metrics: Sequence[str], margin: float, level: float) -> Iterable[Draft]:
    """The rows of whole runs, or of a part that is looked at as one."""
    left, right = a[-1], b[-1]
    for metric in metrics:
        compared = METRICS[metric].compared
        if compared == "time":
            yield from _timed(a, b, metric, margin, level)
        elif compared == "ratio":
            yield from _speedup(a, b, margin, level)
        elif compared == "score":
            yield from _score(left, right, metric, level)
        else:
            yield from _read(left, right, metric, margin)


def _timed(a: list[Record], b: list[Record], metric: str, margin: float, level: float) -> Iterable[Draft]:
    """A time or rate: paired within a session, else unpaired and held against the reference GEMM."""
    left, right = a[-1], b[-1]
    if not per_process(left, metric) or not per_process(right, metric):
        return
    if metric not in ("latency_ms", *_rates_of(left)):
        return
    together = paired(left, right, metric)
    notes: tuple[str, ...] = ()
    disturbed = tuple(_disturbed(left, right))
    doubts: set[Doubt] = {"contaminated"} if disturbed else set()
    if together:
        ratio, pairing = ratio_interval_paired(*_orient(metric, *together), level), "paired"
        p = difference_p(ratio, margin)
    else:
        raw, pairing = _unpaired(
            metric, [per_process(r, metric) for r in a], [per_process(r, metric) for r in b], level
        )
        against, _ = _unpaired(metric, [per_gemm(r, metric) for r in a], [per_gemm(r, metric) for r in b], level)
        ratio, p = _by_the_gemm(raw, against, margin)
        notes, by_gemm = _gemm_note(raw, against, margin), ratio is against
        doubts |= _gemm_doubts(raw, against, p, margin, level) if by_gemm else set()
        pairing += ", in units of the reference GEMM" if by_gemm else ""
    before, after = (_mean([value for record in side for value in per_process(record, metric)]) for side in (a, b))
    row = _row(left, right, metric, before, after, ratio, pairing, (*notes, *disturbed))
    row = replace(row, p=None if disturbed else p)
    reason = _incomparable(left, right)
    yield replace(row, text=reason) if reason else Pending(row, _floor(left, right), frozenset(doubts))


def _rates_of(record: Record) -> list[str]:
    """The rates that the record has a reading of: a line of a process does not say in what units its rate is."""
    return [row["metric"] for row in record["readings"] if row["metric"] in FIELDS and row["value"] is not None]


def _speedup(a: list[Record], b: list[Record], margin: float, level: float) -> Iterable[Draft]:
    """The speed-up over the baseline; it travels between machines."""
    one, two = ([list(speedups(r).values()) for r in side] for side in (a, b))
    if not one[-1] or not two[-1]:
        return
    together = paired(a[-1], b[-1], "speedup")
    if together:
        ratio, pairing = ratio_interval_paired(*_orient("speedup", *together), level), "paired"
    else:
        ratio, pairing = _unpaired("speedup", one, two, level)
        pairing += ", ratio of ratios"
    before, after = (_mean([value for session in side for value in session]) for side in (one, two))
    exemption = _faster_baseline(a, b, margin, level)
    disturbed = tuple(_disturbed(a[-1], b[-1]))
    notes = (*([exemption] if exemption else []), *disturbed)
    row = _row(a[-1], b[-1], "speedup", before, after, ratio, pairing, notes)
    row = replace(row, p=None if disturbed else difference_p(ratio, margin))
    reason = _other_protocol(a[-1], b[-1])
    yield (
        replace(row, text=reason)
        if reason
        else Pending(row, _floor(a[-1], b[-1]), frozenset({"contaminated"} if disturbed else ()), exemption)
    )


def _faster_baseline(a: list[Record], b: list[Record], margin: float, level: float) -> str | None:
    """What to say where the baseline got faster beyond doubt: then a smaller speed-up is no loss of time."""
    clock = [[_baselines(record) for record in side] for side in (a, b)]
    units = [[_baselines(record, per_gemm=True) for record in side] for side in (a, b)]
    raw, against = (_unpaired("latency_ms", one, two, level)[0] for one, two in (clock, units))
    ratio, p = _by_the_gemm(raw, against, margin)
    if ratio.value <= 1 or p is None or p >= 1 - level:
        return None
    return f"the baseline is {100 * (ratio.value - 1):.1f} % faster in b: a smaller speed-up over it is no regression"


def _baselines(record: Record, *, per_gemm: bool = False) -> list[float]:
    """The baseline's time in each process that timed the case, or how many reference GEMMs that is."""
    lines = used_invocations(record)
    if per_gemm and not all(line.get("gemm_median_ms") for line in lines):
        return []
    return [
        line["baseline_median_ms"] / (line["gemm_median_ms"] if per_gemm else 1.0)
        for line in lines
        if line.get("baseline_median_ms")
    ]


def _score(a: Record, b: Record, metric: str, level: float) -> Iterable[Draft]:
    """A task's score, sample by sample where both saw the same samples."""
    one, two = scored(a, metric), scored(b, metric)
    if one is None or two is None:
        return
    found = change(metric, one, two, level)
    if found is None:
        yield replace(_row(a, b, metric, one["value"], two["value"], None, "unpaired"), text=ONE_REPLICATE)
        return
    row = _row(a, b, metric, one["value"], two["value"], None, found.pairing)
    kind = {None: "AMBIGUOUS", True: "BETTER", False: "WORSE"}[found.better]
    kind = "SAME" if found.same else kind
    yield replace(row, kind=kind, text=found.text, regression=kind == "WORSE")


def _read(a: Record, b: Record, metric: str, margin: float) -> Iterable[Draft]:
    """A metric from the readings: exact if counted, else by its interval; memory without one by a tolerance."""
    one, two = reading_of(a, metric), reading_of(b, metric)
    if one is None or two is None:
        return
    values, provenance = (one["value"], two["value"]), one["provenance"]
    if provenance != two["provenance"]:
        text = f"{provenance} against {two['provenance']}: not the same kind of number"
        yield replace(_row(a, b, metric, *values, None, ""), text=text)
        return
    intervals = [from_summary(r["value"], r["ci_low"], r["ci_high"], r["n"]) for r in (one, two)]
    if provenance == "counted":
        yield _exact(_row(a, b, metric, *values, None, provenance), 0.0)
    elif all(item.se is not None for item in intervals):
        top, bottom = intervals if METRICS[metric].better == "lower" else reversed(intervals)
        ratio, disturbed = ratio_of_summaries(top, bottom), tuple(_disturbed(a, b))
        row = _row(a, b, metric, *values, ratio, "unpaired", disturbed)
        row = replace(row, p=None if disturbed else difference_p(ratio, margin))
        reason = _incomparable(a, b)
        doubts: frozenset[Doubt] = frozenset({"contaminated"} if disturbed else ())
        yield replace(row, text=reason) if reason else Pending(row, doubts=doubts)
    elif METRICS[metric].section == "memory" or (METRICS[metric].unit == "B" and provenance == "measured"):
        row = _row(a, b, metric, *values, None, provenance)
        reason = _other_hardware(a, b)
        yield replace(row, text=reason) if reason else _exact(row, MEMORY_TOLERANCE)
    else:
        text = _incomparable(a, b) or ONE_REPLICATE
        yield replace(_row(a, b, metric, *values, None, provenance), text=text)


def _exact(row: ComparisonRow, tolerance: float) -> ComparisonRow:
    """A row whose values are equal, within the tolerance, or not."""
    a, b = row.a or 0.0, row.b or 0.0
    change = (b - a) / a if a else (0.0 if a == b else math.inf)
    if abs(change) <= tolerance:
        return replace(row, kind="SAME", text=EQUAL if a == b else f"{100 * change:+.2f} %")
    better = METRICS[row.metric].better
    told = f"{100 * change:+.2f} %"
    if better == "none":
        return replace(row, kind="AMBIGUOUS", text=f"{told}, and neither more nor less is better")
    kind = "BETTER" if (change < 0) == (better == "lower") else "WORSE"
    return replace(row, kind=kind, text=told, regression=kind == "WORSE")


def _row(
    a: Record,
    b: Record,
    metric: str,
    value_a: float | None,
    value_b: float | None,
    ratio: Interval | None,
    pairing: str,
    notes: tuple[str, ...] = (),
) -> ComparisonRow:
    name = label(a) if label(a) == label(b) else f"{label(a)} -> {label(b)}"
    return ComparisonRow(
        name,
        metric,
        METRICS[metric].unit,
        value_a,
        value_b,
        ratio,
        pairing,
        "INVALID",
        "",
        notes=notes,
        case_key_a=a["case_key"],
        case_key_b=b["case_key"],
    )


def _orient(metric: str, a: list[float], b: list[float]) -> tuple[list[float], list[float]]:
    """Numerators and denominators of the ratio that is above 1 where b is better."""
    return (a, b) if METRICS[metric].better == "lower" else (b, a)


def _unpaired(metric: str, a: list[list[float]], b: list[list[float]], level: float) -> tuple[Interval, str]:
    """Welch's ratio over processes, or over sessions where there are enough; an empty side has no interval."""
    one, two = ([values for values in side if values] for side in (a, b))
    if not one or not two:
        return Interval(1.0, None, None, 0), "unpaired"
    if min(len(one), len(two)) >= SESSIONS_ENOUGH:
        means = [_mean(values) for values in one], [_mean(values) for values in two]
        return ratio_interval_welch(*_orient(metric, *means), level), "unpaired, by session"
    pooled = [v for values in one for v in values], [v for values in two for v in values]
    return ratio_interval_welch(*_orient(metric, *pooled), level), "unpaired"


def _by_the_gemm(raw: Interval, against: Interval, margin: float) -> tuple[Interval, float | None]:
    """The ratio to judge by and its p-value: in units of the reference GEMM, and the clock must agree.

    The clock agrees where its ratio lies beyond the margin on the same side; certainty is asked of the GEMM's units
    alone, because the host moves the clock between sessions by more than what is looked for. Without a reference GEMM
    the clock stands alone. (In simulated sessions that differ by 3 %, a slow-down of 5 % in everything is found twice
    as often as where both must be certain, at less than 1 % false alarms; `tests/analysis/test_compare.py` repeats it.)
    """
    p = difference_p(against, margin)
    if p is None:
        return raw, difference_p(raw, margin)
    agrees = (raw.value > 1) == (against.value > 1) and abs(math.log(raw.value)) > math.log1p(margin)
    return against, p if agrees else 1.0


def _gemm_doubts(raw: Interval, against: Interval, p: float | None, margin: float, level: float) -> set[Doubt]:
    """What speaks against a verdict in units of the reference GEMM: a host that changed, a difference off the clock."""
    doubts: set[Doubt] = set()
    if abs(math.log(raw.value)) > math.log(EQUIVALENCE):
        doubts.add("host changed")
    if p == 1.0 and (difference_p(against, margin) or 0.0) < 1 - level:
        doubts.add("unseen by the clock")
    return doubts


def _gemm_note(raw: Interval, against: Interval, margin: float) -> tuple[str, ...]:
    if against.se is None:
        return ("no reference GEMM was timed, so a slower host cannot be told from a slower network",)
    host = raw.value / against.value
    if abs(math.log(host)) <= math.log1p(margin):
        return ()
    word = "faster" if host > 1 else "slower"
    return (
        f"the reference GEMM was {100 * abs(host - 1):.1f} % {word} in b: the host changed; time both in one session",
    )


def _disturbed(a: Record, b: Record) -> Iterable[str]:
    """Which sides other work disturbed: their processes were preempted, or requests of theirs were taken late."""
    for name, record in (("a", a), ("b", b)):
        if record["status"] == "contaminated":
            yield f"{name} is disturbed: other work took the processor from it; measure it again on a quiet host"


def _mean(values: Sequence[float]) -> float:
    return log_mean_interval(values).value


def _floor(a: Record, b: Record) -> tuple[float, float] | None:
    """The wider of the two sessions' A/A intervals; none where no twin was timed."""
    floors = [(r.get("timing") or {}).get("noise_floor") or {} for r in (a, b)]
    ends = [(f["low"], f["high"]) for f in floors if f.get("low") is not None and f.get("high") is not None]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def _other_protocol(a: Record, b: Record) -> str | None:
    one, two = protocol_key(a), protocol_key(b)
    return None if one == two else f"protocols differ ({one}, {two}): measure both under one"


def _other_hardware(a: Record, b: Record) -> str | None:
    hardware = [machine_class(r.get("environment") or {}) for r in (a, b)]
    if a["machine_key"] != b["machine_key"] and hardware[0] != hardware[1]:
        return "other hardware: only counts and ratios to the baseline travel"
    return None


def _incomparable(a: Record, b: Record) -> str | None:
    """Why absolute times or energies may not be compared."""
    return _other_hardware(a, b) or _other_protocol(a, b)


#: Sessions per side from which the session, not the process, is the unit of replication.
SESSIONS_ENOUGH = 3
