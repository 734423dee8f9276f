"""Was a row reproduced? A verdict per metric: AGREES, DISAGREES, INCONCLUSIVE, NOT COMPARABLE.

The tolerances are those of the protocol ("Reproducing"): how much may differ depends on whether the new record is from
the same host, from the same class of hardware, or from other hardware, where only counts, scores, memory and the
ratio to the baseline travel. Percentiles and cold-start times are shown in records but not judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.analysis.parts import as_part
from bench.analysis.timings import FIELDS, per_gemm, per_process, speedups
from bench.config.protocol import protocol_key
from bench.host.identity import machine_class
from bench.metrics import METRICS
from bench.scores import RULES
from bench.statistics import (
    Interval,
    from_summary,
    log_mean_interval,
    normal_reach,
    ratio_interval_welch,
    ratio_of_summaries,
)
from bench.store.record_parts import (
    ONE_REPLICATE,
    is_of_part,
    parts_of,
    reading_of,
    readings_of,
    scored,
    whole_of,
)
from bench.store.records import Record

Kind = Literal["AGREES", "DISAGREES", "INCONCLUSIVE", "NOT COMPARABLE"]
Closeness = Literal["same host", "same class", "other hardware"]

EXIT_CODES: dict[Kind, int] = {"AGREES": 0, "DISAGREES": 1, "INCONCLUSIVE": 4, "NOT COMPARABLE": 5}

#: Relative tolerances by closeness; `None`: not comparable.
TIME = {"same host": 0.05, "same class": 0.10, "other hardware": None}
SPEEDUP = {"same host": 0.05, "same class": 0.10, "other hardware": 0.20}
MEMORY = {"same host": 0.02, "same class": 0.05, "other hardware": 0.05}
ENERGY = {"same host": 0.10, "same class": 0.15, "other hardware": None}
#: Share of the difference in a score that does not matter (`bench.scores.RULES`): of accuracy 0.1 and 0.5 points.
SCORE = {"same host": 0.2, "same class": 1.0, "other hardware": 1.0}

#: Float noise in a value that was written and read back.
_NOISE = 1e-9


@dataclass(frozen=True)
class Judgement:
    """One metric's verdict with both values, the tolerance in words, and how many more runs would decide it."""

    metric: str
    kind: Kind
    text: str
    original: float | str | None = None
    new: float | str | None = None
    unit: str = ""
    tolerance: str = ""
    ratio: Interval | None = None
    more_runs: int | None = None
    part: str = ""

    @property
    def quantity(self) -> str:
        """The metric, and the part of the workload where it is not the whole run."""
        return f"{self.metric} of {self.part}" if self.part else self.metric


def judge(original: Record, new: Record, *, own: bool = False) -> list[Judgement]:
    """The verdict on every metric and part that the original has and the protocol gives a tolerance for.

    Status and hashes come first, then the whole run, then the further parts of the workload.

    Args:
        original: the record to reproduce.
        new: the record measured now, of the same case.
        own: whether the original is known to have been measured on this host (see `closeness`).
    """
    near = closeness(original, new, own=own)
    verdicts = [*_status(original, new), *_hashes(original, new)]
    if new["status"] not in ("ok", "contaminated") or original["status"] not in ("ok", "contaminated"):
        return verdicts
    whole = whole_of(original)
    of_whole = [row for row in original["readings"] if is_of_part(row, None, whole)]
    verdicts += _of_run({**original, "readings": of_whole}, new, near)
    for part in parts_of(original):
        verdicts += [replace(item, part=part) for item in _of_run(as_part(original, part), as_part(new, part), near)]
    return verdicts


def _of_run(original: Record, new: Record, near: Closeness) -> Iterable[Judgement]:
    """The verdict on every metric of a whole run, or of a part that is looked at as one."""
    for reading in original["readings"]:
        decide = _judge_of(reading["metric"])
        if decide is not None and reading["value"] is not None:
            yield decide(reading["metric"], original, new, near)


