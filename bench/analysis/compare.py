"""Two sets of records side by side: what changed, how surely, and whether a gate should fail.

Ratios are turned so that above 1 the second side is better. Where both sides were timed in one session they are paired
process by process; else Welch's interval on logs is used and said to be unpaired. Ratios to the baseline travel between
sessions and are compared as they are; milliseconds do not, because sessions differ by several percent on a shared host
whatever is measured. So times are compared in units of the reference GEMM of the same process, and a difference counts
only where the clock shows it too. With three sessions or more on each side the session is the unit of replication.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from bench.analysis.ranking import COMPARABLE, medians_of, rank_intervals
from bench.analysis.timings import FIELDS, paired, per_gemm, per_process, speedups, used_invocations
from bench.config.protocol import protocol_key
from bench.host import machine
from bench.metrics import METRICS
from bench.plan.case import Case
from bench.statistics import (
    EQUIVALENCE,
    LEVEL,
    MARGIN,
    Interval,
    Verdict,
    difference_p,
    from_summary,
    holm,
    log_mean_interval,
    paired_accuracy_difference,
    ratio_interval_paired,
    ratio_interval_welch,
    ratio_of_summaries,
    verdict,
)
from bench.store.record_parts import ONE_REPLICATE, reading_of
from bench.store.records import Record

__all__ = [
    "COMPARABLE", "COMPARED", "EQUAL", "Comparison", "Row", "compare", "environment_difference", "match", "medians_of",
    "rank_intervals", "run_difference",
]  # fmt: skip

AGREES, REGRESSION, NOTHING_COMPARABLE = 0, 1, 5

#: Text of a row whose values are exactly equal.
EQUAL = "equal"

#: What is compared unless told otherwise.
COMPARED = (
    "latency_ms", "throughput_per_s", "speedup", "macs", "params", "size_bytes", "peak_memory_bytes", "energy_j", "accuracy",
)  # fmt: skip
#: Deterministic but measured: equal within this share.
MEMORY_TOLERANCE = 0.02
#: Accuracies are the same where the interval of their difference lies within this many percentage points.
ACCURACY_TOLERANCE = 0.5
#: Sessions per side from which the session, not the process, is the unit of replication.
SESSIONS_ENOUGH = 3


#: What two commits of one case may differ in; the last only where no side has two sets of weights.
_NOT_IDENTITY = ("suite", "subject_digest", "protocol", "data", "checkpoint")
_WORDS = {"FASTER": "BETTER", "SLOWER": "WORSE"}
#: Metrics that the timed processes give.
_TIMED = (*FIELDS, "speedup")


@dataclass(frozen=True)
class Row:
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


@dataclass(frozen=True)
class Comparison:
    """All rows, what only one side has, how the environments differ, and the exit code for a gate."""

    label_a: str
    label_b: str
    rows: tuple[Row, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    environment: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    exit_code: int = AGREES

    @property
    def regressions(self) -> tuple[Row, ...]:
        """The rows for which a gate fails."""
        return tuple(row for row in self.rows if row.regression)


@dataclass(frozen=True)
class _Limits:
    """What counts as a difference, and what still counts as the same (0.05: within 1/1.05 to 1.05)."""

    margin: float
    equivalence: float


@dataclass(frozen=True)
class _Draft:
    """A row whose verdict waits for the other rows' p-values."""

    row: Row
    floor: tuple[float, float] | None = None
    invalid: str | None = None
    host_changed: bool = False
    unseen: bool = False  # the clock does not show the difference that the reference GEMM's units show
    disturbed: bool = False  # a side is contaminated, which is shown but carries no verdict
    excuse: str | None = None  # why the row, if it is worse, is no regression


