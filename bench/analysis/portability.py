"""Whether a saving travels: the same case on several machines, side by side and never in one ranking.

Two rows are the same case where everything but the machine is equal: source, protocol, workload, shape, type of number,
threads, backend, other side. The device that computed is part of the machine: a GPU and its host's processor are two
places (`bench.analysis.places`). Only ratios that one machine took of itself are set side by side, never times.

* rank correlation of the speed-ups of two places over the cases of a suite that both have, with its interval;
* speed-up and realised gain of a method in each place, as geometric means over the cases that all its places have, with
  the intervals that the cases' own errors give: they are for these cases, not for networks at large;
* flips: cases whose whole 95 % interval is above 1 in one place and below 1 in another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from bench.analysis.places import Place, place_key, places
from bench.canonical import BASELINE_METHOD
from bench.config.axes import AXES
from bench.labels import NO_SPEED, label_of
from bench.plan.case import Case
from bench.statistics import Interval, RankCorrelation, Summary, from_summary, geometric_summary, rank_correlation
from bench.store.record_parts import reading_of
from bench.store.records import Record

#: Axes in which the same case on two machines is equal; the device is part of the machine.
SAME = tuple(axis.name for axis in AXES if axis.identity and axis.name != "device")
#: What a case is called by, to tell in what its namesake on another machine differs.
_NAMED = ("model", "model_settings", "method", "setting", "workload", "batch", "resolution", "shape", "dtype")
NO_GAIN = "the products of the case or of its other side are missing"


@dataclass(frozen=True)
class Saving:
    """The speed-up of a case in a place, undisturbed, and the one that its products promise (None where unknown)."""

    place: str
    machine_key: str
    case: Case
    speedup: Interval
    promised: float | None

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for the same case on another machine."""
        return tuple(getattr(self.case, name) for name in SAME)

    @property
    def method(self) -> tuple[str, str]:
        """The suite, and the method: the model where that is what is compared."""
        own = self.case.model if self.case.method == BASELINE_METHOD else self.case.method
        return self.case.suite, own

    @property
    def gain(self) -> Interval | None:
        """The realised gain: measured over promised speed-up."""
        if not self.promised:
            return None
        low, high = (None if end is None else end / self.promised for end in (self.speedup.low, self.speedup.high))
        return replace(self.speedup, value=self.speedup.value / self.promised, low=low, high=high)

    @property
    def direction(self) -> int:
        """1 where it is faster for certain, -1 where slower, 0 where neither is."""
        if self.speedup.low is not None and self.speedup.low > 1:
            return 1
        return -1 if self.speedup.high is not None and self.speedup.high < 1 else 0


#: Savings of a place by the identity of their cases.
_Cases = Mapping[tuple[object, ...], Saving]


@dataclass(frozen=True)
class Flip:
    """A case that gains in one place and loses in another, beyond doubt in both."""

    gains: Saving
    loses: Saving


@dataclass(frozen=True)
class Pair:
    """Two places over the cases of a suite that both have.

    `gain`, `lose` are certain in both places, `open` in one at most; `flips` are the rest. `differs` is software that
    is not the same in both: name, in a, in b.
    """

    suite: str
    a: str
    b: str
    correlation: RankCorrelation
    gain: int
    lose: int
    open: int
    flips: tuple[Flip, ...]
    differs: tuple[tuple[str, str, str], ...]

    @property
    def rows(self) -> int:
        """How many cases both have."""
        return self.correlation.n


@dataclass(frozen=True)
class Delivered:
    """What a method gives in a place over the cases that all its places have."""

    place: str
    rows: int
    faster: int
    slower: int
    speedup: Summary
    gain: Summary


@dataclass(frozen=True)
class MethodOver:
    """A method in several places; without cases that all of them have, `reason` says so and `places` is empty."""

    suite: str
    method: str
    delivered: tuple[Delivered, ...]
    flips: tuple[Flip, ...]
    reason: str = ""

    @property
    def verdict(self) -> str:
        """What travels, in a few words."""
        if self.reason:
            return "cannot be told"
        if self.flips:
            return "flips"
        if all(one.faster == one.rows for one in self.delivered):
            return "gains everywhere"
        if all(one.slower == one.rows for one in self.delivered):
            return "loses everywhere"
        return "not certain everywhere"