def closeness(original: Record, new: Record, *, own: bool = False) -> Closeness:
    """How near the two machines are: equal keys are the same class, and the same host where that is known.

    Args:
        original: the record to reproduce.
        new: the record measured now.
        own: whether the original is of this host, as a results folder's own journal can say. Records name no host
            unless asked to, and two machines that are built alike have one key.
    """
    one, two = original.get("environment") or {}, new.get("environment") or {}
    if original["machine_key"] != new["machine_key"]:
        return "same class" if machine_class(one) == machine_class(two) else "other hardware"
    names = [(env.get("private") or {}).get("host") for env in (one, two)]
    same = own if None in names else names[0] == names[1]
    return "same host" if same else "same class"


def exit_code(verdicts: Sequence[Judgement]) -> int:
    """0 agrees, 1 disagrees, 4 inconclusive, 5 not comparable, for all verdicts together.

    One DISAGREES decides, then one INCONCLUSIVE. A time that cannot be compared is no obstacle where the speed-up is
    judged in its place. Otherwise, with nothing that agrees, or where counts, memory or the score could not be measured
    again, the answer is 5: what the original says of them has not been reproduced.
    """
    kinds = [item.kind for item in verdicts]
    for kind in ("DISAGREES", "INCONCLUSIVE"):
        if kind in kinds:
            return EXIT_CODES[kind]
    judged = {item.metric for item in verdicts if item.kind == "AGREES"}
    lost = any(item.metric in FIELDS and item.kind == "NOT COMPARABLE" for item in verdicts)
    gone = any(item.kind == "NOT COMPARABLE" and _travels(item.metric) for item in verdicts)
    if not judged or gone or (lost and not judged & {"speedup", *FIELDS}):
        return EXIT_CODES["NOT COMPARABLE"]
    return EXIT_CODES["AGREES"]


def _travels(metric: str) -> bool:
    return metric in METRICS and METRICS[metric].travels


# ---------------------------------------------------------------------------------------------- one metric each


_Decide = Callable[[str, Record, Record, Closeness], Judgement]


def _judge_of(metric: str) -> _Decide | None:
    """How a metric is judged; `None` for one without a tolerance in the protocol."""
    ways: dict[str, _Decide] = {
        "time": _time,
        "ratio": _speedup,
        "score": _score,
        "tolerance": _memory,
        "energy": _energy,
        "exact": _exact,
    }
    return ways.get(METRICS[metric].compared) if metric in METRICS else None


def _status(original: Record, new: Record) -> Iterable[Judgement]:
    """Whether the case ended the same way; a failure that comes back is reproduced."""
    one, two = original["status"], new["status"]
    fine = ("ok", "contaminated")
    same = one == two or (one in fine and two in fine)
    if same and one in fine:
        return
    error = new.get("error") or {}
    text = f"{error.get('phase')}: {error.get('message')}" if error else "it did not fail this time"
    yield Judgement("status", "AGREES" if same else "DISAGREES", text, one, two, tolerance="exact")


def _hashes(original: Record, new: Record) -> Iterable[Judgement]:
    """Weights and data by their hashes, exact everywhere."""
    pairs = [
        ("weights", original["case"].get("checkpoint"), new["case"].get("checkpoint")),
        (
            "data",
            (original.get("quality") or {}).get("samples_digest"),
            (new.get("quality") or {}).get("samples_digest"),
        ),
    ]
    for name, one, two in pairs:
        if one is not None and two is not None:
            same = one == two
            text = "equal hashes" if same else f"other {name}"
            yield Judgement(name, "AGREES" if same else "DISAGREES", text, str(one), str(two), tolerance="exact")


def _exact(metric: str, original: Record, new: Record, near: Closeness) -> Judgement:
    """Counts and sizes: equal on every machine."""
    del near
    one, two = reading_of(original, metric), reading_of(new, metric)
    if one is None or two is None:
        return _missing(metric, original, new, "exact")
    if one["provenance"] != two["provenance"]:
        text = f"{one['provenance']} then, {two['provenance']} now"
        return _of(metric, "NOT COMPARABLE", text, one["value"], two["value"], "exact")
    same = math.isclose(one["value"], two["value"], rel_tol=_NOISE, abs_tol=0.0)
    text = "equal" if same else f"{_change(one['value'], two['value'])}"
    return _of(metric, "AGREES" if same else "DISAGREES", text, one["value"], two["value"], "exact")


