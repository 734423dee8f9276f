"""Two sets of records side by side: what changed, how surely, and whether a gate should fail.

Ratios are turned so that above 1 the second side is better. Where both sides were timed in one session they are paired
process by process; else Welch's interval on logs is used and said to be unpaired. Ratios to the baseline travel between
sessions and are compared as they are; milliseconds do not, because sessions differ by several percent on a shared host
whatever is measured. So times are compared in units of the reference GEMM of the same process, and a difference counts
only where the clock shows it too. With three sessions or more on each side the session is the unit of replication.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.analysis.matching import match
from bench.analysis.metric_rows import COMPARED, SESSIONS_ENOUGH, TIMED, ComparisonRow, Pending, drafts
from bench.analysis.power import too_few
from bench.analysis.timings import paired, speedups
from bench.config.protocol import protocol_key
from bench.host.difference import difference
from bench.statistics import (
    EQUIVALENCE,
    LEVEL,
    MARGIN,
    Verdict,
    holm,
    verdict,
)
from bench.store.records import Record

AGREES, REGRESSION, NOTHING_COMPARABLE = 0, 1, 5
_WORDS = {"FASTER": "BETTER", "SLOWER": "WORSE"}


@dataclass(frozen=True)
class Comparison:
    """All rows, what only one side has, how the environments differ, and the exit code for a gate."""

    label_a: str
    label_b: str
    rows: tuple[ComparisonRow, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    environment: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    exit_code: int = AGREES

    @property
    def regressions(self) -> tuple[ComparisonRow, ...]:
        """The rows for which a gate fails."""
        return tuple(row for row in self.rows if row.regression)


@dataclass(frozen=True)
class _Limits:
    """What counts as a difference, and what still counts as the same (0.05: within 1/1.05 to 1.05)."""

    margin: float
    equivalence: float


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
    compared; of several versions of a case on one side the newest counts, with all its sessions, under a protocol that
    both sides have if there is one. A lone record on either side is compared with a lone one on the other whatever they
    are. Contaminated sessions count only where a case has no other; then its times and energies are shown without a
    verdict.

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
    made = [(own, draft) for own, left, right in found for draft in drafts(left, right, metrics, own.margin, level)]
    adjusted = holm([draft.row.p if isinstance(draft, Pending) else draft.p for _, draft in made])
    rows = tuple(
        _judged(draft, p, own) if isinstance(draft, Pending) else draft
        for (own, draft), p in zip(made, adjusted, strict=True)
    )
    first = pairs[0] if pairs else None
    return Comparison(
        label_a,
        label_b,
        rows,
        tuple(only_a),
        tuple(only_b),
        tuple(run_difference(first[0][-1], first[1][-1])) if first else (),
        (
            *_notes(pairs),
            *_why_no_times(rows),
            *too_few(rows, max((own.margin for own, _, _ in found), default=MARGIN), level),
        ),
        _exit_code(rows),
    )


def _exit_code(rows: Sequence[ComparisonRow]) -> int:
    """1 for a regression, 5 where no row, or of the times none, could be compared, else 0."""
    if any(row.regression for row in rows):
        return REGRESSION
    nothing = all(row.kind == "INVALID" for row in rows)
    return NOTHING_COMPARABLE if nothing or any(_why_no_times(rows)) else AGREES


def _why_no_times(rows: Sequence[ComparisonRow]) -> Iterable[str]:
    """A note where both sides were timed and no time could be compared: equal counts alone pass no gate."""
    timed = [row for row in rows if row.metric in TIMED and row.a is not None]
    if timed and all(row.kind == "INVALID" for row in timed):
        yield (
            f"no time could be compared, so nothing is said of speed (exit code {NOTHING_COMPARABLE}): {timed[0].text}"
        )


def run_difference(a: Record, b: Record) -> list[tuple[str, str, str]]:
    """What differs between the circumstances of two records: code, protocol, source of subject, environment."""
    pairs = [
        ("code version", _of(a, "code", "version"), _of(b, "code", "version")),
        ("code commit", _of(a, "code", "commit"), _of(b, "code", "commit")),
        (
            "protocol",
            f"{_of(a, 'protocol', 'name')} ({protocol_key(a)})",
            f"{_of(b, 'protocol', 'name')} ({protocol_key(b)})",
        ),
        ("source of model and method", _of(a, "case", "subject_digest"), _of(b, "case", "subject_digest")),
        ("weights", _of(a, "case", "checkpoint"), _of(b, "case", "checkpoint")),
        ("data", _of(a, "case", "data"), _of(b, "case", "data")),
    ]
    changed = [(what, str(one or "unknown"), str(two or "unknown")) for what, one, two in pairs if one != two]
    return changed + difference(a.get("environment") or {}, b.get("environment") or {})


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


def _judged(draft: Pending, p_adjusted: float | None, limits: _Limits) -> ComparisonRow:
    """The row with its verdict."""
    row = draft.row
    assert row.ratio is not None, f"{row.metric}: a row waits for a verdict and has no ratio"
    made = verdict(
        row.ratio,
        margin=limits.margin,
        equivalence=1 + limits.equivalence,
        noise_floor=draft.floor,
        p_adjusted=p_adjusted,
    )
    made = _unless_doubtful(made, draft)
    kind = made.kind if row.metric in TIMED else _WORDS.get(made.kind, made.kind)
    return replace(
        row,
        kind=kind,
        text=made.text,
        p_adjusted=p_adjusted,
        more_invocations=made.more_invocations,
        regression=made.kind == "SLOWER" and not draft.exemption,
    )


def _unless_doubtful(made: Verdict, draft: Pending) -> Verdict:
    """The verdict, or AMBIGUOUS with the reason where the host, the clock or other work on a side speaks against it."""
    if made.kind == "INVALID":
        return made
    if "contaminated" in draft.doubts:
        return Verdict("AMBIGUOUS", f"{made.text}; no verdict, because a side is disturbed")
    if made.kind == "SAME" and "host changed" in draft.doubts:
        return Verdict("AMBIGUOUS", f"{made.text} against the reference GEMM, but the host changed")
    if made.kind == "AMBIGUOUS" and "unseen by the clock" in draft.doubts:
        return Verdict(
            "AMBIGUOUS", f"{made.text.partition(':')[0]} against the reference GEMM, which the clock does not show"
        )
    return made


def _of(record: Record, part: str, name: str) -> Any:
    return (record.get(part) or {}).get(name)


def _notes(pairs: Sequence[tuple[list[Record], list[Record]]]) -> Iterable[str]:
    if not pairs:
        yield "no case is on both sides: compare results of one suite, or two single rows"
    lone = any(min(len(a), len(b)) < SESSIONS_ENOUGH and not paired(a[-1], b[-1], "latency_ms") for a, b in pairs)
    if lone:
        yield (
            f"fewer than {SESSIONS_ENOUGH} sessions on a side: what the host does between sessions is seen only "
            f"through the reference GEMM; alternate a and b, {SESSIONS_ENOUGH} sessions each, for a verdict that "
            "includes it"
        )
    if lone and any(speedups(a[-1]) and speedups(b[-1]) for a, b in pairs):
        yield (
            "ratios to the baseline travel between sessions, milliseconds do not: what a method loses or gains shows "
            "in its speedup row first"
        )