@dataclass(frozen=True)
class Portability:
    """All places, pairs of them, methods in several of them, and why there may be nothing to set side by side."""

    places: dict[str, Place]
    rows: dict[str, int]
    pairs: tuple[Pair, ...]
    methods: tuple[MethodOver, ...]
    reason: str = ""

    @property
    def flips(self) -> tuple[Flip, ...]:
        """Every flip of every pair."""
        return tuple(flip for pair in self.pairs for flip in pair.flips)


def across(records: Iterable[Record], labels: Mapping[str, str]) -> Portability:
    """The same cases on several machines.

    Args:
        records: of any machines; of several of a case on a machine the newest undisturbed one counts, so that one
            disturbed night takes nothing away.
        labels: of machines by their key (`bench.store.classes.by_machine`).
    """
    kept = list(records)
    found = savings(kept, labels)
    there = places(kept, labels)
    single = {(record["case_key"], record["machine_key"]): place_key(record, labels) for record in kept}
    rows = Counter(single.values())
    suites = sorted({saving.case.suite for saving in found})
    pairs = tuple(pair for suite in suites for pair in _pairs(suite, found, there))
    methods = _methods(found)
    reason = "" if pairs or len(there) < 2 else _why_none(_by_place(found), there)
    return Portability(there, dict(rows), pairs, methods, reason)


def _by_place(found: Iterable[Saving]) -> dict[str, dict[tuple[object, ...], Saving]]:
    by_place: dict[str, dict[tuple[object, ...], Saving]] = {}
    for saving in found:
        by_place.setdefault(saving.place, {})[saving.identity] = saving
    return by_place


def _pairs(suite: str, found: Iterable[Saving], there: Mapping[str, Place]) -> list[Pair]:
    """Every two places that have cases of a suite in common; suites are never ranked together."""
    by_place = _by_place(saving for saving in found if saving.case.suite == suite)
    return [
        _pair(suite, there[a], there[b], by_place[a], by_place[b])
        for a, b in combinations(sorted(by_place, key=lambda key: there[key].title), 2)
        if by_place[a].keys() & by_place[b].keys()
    ]


def savings(records: Iterable[Record], labels: Mapping[str, str]) -> list[Saving]:
    """One per case and place: undisturbed, compared, and claiming a speed; machines of one place are taken together."""
    listed = list(records)
    newest: dict[tuple[str, str], Record] = {}
    for record in sorted(listed, key=lambda record: str(record["started_at"])):
        if _is_clean(record):
            newest[str(record["case_key"]), str(record["machine_key"])] = record
    single: dict[tuple[str, tuple[object, ...]], list[Saving]] = {}
    for record in newest.values():
        saving = _saving(record, newest, labels)
        if saving is not None:
            single.setdefault((saving.place, saving.identity), []).append(saving)
    return [saving for own in single.values() if (saving := _together(own)) is not None]


def _is_clean(record: Record) -> bool:
    invalid = any(flag.get("severity") == "invalid" for flag in record.get("flags") or [])
    return record["status"] == "ok" and not invalid and str(label_of(record, "execution")) not in NO_SPEED


def _saving(record: Record, known: Mapping[tuple[str, str], Record], labels: Mapping[str, str]) -> Saving | None:
    measured = reading_of(record, "speedup")
    if record["case_key"] == record["baseline_key"] or measured is None:
        return None
    base = known.get((str(record["baseline_key"]), str(record["machine_key"])))
    own, other = reading_of(record, "macs"), reading_of(base, "macs") if base else None
    promised = other["value"] / own["value"] if own and other and own["value"] and other["value"] else None
    speedup = from_summary(measured["value"], measured.get("ci_low"), measured.get("ci_high"), measured.get("n"))
    case = Case.from_dict(record["case"])
    return Saving(place_key(record, labels), str(record["machine_key"]), case, speedup, promised)