def _score(metric: str, original: Record, new: Record, near: Closeness) -> Judgement:
    """A task's score within so much of its unit, on the same data; a distribution's within its seeds' spread."""
    one, two, rule = reading_of(original, metric), reading_of(new, metric), RULES[metric]
    spread = ((scored(original, metric) or {}).get("details") or {}).get("spread")
    allowed = SCORE[near] * (rule.same if spread is None else float(spread))
    tolerance = f"{allowed:g} {rule.unit} ({near})"
    if one is None or two is None:
        return _missing(metric, original, new, tolerance)
    digests = [(record.get("quality") or {}).get("samples_digest") for record in (original, new)]
    if None not in digests and digests[0] != digests[1]:
        return _of(metric, "NOT COMPARABLE", "measured on other data", one["value"], two["value"], tolerance)
    off = two["value"] - one["value"]
    kind: Kind = "AGREES" if abs(off) <= allowed + _NOISE else "DISAGREES"
    return _of(metric, kind, f"{off:+.{_decimals(allowed)}f} {rule.unit}", one["value"], two["value"], tolerance)


def _decimals(allowed: float) -> int:
    """Decimals that show a tenth of what is allowed, two at least."""
    return max(2, 1 - math.floor(math.log10(allowed))) if allowed > 0 else 2


def _memory(metric: str, original: Record, new: Record, near: Closeness) -> Judgement:
    """A peak within a share of the original's."""
    one, two, allowed = reading_of(original, metric), reading_of(new, metric), MEMORY[near]
    tolerance = f"{100 * allowed:g} % ({near})"
    if one is None or two is None:
        return _missing(metric, original, new, tolerance)
    agrees = abs(two["value"] - one["value"]) <= allowed * one["value"] * (1 + _NOISE)
    return _of(
        metric,
        "AGREES" if agrees else "DISAGREES",
        _change(one["value"], two["value"]),
        one["value"],
        two["value"],
        tolerance,
    )


def _time(metric: str, original: Record, new: Record, near: Closeness) -> Judgement:
    """A time or rate by its interval; where the reference GEMM moved along, the host is the likelier cause."""
    allowed = TIME[near]
    if allowed is None:
        return _elsewhere(metric, original, new, "times do not travel to other hardware; see the speed-up")
    made = _by_interval(metric, original, new, (per_process(original, metric), per_process(new, metric)), allowed, near)
    if made.kind != "DISAGREES":
        return made
    against = [per_gemm(original, metric), per_gemm(new, metric)]
    if all(len(values) >= 2 for values in against):
        ratio = ratio_interval_welch(against[1], against[0])
        if _inside(ratio, allowed) != "outside":
            text = f"{made.text}, but so is the reference GEMM: the host changed; run again when it is quiet"
            return _of(metric, "INCONCLUSIVE", text, made.original, made.new, made.tolerance, made.ratio)
    return made


def _speedup(metric: str, original: Record, new: Record, near: Closeness) -> Judgement:
    """The ratio to the baseline, which travels."""
    allowed = SPEEDUP[near]
    assert allowed is not None
    return _by_interval(
        metric, original, new, (list(speedups(original).values()), list(speedups(new).values())), allowed, near
    )


def _energy(metric: str, original: Record, new: Record, near: Closeness) -> Judgement:
    """Energy by its interval, on like hardware only."""
    allowed = ENERGY[near]
    one, two = reading_of(original, metric), reading_of(new, metric)
    if allowed is None:
        return _elsewhere(metric, original, new, "energy does not travel to other hardware")
    tolerance = f"{100 * allowed:g} % ({near})"
    if one is None or two is None:
        return _missing(metric, original, new, tolerance)
    if one["provenance"] != two["provenance"]:
        text = f"{one['provenance']} then, {two['provenance']} now"
        return _of(metric, "NOT COMPARABLE", text, one["value"], two["value"], tolerance)
    sides = [from_summary(r["value"], r["ci_low"], r["ci_high"], r["n"]) for r in (one, two)]
    if any(side.se is None for side in sides):
        return _of(metric, "INCONCLUSIVE", ONE_REPLICATE, one["value"], two["value"], tolerance, more=1)
    return _interval_verdict(metric, sides[0], sides[1], ratio_of_summaries(sides[1], sides[0]), allowed, tolerance)