def compare(
    a: Sequence[Record],
    b: Sequence[Record],
    *,
    metrics: Sequence[str] = COMPARED,
    label_a: str = "a",
    label_b: str = "b",
    margin: float | None = None,
    level: float = LEVEL,
) -> Comparison:
    """What changed from `a` to `b`, case by case, with Holm's correction over all rows that are tested.

    Cases are matched by everything that describes them but their source code and weights, so that two commits can be
    compared; of several versions of a case on one side the newest counts, with all its sessions, under a protocol that both
    sides have if there is one. A lone record on either side is compared with a lone one on the other whatever they are.
    Contaminated sessions count only where a case has no other; then its times and energies are shown without a verdict.

    Args:
        a: records before.
        b: records after.
        metrics: which metrics, names of `bench.metrics`.
        label_a: name of the first side in texts.
        label_b: name of the second.
        margin: smallest relative difference that counts; by default the one of the records' protocol.
        level: confidence level.
    """
    pairs, only_a, only_b = match(a, b)
    found = [(_limits(left[-1], right[-1], margin), left, right) for left, right in pairs]
    drafts = [(own, draft) for own, left, right in found for draft in _drafts(left, right, metrics, own.margin, level)]
    adjusted = holm([draft.row.p for _, draft in drafts])
    rows = tuple(_judged(draft, p, own) for (own, draft), p in zip(drafts, adjusted, strict=True))
    first = pairs[0] if pairs else None
    return Comparison(
        label_a, label_b, rows, tuple(only_a), tuple(only_b),
        tuple(run_difference(first[0][-1], first[1][-1])) if first else (), (*_notes(pairs), *_why_no_times(rows)), _exit_code(rows),
    )  # fmt: skip


def _exit_code(rows: Sequence[Row]) -> int:
    """1 for a regression, 5 where no row, or of the times none, could be compared, else 0."""
    if any(row.regression for row in rows):
        return REGRESSION
    nothing = all(row.kind == "INVALID" for row in rows)
    return NOTHING_COMPARABLE if nothing or any(_why_no_times(rows)) else AGREES


def _why_no_times(rows: Sequence[Row]) -> Iterable[str]:
    """A note where both sides were timed and no time could be compared: equal counts alone pass no gate."""
    timed = [row for row in rows if row.metric in _TIMED and row.a is not None]
    if timed and all(row.kind == "INVALID" for row in timed):
        yield f"no time could be compared, so nothing is said of speed (exit code {NOTHING_COMPARABLE}): {timed[0].text}"