def _together(own: Sequence[Saving]) -> Saving | None:
    """The saving of a place: of several machines of it their geometric mean; None where one has no interval."""
    if len(own) == 1:
        return own[0]
    found = geometric_summary({one.machine_key: one.speedup for one in own}).interval
    return None if found is None else replace(own[0], speedup=found)


def _pair(
    suite: str,
    a: Place,
    b: Place,
    left: Mapping[tuple[object, ...], Saving],
    right: Mapping[tuple[object, ...], Saving],
) -> Pair:
    both = [(left[key], right[key]) for key in left if key in right]
    correlation = rank_correlation(_logs(one for one, _ in both), _logs(other for _, other in both))
    directions = Counter((one.direction, other.direction) for one, other in both)
    flips = tuple(flip for one, other in both if (flip := _flip(one, other)) is not None)
    gain, lose = directions[1, 1], directions[-1, -1]
    software = dict(b.software)
    differs = tuple((name, value, software[name]) for name, value in a.software if value != software[name])
    return Pair(suite, a.key, b.key, correlation, gain, lose, len(both) - gain - lose - len(flips), flips, differs)


def _logs(found: Iterable[Saving]) -> list[float]:
    return [math.log(one.speedup.value) for one in found]


def _flip(one: Saving, other: Saving) -> Flip | None:
    if one.direction * other.direction >= 0:
        return None
    return Flip(one, other) if one.direction > 0 else Flip(other, one)


def _methods(found: Sequence[Saving]) -> tuple[MethodOver, ...]:
    """The methods that two places or more have, by suite and name."""
    members: dict[tuple[str, str], dict[str, dict[tuple[object, ...], Saving]]] = {}
    for saving in found:
        members.setdefault(saving.method, {}).setdefault(saving.place, {})[saving.identity] = saving
    return tuple(_method(name, own) for name, own in sorted(members.items()) if len(own) > 1)


def _method(name: tuple[str, str], own: Mapping[str, _Cases]) -> MethodOver:
    common = sorted(set.intersection(*(set(each) for each in own.values())), key=str)
    if not common:
        return MethodOver(*name, (), (), f"no case of it is in all of its {len(own)} places under equal conditions")
    delivered = tuple(_delivered(place, [own[place][key] for key in common]) for place in sorted(own))
    flips = [
        flip
        for key in common
        for a, b in combinations(sorted(own), 2)
        if (flip := _flip(own[a][key], own[b][key])) is not None
    ]
    return MethodOver(*name, delivered, tuple(flips))


def _delivered(place: str, own: Sequence[Saving]) -> Delivered:
    labels = Counter(one.case.label for one in own)
    named = {
        one.case.label if labels[one.case.label] == 1 else f"{one.case.label} ({one.case.key})": one for one in own
    }
    gains = {label: one.gain for label, one in named.items()}
    gain = Summary(None, NO_GAIN, tuple(gains)) if None in gains.values() else geometric_summary(gains)
    return Delivered(
        place,
        len(own),
        sum(one.direction > 0 for one in own),
        sum(one.direction < 0 for one in own),
        geometric_summary({label: one.speedup for label, one in named.items()}),
        gain,
    )


def _why_none(by_place: Mapping[str, Mapping[tuple[object, ...], Saving]], there: Mapping[str, Place]) -> str:
    """Why no case is in two places: nothing is compared in some, or namesakes differ in these conditions."""
    compared = [there[key].title for key in by_place]
    if len(compared) < 2:
        return f"undisturbed speed-ups were measured {f'only on {compared[0]}' if compared else 'on none of them'}"
    differing: Counter[str] = Counter()
    for a, b in combinations(by_place.values(), 2):
        others = {_name(one): one for one in b.values()}
        for one in a.values():
            namesake = others.get(_name(one))
            if namesake is not None:
                differing.update(
                    axis.title
                    for axis in AXES
                    if axis.name in SAME and getattr(one.case, axis.name) != getattr(namesake.case, axis.name)
                )
    if not differing:
        return "no case was measured on two machines"
    return f"cases of one name differ between machines in more than the machine: {', '.join(sorted(differing))}"


def _name(one: Saving) -> tuple[object, ...]:
    return tuple(getattr(one.case, name) for name in _NAMED)