def _by_interval(
    metric: str, original: Record, new: Record, values: tuple[list[float], list[float]], allowed: float, near: Closeness
) -> Judgement:
    """Values per process against each other; the interval of their ratio must lie inside the tolerance."""
    tolerance = f"{100 * allowed:g} % ({near})"
    if not values[0] or not values[1]:
        return _missing(metric, original, new, tolerance)
    if protocol_key(original) != protocol_key(new):
        return _elsewhere(metric, original, new, "measured under another protocol")
    sides = [log_mean_interval(part) for part in values]
    return _interval_verdict(metric, sides[0], sides[1], ratio_interval_welch(values[1], values[0]), allowed, tolerance)


def _interval_verdict(
    metric: str, one: Interval, two: Interval, ratio: Interval, allowed: float, tolerance: str
) -> Judgement:
    """AGREES with the interval of the ratio inside the tolerance, DISAGREES with it outside, else INCONCLUSIVE."""
    where = _inside(ratio, allowed)
    if where == "unknown":
        return _of(metric, "INCONCLUSIVE", ONE_REPLICATE, one.value, two.value, tolerance, ratio, more=1)
    text = f"{_change(1.0, ratio.value)} ({100 * (ratio.low - 1):+.1f} to {100 * (ratio.high - 1):+.1f} %)"  # type: ignore[operator]
    if where != "across":
        return _of(metric, "AGREES" if where == "inside" else "DISAGREES", text, one.value, two.value, tolerance, ratio)
    more = _more_runs(one, two, ratio, allowed)
    text += (
        f": about {more} more runs would tell"
        if more
        else ": the original is too imprecise for any number of runs to tell"
    )
    return _of(metric, "INCONCLUSIVE", text, one.value, two.value, tolerance, ratio, more)


def _inside(ratio: Interval, allowed: float) -> Literal["inside", "outside", "across", "unknown"]:
    if ratio.low is None or ratio.high is None:
        return "unknown"
    low, high = 1 / (1 + allowed), 1 + allowed
    if low <= ratio.low and ratio.high <= high:
        return "inside"
    return "outside" if ratio.high < low or ratio.low > high else "across"


def _more_runs(one: Interval, two: Interval, ratio: Interval, allowed: float) -> int | None:
    """About how many further processes on the new side shrink the interval to one side of the tolerance's edge."""
    goal = abs(abs(math.log(ratio.value)) - math.log1p(allowed)) / normal_reach(ratio.level)
    left = goal**2 - (one.se or 0.0) ** 2
    if left <= 0 or two.se is None:
        return None
    return max(1, math.ceil(two.n * two.se**2 / left) - two.n)


# ---------------------------------------------------------------------------------------------- words


def _of(
    metric: str,
    kind: Kind,
    text: str,
    one: Any,
    two: Any,
    tolerance: str,
    ratio: Interval | None = None,
    more: int | None = None,
) -> Judgement:
    return Judgement(metric, kind, text, one, two, METRICS[metric].unit, tolerance, ratio, more)


def _missing(metric: str, original: Record, new: Record, tolerance: str) -> Judgement:
    """A metric that the new record does not have, with the reason that it gives."""
    notes = [row.get("method_note") for row in readings_of(new, metric)]
    note = notes[0] if notes else None
    value = (reading_of(original, metric) or {}).get("value")
    return _of(metric, "NOT COMPARABLE", f"not measured now: {note or 'no such reading'}", value, None, tolerance)


def _elsewhere(metric: str, original: Record, new: Record, text: str) -> Judgement:
    values = [(reading_of(record, metric) or {}).get("value") for record in (original, new)]
    return _of(metric, "NOT COMPARABLE", text, values[0], values[1], "")


def _change(one: float, two: float) -> str:
    return f"{100 * (two / one - 1):+.2f} %" if one else f"{one:g} then, {two:g} now"