def environment_difference(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What differs between two environments and nothing else: (what, in a, in b), readable, hardware first."""
    return machine.difference(a, b)


def run_difference(a: Record, b: Record) -> list[tuple[str, str, str]]:
    """What differs between the circumstances of two records: code, protocol, source of the subject, then environment."""
    pairs = [
        ("code version", _of(a, "code", "version"), _of(b, "code", "version")),
        ("code commit", _of(a, "code", "commit"), _of(b, "code", "commit")),
        ("protocol", f"{_of(a, 'protocol', 'name')} ({protocol_key(a)})", f"{_of(b, 'protocol', 'name')} ({protocol_key(b)})"),
        ("source of model and method", _of(a, "case", "subject_digest"), _of(b, "case", "subject_digest")),
        ("weights", _of(a, "case", "checkpoint"), _of(b, "case", "checkpoint")),
        ("data", _of(a, "case", "data"), _of(b, "case", "data")),
    ]  # fmt: skip
    changed = [(what, str(one or "unknown"), str(two or "unknown")) for what, one, two in pairs if one != two]
    return changed + environment_difference(a.get("environment") or {}, b.get("environment") or {})


# ---------------------------------------------------------------------------------------------- matching


def match(
    a: Sequence[Record], b: Sequence[Record]
) -> tuple[list[tuple[list[Record], list[Record]]], list[str], list[str]]:
    """Pairs of (sessions of a case in a, in b), oldest session first, and labels of cases that only one side has.

    The same machine on both sides is preferred; otherwise a case matches across machines if each side has it on one.
    """
    weights_matter = _collides(a) or _collides(b)
    left, right = (_by_identity(side, weights_matter) for side in (a, b))
    if len(left) == len(right) == 1:
        return [_sessions(next(iter(left.values())), next(iter(right.values())))], [], []
    pairs = {key: _sessions(left[key], right[key]) for key in left if key in right}
    rest_a, rest_b = ({k[0]: k for k in side if k not in pairs} for side in (left, right))
    single_a, single_b = (_seen_once(side, pairs) for side in (left, right))
    for identity in [name for name in rest_a if name in rest_b and name in single_a and name in single_b]:
        pairs[rest_a[identity]] = _sessions(left[rest_a[identity]], right[rest_b[identity]])
        del rest_a[identity], rest_b[identity]
    only_a, only_b = (
        [_label(side[key][-1]) for key in rest.values()] for side, rest in ((left, rest_a), (right, rest_b))
    )
    return list(pairs.values()), only_a, only_b


def _identity(record: Record, weights_matter: bool) -> str:
    case = record["case"]
    skip = _NOT_IDENTITY[:-1] if weights_matter else _NOT_IDENTITY
    return repr(sorted((name, value) for name, value in case.items() if name not in skip))


def _collides(records: Sequence[Record]) -> bool:
    """Whether two cases of one side differ in nothing but their weights."""
    seen: dict[str, set[Any]] = {}
    for record in records:
        seen.setdefault(_identity(record, False), set()).add(record["case"].get("checkpoint"))
    return any(len(weights) > 1 for weights in seen.values())


def _by_identity(records: Sequence[Record], weights_matter: bool) -> dict[tuple[str, str], list[Record]]:
    """All records of each case on each machine, whatever version and protocol, oldest first."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda r: str(r["started_at"])):
        groups.setdefault((_identity(record, weights_matter), record["machine_key"]), []).append(record)
    return groups


def _sessions(a: list[Record], b: list[Record]) -> tuple[list[Record], list[Record]]:
    """The sessions to compare of a case that both sides have, under b's newest protocol among those that both have."""
    common = {protocol_key(record) for record in a} & {protocol_key(record) for record in b}
    if common:
        chosen = next(key for record in reversed(b) if (key := protocol_key(record)) in common)
        a, b = ([record for record in side if protocol_key(record) == chosen] for side in (a, b))
    return _newest(a), _newest(b)


def _newest(side: list[Record]) -> list[Record]:
    """The sessions of the newest version; one that was disturbed or broken off stands only where there is no whole one."""
    own = [record for record in side if record["case_key"] == side[-1]["case_key"]]
    whole = [record for record in own if record["status"] == "ok"]
    if whole and own[-1]["status"] in ("contaminated", "interrupted"):
        return whole
    return [*(record for record in whole if record is not own[-1]), own[-1]]


def _seen_once(side: Mapping[tuple[str, str], Any], taken: Mapping[tuple[str, str], Any]) -> set[str]:
    names = [key[0] for key in side if key not in taken]
    return {name for name in names if names.count(name) == 1}


def _label(record: Record) -> str:
    return Case.from_dict(record["case"]).label


# ---------------------------------------------------------------------------------------------- one case


def _drafts(a: list[Record], b: list[Record], metrics: Sequence[str], margin: float, level: float) -> Iterable[_Draft]:
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
        yield _Draft(replace(row, regression=broke), invalid=text)
        return
    for metric in metrics:
        if metric in FIELDS:
            yield from _timed(a, b, metric, margin, level)
        elif metric == "speedup":
            yield from _speedup(a, b, margin, level)
        elif metric == "accuracy":
            yield from _accuracy(left, right, level)
        else:
            yield from _read(left, right, metric, margin)


def _timed(a: list[Record], b: list[Record], metric: str, margin: float, level: float) -> Iterable[_Draft]:
    """A time or rate: paired within a session, else unpaired and held against the reference GEMM."""
    left, right = a[-1], b[-1]
    if not per_process(left, metric) or not per_process(right, metric):
        return
    together = paired(left, right, metric)
    notes: tuple[str, ...] = ()
    moved = unseen = False
    if together:
        ratio, pairing = ratio_interval_paired(*_turned(metric, *together), level), "paired"
        p = difference_p(ratio, margin)
    else:
        raw, pairing = _unpaired(
            metric, [per_process(r, metric) for r in a], [per_process(r, metric) for r in b], level
        )
        against, _ = _unpaired(metric, [per_gemm(r, metric) for r in a], [per_gemm(r, metric) for r in b], level)
        ratio, p = _by_the_gemm(raw, against, margin)
        notes, by_gemm = _gemm_note(raw, against, margin), ratio is against
        moved = by_gemm and abs(math.log(raw.value)) > math.log(EQUIVALENCE)
        unseen = by_gemm and p == 1.0 and (difference_p(against, margin) or 0.0) < 1 - level
        pairing += ", in units of the reference GEMM" if by_gemm else ""
    before, after = (_mean([value for record in side for value in per_process(record, metric)]) for side in (a, b))
    disturbed = tuple(_disturbed(left, right))
    row = _row(left, right, metric, before, after, ratio, pairing, (*notes, *disturbed))
    yield _Draft(replace(row, p=None if disturbed else p), _floor(left, right), _incomparable(left, right),
                 host_changed=moved, unseen=unseen, disturbed=bool(disturbed))  # fmt: skip


def _speedup(a: list[Record], b: list[Record], margin: float, level: float) -> Iterable[_Draft]:
    """The speed-up over the baseline; it travels between machines."""
    one, two = ([list(speedups(r).values()) for r in side] for side in (a, b))
    if not one[-1] or not two[-1]:
        return
    together = paired(a[-1], b[-1], "speedup")
    if together:
        ratio, pairing = ratio_interval_paired(*_turned("speedup", *together), level), "paired"
    else:
        ratio, pairing = _unpaired("speedup", one, two, level)
        pairing += ", ratio of ratios"
    before, after = (_mean([value for session in side for value in session]) for side in (one, two))
    excuse = _faster_baseline(a, b, margin, level)
    disturbed = tuple(_disturbed(a[-1], b[-1]))
    row = _row(a[-1], b[-1], "speedup", before, after, ratio, pairing, (*([excuse] if excuse else []), *disturbed))
    yield _Draft(replace(row, p=None if disturbed else difference_p(ratio, margin)), _floor(a[-1], b[-1]),
                 _other_protocol(a[-1], b[-1]), disturbed=bool(disturbed), excuse=excuse)  # fmt: skip


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
    return [line["baseline_median_ms"] / (line["gemm_median_ms"] if per_gemm else 1.0) for line in lines]


def _accuracy(a: Record, b: Record, level: float) -> Iterable[_Draft]:
    """Accuracy, image by image where both saw the same images."""
    one, two = reading_of(a, "accuracy"), reading_of(b, "accuracy")
    if one is None or two is None:
        return
    first, second = a.get("quality") or {}, b.get("quality") or {}
    answers_a, answers_b = ([mark == "1" for mark in part.get("per_sample") or ""] for part in (first, second))
    same = first.get("samples_digest") and first.get("samples_digest") == second.get("samples_digest")
    if same and answers_a and len(answers_a) == len(answers_b):
        found = paired_accuracy_difference(answers_a, answers_b, level)
        value, low, high, pairing = found.value, found.low, found.high, "paired by image"
    elif None in (one["ci_low"], one["ci_high"], two["ci_low"], two["ci_high"]):
        yield _Draft(_row(a, b, "accuracy", one["value"], two["value"], None, "unpaired"), invalid=ONE_REPLICATE)
        return
    else:
        reach = float(stats.norm.ppf((1 + level) / 2))
        value = two["value"] - one["value"]
        spread = math.hypot(_half(one), _half(two)) / 1.96 * reach
        low, high, pairing = value - spread, value + spread, "unpaired"
    row = _row(a, b, "accuracy", one["value"], two["value"], None, pairing)
    kind = "BETTER" if low > 0 else "WORSE" if high < 0 else "AMBIGUOUS"
    if low >= -ACCURACY_TOLERANCE and high <= ACCURACY_TOLERANCE:
        kind = "SAME"
    text = f"{value:+.2f} points ({low:+.2f} to {high:+.2f})"
    yield _Draft(replace(row, kind=kind, text=text, regression=kind == "WORSE"))


def _read(a: Record, b: Record, metric: str, margin: float) -> Iterable[_Draft]:
    """A metric taken from the readings: counted exactly, else by its interval, memory without one within a tolerance."""
    one, two = reading_of(a, metric), reading_of(b, metric)
    if one is None or two is None:
        return
    values, provenance = (one["value"], two["value"]), one["provenance"]
    if provenance != two["provenance"]:
        text = f"{provenance} against {two['provenance']}: not the same kind of number"
        yield _Draft(_row(a, b, metric, *values, None, ""), invalid=text)
        return
    intervals = [from_summary(r["value"], r["ci_low"], r["ci_high"], r["n"]) for r in (one, two)]
    if provenance == "counted":
        yield _Draft(_exact(_row(a, b, metric, *values, None, provenance), 0.0))
    elif all(item.se is not None for item in intervals):
        top, bottom = intervals if METRICS[metric].better == "lower" else reversed(intervals)
        ratio, disturbed = ratio_of_summaries(top, bottom), tuple(_disturbed(a, b))
        row = _row(a, b, metric, *values, ratio, "unpaired", disturbed)
        yield _Draft(replace(row, p=None if disturbed else difference_p(ratio, margin)), invalid=_incomparable(a, b),
                     disturbed=bool(disturbed))  # fmt: skip
    elif METRICS[metric].section == "memory":
        row = _exact(_row(a, b, metric, *values, None, provenance), MEMORY_TOLERANCE)
        invalid = _other_hardware(a, b)
        yield _Draft(replace(row, regression=row.regression and not invalid), invalid=invalid)
    else:
        text = _incomparable(a, b) or ONE_REPLICATE
        yield _Draft(_row(a, b, metric, *values, None, provenance), invalid=text)


def _exact(row: Row, tolerance: float) -> Row:
    """A row whose values are equal, within the tolerance, or not."""
    a, b = row.a or 0.0, row.b or 0.0
    change = (b - a) / a if a else (0.0 if a == b else math.inf)
    if abs(change) <= tolerance:
        return replace(row, kind="SAME", text=EQUAL if a == b else f"{100 * change:+.2f} %")
    better = METRICS[row.metric].better
    kind = "AMBIGUOUS" if better == "none" else "BETTER" if (change < 0) == (better == "lower") else "WORSE"
    return replace(row, kind=kind, text=f"{100 * change:+.2f} %", regression=kind == "WORSE")


def _limits(a: Record, b: Record, margin: float | None) -> _Limits:
    """The limits that the protocol of both records sets, the wider of the two if it is not the same one."""
    usual = (("margin", MARGIN), ("equivalence", EQUIVALENCE - 1))
    widest = [max(_limit(record, name, value) for record in (a, b)) for name, value in usual]
    return _Limits(widest[0] if margin is None else margin, widest[1])


def _limit(record: Record, name: str, usual: float) -> float:
    """A limit that the record's protocol sets, or the usual one where it sets none that could be one."""
    part: Any = record.get("protocol")
    for inner in ("parameters", "latency", name):
        part = part.get(inner) if isinstance(part, dict) else None
    return float(part) if isinstance(part, (int, float)) and 0 < part < 1 else usual


def _judged(draft: _Draft, p_adjusted: float | None, limits: _Limits) -> Row:
    """The row with its verdict; rows that were decided already stay as they are."""
    row = draft.row
    if draft.invalid:
        return replace(row, kind="INVALID", text=draft.invalid)
    if row.ratio is None:
        return row
    made = verdict(
        row.ratio, margin=limits.margin, equivalence=1 + limits.equivalence, noise_floor=draft.floor,
        p_adjusted=p_adjusted,
    )  # fmt: skip
    made = _unless_doubtful(made, draft)
    kind = made.kind if row.metric in _TIMED else _WORDS.get(made.kind, made.kind)
    return replace(row, kind=kind, text=made.text, p_adjusted=p_adjusted, more_invocations=made.more_invocations,
                   regression=made.kind == "SLOWER" and not draft.excuse)  # fmt: skip


def _unless_doubtful(made: Verdict, draft: _Draft) -> Verdict:
    """The verdict, or AMBIGUOUS with the reason where the host, the clock or other work on a side speaks against it."""
    if made.kind == "INVALID":
        return made
    if draft.disturbed:
        return Verdict("AMBIGUOUS", f"{made.text}; no verdict, because a side is contaminated")
    if made.kind == "SAME" and draft.host_changed:
        return Verdict("AMBIGUOUS", f"{made.text} against the reference GEMM, but the host changed")
    if made.kind == "AMBIGUOUS" and draft.unseen:
        return Verdict(
            "AMBIGUOUS", f"{made.text.partition(':')[0]} against the reference GEMM, which the clock does not show"
        )
    return made


# ---------------------------------------------------------------------------------------------- values and ratios


def _row(
    a: Record, b: Record, metric: str, value_a: float | None, value_b: float | None, ratio: Interval | None,
    pairing: str, notes: tuple[str, ...] = (),
) -> Row:  # fmt: skip
    label = _label(a) if _label(a) == _label(b) else f"{_label(a)} -> {_label(b)}"
    return Row(label, metric, METRICS[metric].unit, value_a, value_b, ratio, pairing, "INVALID", "", notes=notes,
               case_key_a=a["case_key"], case_key_b=b["case_key"])  # fmt: skip


def _turned(metric: str, a: list[float], b: list[float]) -> tuple[list[float], list[float]]:
    """Numerators and denominators of the ratio that is above 1 where b is better."""
    return (a, b) if METRICS[metric].better == "lower" else (b, a)


def _unpaired(metric: str, a: list[list[float]], b: list[list[float]], level: float) -> tuple[Interval, str]:
    """Welch's ratio over processes, or over sessions where there are enough; an empty side has no interval."""
    one, two = ([values for values in side if values] for side in (a, b))
    if not one or not two:
        return Interval(1.0, None, None, 0), "unpaired"
    if min(len(one), len(two)) >= SESSIONS_ENOUGH:
        means = [_mean(values) for values in one], [_mean(values) for values in two]
        return ratio_interval_welch(*_turned(metric, *means), level), "unpaired, by session"
    pooled = [v for values in one for v in values], [v for values in two for v in values]
    return ratio_interval_welch(*_turned(metric, *pooled), level), "unpaired"


def _by_the_gemm(raw: Interval, against: Interval, margin: float) -> tuple[Interval, float | None]:
    """The ratio to judge by and its p-value: in units of the reference GEMM, and the clock must agree.

    The clock agrees where its ratio lies beyond the margin on the same side; certainty is asked of the GEMM's units alone,
    because the host moves the clock between sessions by more than what is looked for. Without a reference GEMM the clock
    stands alone. (In simulated sessions that differ by 3 %, a slow-down of 5 % in everything is found twice as often as
    where both must be certain, at less than 1 % false alarms; `tests/analysis/test_compare.py` repeats it.)
    """
    p = difference_p(against, margin)
    if p is None:
        return raw, difference_p(raw, margin)
    agrees = (raw.value > 1) == (against.value > 1) and abs(math.log(raw.value)) > math.log1p(margin)
    return against, p if agrees else 1.0


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
    """Which sides were measured in processes that other work preempted, none of which could be replaced."""
    for name, record in (("a", a), ("b", b)):
        if record["status"] == "contaminated":
            yield f"{name} is contaminated: its processes were preempted by other work; measure it again on a quiet host"


def _mean(values: Sequence[float]) -> float:
    return log_mean_interval(values).value


def _half(reading: Mapping[str, Any]) -> float:
    return float(reading["ci_high"] - reading["ci_low"]) / 2


def _floor(a: Record, b: Record) -> tuple[float, float] | None:
    """The wider of the two sessions' A/A intervals; none where no twin was timed."""
    floors = [(r.get("timing") or {}).get("noise_floor") or {} for r in (a, b)]
    ends = [(f["low"], f["high"]) for f in floors if f.get("low") is not None and f.get("high") is not None]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def _other_protocol(a: Record, b: Record) -> str | None:
    one, two = protocol_key(a), protocol_key(b)
    return None if one == two else f"protocols differ ({one}, {two}): measure both under one"


def _other_hardware(a: Record, b: Record) -> str | None:
    hardware = [machine.machine_class(r.get("environment") or {}) for r in (a, b)]
    if a["machine_key"] != b["machine_key"] and hardware[0] != hardware[1]:
        return "other hardware: only counts and ratios to the baseline travel"
    return None


def _incomparable(a: Record, b: Record) -> str | None:
    """Why absolute times or energies may not be compared."""
    return _other_hardware(a, b) or _other_protocol(a, b)


def _of(record: Record, part: str, name: str) -> Any:
    return (record.get(part) or {}).get(name)


def _notes(pairs: Sequence[tuple[list[Record], list[Record]]]) -> Iterable[str]:
    if not pairs:
        yield "no case is on both sides: compare results of one suite, or two single rows"
    lone = any(min(len(a), len(b)) < SESSIONS_ENOUGH and not paired(a[-1], b[-1], "latency_ms") for a, b in pairs)
    if lone:
        yield (
            f"fewer than {SESSIONS_ENOUGH} sessions on a side: what the host does between sessions is seen only through "
            f"the reference GEMM; alternate a and b, {SESSIONS_ENOUGH} sessions each, for a verdict that includes it"
        )
    if lone and any(speedups(a[-1]) and speedups(b[-1]) for a, b in pairs):
        yield (
            "ratios to the baseline travel between sessions, milliseconds do not: what a method loses or gains shows in "
            "its speedup row first"
        )
