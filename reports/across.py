"""The same cases on several machines as text: lines of classes, of pairs of them, of methods, and cases that flip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.portability import Delivered, Flip, MethodOver, Pair, Portability
from bench.analysis.portability import Saving as Measured
from bench.foreign_text import escape_controls
from bench.short_names import short_name
from bench.statistics import Interval, Summary
from bench.words import plural
from reports.addresses import machine_page, method_page
from reports.content import Site
from reports.numbers import MISSING, pair, plain

#: Kind of the badge of a method's verdict.
KINDS = {"gains everywhere": "good", "loses everywhere": "bad", "flips": "bad", "cannot be told": ""}
#: Lines of the table of flips; the CSV of a table and `bench.across_machines` have all.
MOST_FLIPS = 200


@dataclass(frozen=True)
class ClassLine:
    """A class of machines: what it is, its machines' pages, how many rows, and the software of the newest."""

    title: str
    line: str
    machines: tuple[tuple[str, str], ...]
    rows: int
    software: str


@dataclass(frozen=True)
class PairLine:
    """Two classes over the cases of a suite that both have."""

    suite: str
    names: str
    cases: int
    correlation: str
    reason: str
    both: str
    flips: int
    differs: str


@dataclass(frozen=True)
class MethodLine:
    """A method in one class: over how many cases, its speed-up and the realised part of its promise there."""

    suite: str
    method: str
    page: str
    place: str
    cases: str
    speedup: str
    gain: str
    gain_reason: str
    verdict: str
    kind: str
    reason: str


@dataclass(frozen=True)
class FlipLine:
    """A case that gains here and loses there, with the pages of both rows."""

    case: str
    gains_on: str
    gain: str
    gain_page: str
    loses_on: str
    loss: str
    loss_page: str


def headline(found: Portability) -> str:
    """The machines in a sentence: whether savings rank alike, and how many flip."""
    noun = "class" if len(found.places) == 1 else "classes"
    machines = {key for place in found.places.values() for key in place.machines}
    start = f"{plural(len(machines), 'machine')} of {len(found.places)} {noun}"
    if not found.pairs:
        return f"{start}: no case can be set side by side"
    if len(found.pairs) == 1:
        (one,) = found.pairs
        cases = plural(one.rows, "case")
        value = one.correlation.value
        alike = "" if value is None else f", whose speed-ups have a rank correlation of {plain(value, 2)}"
        return f"{start} have {cases} in common{alike}; {_flipped(len(one.flips))}"
    flips = {flip.gains.identity for flip in found.flips}
    said = f"{plural(len(flips), 'case')} turn{'s' if len(flips) == 1 else ''} from a gain into a loss"
    return f"{start}; {said if flips else 'no case turns from a gain into a loss'} between two of them"


def _flipped(count: int) -> str:
    if not count:
        return "none turns from a gain into a loss"
    return f"{count} turn{'s' if count == 1 else ''} from a gain into a loss"


def class_lines(found: Portability) -> list[ClassLine]:
    """A line for each class, those with most rows first."""
    return [
        ClassLine(
            _short(place.title),
            escape_controls(place.line),
            tuple((key, machine_page(key)) for key in place.machines),
            found.rows[place.key],
            escape_controls(", ".join(f"{name} {version}" for name, version in place.software)),
        )
        for place in sorted(found.places.values(), key=lambda place: -found.rows[place.key])
    ]


def pair_lines(found: Portability) -> list[PairLine]:
    """A line for each two classes with cases in common."""
    return [_pair(one, found) for one in found.pairs]


def _pair(one: Pair, found: Portability) -> PairLine:
    known = one.correlation
    ends = "" if known.low is None or known.high is None else f" [{plain(known.low, 2)}, {plain(known.high, 2)}]"
    return PairLine(
        one.suite,
        f"{_title(one.a, found)} and {_title(one.b, found)}",
        one.rows,
        MISSING if known.value is None else plain(known.value, 2) + ends,
        known.reason,
        f"{one.gain} gain, {one.lose} lose, {one.open} open",
        len(one.flips),
        escape_controls(", ".join(f"{name} {a} / {b}" for name, a, b in one.differs)),
    )


def method_lines(found: Portability, methods: Sequence[MethodOver]) -> list[MethodLine]:
    """A line for each method and class, or one that says why it has none."""
    return [line for method in methods for line in _of_method(method, found)]


def _of_method(method: MethodOver, found: Portability) -> list[MethodLine]:
    verdict, kind = method.verdict, KINDS.get(method.verdict, "care")
    head = (method.suite, _short(method.method), method_page(method.method))
    if not method.delivered:
        return [MethodLine(*head, MISSING, "0", MISSING, MISSING, method.reason, verdict, kind, method.reason)]
    return [
        MethodLine(
            *head,
            _title(one.place, found),
            f"{one.rows} ({one.faster} faster, {one.slower} slower)",
            _times(one.speedup),
            _share(one),
            one.gain.reason,
            verdict,
            kind,
            "",
        )
        for one in method.delivered
    ]


def _times(summary: Summary) -> str:
    return MISSING if summary.interval is None else f"{_ends(summary.interval, 1.0)}×"


def _share(one: Delivered) -> str:
    return MISSING if one.gain.interval is None else f"{_ends(one.gain.interval, 0.01)} %"


def _ends(interval: Interval, factor: float) -> str:
    return pair(interval.value, interval.low, interval.high, factor)


def flip_lines(flips: Sequence[Flip], found: Portability, site: Site) -> list[FlipLine]:
    """The cases that flip, the largest change first; at most `MOST_FLIPS`."""
    largest = sorted(flips, key=lambda flip: -flip.gains.speedup.value / flip.loses.speedup.value)
    return [
        FlipLine(
            _short(flip.gains.case.label),
            _title(flip.gains.place, found),
            f"{_ends(flip.gains.speedup, 1.0)}×",
            _page(flip.gains, site),
            _title(flip.loses.place, found),
            f"{_ends(flip.loses.speedup, 1.0)}×",
            _page(flip.loses, site),
        )
        for flip in largest[:MOST_FLIPS]
    ]


def _page(saving: Measured, site: Site) -> str:
    row = site.by_key.get((saving.case.key, saving.machine_key))
    return row.page if row else ""


def _title(key: str, found: Portability) -> str:
    return _short(found.places[key].title)


def _short(text: str) -> str:
    return short_name(escape_controls(text))
