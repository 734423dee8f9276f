"""The field's own numbers derived from readings: pure, intervals carried along, never without its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.reading import Provenance, Reading, reading, unavailable

#: `value(metric, part)`: the reading of a record, or None.
Value = Callable[[str, str], Reading | None]


def derived(
    metric: str,
    part: str,
    source: Reading | None,
    change: Callable[[float], float],
    note: str,
    *,
    falling: bool = False,
) -> Reading:
    """A positive reading through a monotone function, its interval with it; unavailable where the source is.

    Args:
        metric: of the result.
        part: of the result.
        source: what it is computed from.
        change: rising, or with `falling` falling: the ends of the interval change places then.
        note: how, for the reader.
        falling: see `change`.
    """
    missing = _missing([source])
    if missing or source is None or source.value is None:
        return unavailable(metric, missing, part)
    if source.value <= 0:
        return unavailable(metric, f"{source.metric} of {source.part or 'the subject'} is not positive", part)
    low, high = (None if end is None or end <= 0 else change(end) for end in (source.ci_low, source.ci_high))
    if falling:
        low, high = high, low
    if low is None or high is None:
        low = high = None
    return reading(
        metric, change(source.value), source.provenance, ci_low=low, ci_high=high, **_evidence([source], part, note)
    )


def combined(
    metric: str,
    part: str,
    terms: Sequence[tuple[Reading | None, float]],
    note: str,
    *,
    provenance: Provenance | None = None,
    constant: float = 0.0,
) -> Reading:
    """The sum of readings times factors plus a constant; unavailable where one is missing or the sum may be nothing.

    No time is negative, and a rate over a time that may be nothing has no upper end. The interval joins the worst
    ends, which covers at least as surely as those of the terms where their errors are normal, however they depend on
    each other: the standard error of a sum is at most the sum of the standard errors.

    Args:
        metric: of the result.
        part: of the result.
        terms: readings and factors.
        note: how, for the reader.
        provenance: of the result; else that of the terms, `modelled` where they differ.
        constant: added to the sum.
    """
    missing = _missing([source for source, _ in terms])
    if missing:
        return unavailable(metric, missing, part)
    known = [(source, factor) for source, factor in terms if source is not None and source.value is not None]
    value = constant + sum(source.value * factor for source, factor in known if source.value is not None)
    ends = [_end(known, constant, upper) for upper in (False, True)]
    low, high = ends if None not in ends else (None, None)
    if value <= 0 or (low is not None and low <= 0):
        within = "" if low is None else f" [{low:.4g}, {high:.4g}]"
        why = f"the difference is {value:.4g}{within}: within the noise of what it is taken from"
        return unavailable(metric, why, part)
    kinds = {source.provenance for source, _ in known}
    kind: Provenance = provenance or (kinds.pop() if len(kinds) == 1 else "modelled")
    sources = [source for source, _ in known]
    return reading(metric, value, kind, ci_low=low, ci_high=high, **_evidence(sources, part, note))


def _end(terms: Sequence[tuple[Reading, float]], constant: float, upper: bool) -> float | None:
    """The upper or lower end of a sum; a counted or modelled term without an interval is exact."""
    total = constant
    for source, factor in terms:
        end = source.ci_high if (factor > 0) == upper else source.ci_low
        if end is None and source.provenance == "measured":
            return None
        exact = source.value if end is None else end
        total += factor * float(exact if exact is not None else 0.0)
    return total


def _evidence(sources: Sequence[Reading], part: str, note: str) -> dict[str, Any]:
    numbers = [source.n for source in sources if source.n is not None]
    return {"part": part, "method_note": note, "n": min(numbers) if numbers else None, "statistic": "derived"}


def _missing(sources: Sequence[Reading | None]) -> str:
    """Why a source is missing, or nothing."""
    for source in sources:
        if source is None:
            return "what it is computed from was not measured"
        if source.value is None:
            return f"{source.metric} of {source.part or 'the subject'}: {source.method_note}"
    return ""
