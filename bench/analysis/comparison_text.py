"""Comparisons and reproductions in words, for a terminal and for a pull request.

Names, errors and environments may be of foreign records: every cell, remark and title is spelt out before it is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.analysis.compare import Comparison
from bench.analysis.judge import Judgement
from bench.analysis.metric_rows import EQUAL, ComparisonRow
from bench.analysis.text_columns import columns, fitted, wrapped
from bench.foreign_text import escape_controls
from bench.short_names import short_names
from bench.statistics import Interval

#: Verdicts of rows that changed for certain, or in which something is wrong.
CHANGED = frozenset({"FASTER", "SLOWER", "BETTER", "WORSE", "INVALID"})
_HEAD = ("case", "metric", "a", "b", "better by", "verdict", "how")
#: Columns whose cells may be cut for the width of a terminal, and those that are left out of a narrow one, in order.
_PROSE, _SPARE = ("case", "metric", "how"), (("how",), ("a", "b"))


@dataclass(frozen=True)
class _Lines:
    """The parts of a comparison as words, before they are laid out."""

    title: str
    table: Sequence[tuple[str, ...]] = field(default_factory=list)
    environment: list[tuple[str, str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    left_out: str = ""


def as_text(comparison: Comparison, *, every: bool = True, width: int | None = None) -> str:
    """The comparison for a terminal: the verdicts counted, what differs around it, then a row per case and metric.

    Args:
        comparison: what was compared.
        every: also the rows in which nothing changed for certain; else how many there are of each verdict.
        width: signs of a line; None for as many as it takes. Names and reasons are cut to fit; a narrow terminal gets
            neither the reasons nor the values of both sides, and is told so.
    """
    lines = _lines(comparison, every=every)
    parts = [wrapped(lines.title, width)]
    if lines.environment:
        around = [("what", comparison.label_a, comparison.label_b), *lines.environment]
        parts.append(f"What differs around it:\n{columns(around, width, prose=(0, 1, 2))}")
    if lines.table:
        parts.append(fitted([_HEAD, *lines.table], width, _PROSE, _SPARE))
    if lines.left_out:
        parts.append(wrapped(f"{lines.left_out} are not shown: all=true shows them", width))
    remarks = [wrapped(remark, width) for remark in lines.remarks]
    return "\n\n".join([*parts, *(["\n".join(remarks)] if remarks else [])]) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown, for a pull request; names from records are escaped."""
    lines = _lines(comparison)
    parts = [f"### {_safe(lines.title)}"]
    if lines.table:
        parts.append(_markdown_table([_HEAD, *lines.table]))
    if lines.environment:
        body = _markdown_table([("what", comparison.label_a, comparison.label_b), *lines.environment])
        parts.append(f"<details><summary>What differs around it</summary>\n\n{body}\n\n</details>")
    return "\n\n".join([*parts, *(f"- {_safe(remark)}" for remark in lines.remarks)]) + "\n"


def differences_as_text(differences: Sequence[tuple[str, str, str]]) -> str:
    """What differs around a reproduction, for a terminal, or that nothing does.

    Args:
        differences: of `bench.analysis.compare.run_difference`.
    """
    if not differences:
        return "Nothing that is recorded differs around it.\n"
    return f"What differs around it:\n{columns([('what', 'original', 'now'), *differences])}\n"


def reproduction_as_text(verdicts: Sequence[Judgement], differences: Sequence[tuple[str, str, str]] = ()) -> str:
    """The verdict table of a reproduction for a terminal, after what differs around it.

    Args:
        verdicts: of `bench.analysis.judge.judge`.
        differences: of `bench.analysis.compare.run_difference`.
    """
    rows = [("metric", "original", "now", "allowed", "verdict", "why")]
    rows += [
        (v.quantity, _given(v.original, v.unit), _given(v.new, v.unit), v.tolerance, v.kind, v.text) for v in verdicts
    ]
    around = [differences_as_text(differences)] if differences else []
    return "\n".join([*around, columns(rows)]) + "\n"


def _lines(comparison: Comparison, *, every: bool = True) -> _Lines:
    counts = {
        kind: sum(row.kind == kind for row in comparison.rows)
        for kind in dict.fromkeys(r.kind for r in comparison.rows)
    }
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing to compare"
    worse = len(comparison.regressions)
    title = f"{comparison.label_a} -> {comparison.label_b}: {f'{worse} worse; ' if worse else ''}{summary}"
    short = short_names([*(row.label for row in comparison.rows), *comparison.only_a, *comparison.only_b])
    table = [
        (
            short[row.label],
            row.quantity,
            _number(row.a, row.unit),
            _number(row.b, row.unit),
            _ratio(row.ratio),
            row.kind,
            ", ".join(part for part in (row.text, row.pairing) if part),
        )
        for row in sorted(comparison.rows, key=lambda row: not row.regression)
        if row.text != EQUAL and (every or _is_changed(row))
    ]
    hidden = Counter(row.kind for row in comparison.rows if row.text != EQUAL and not every and not _is_changed(row))
    left_out = " and ".join(f"{count} rows {kind}" for kind, count in hidden.items())
    equal = [row for row in comparison.rows if row.text == EQUAL]
    remarks = [
        *(
            [f"equal on both sides ({len(equal)} rows): {', '.join(dict.fromkeys(row.quantity for row in equal))}"]
            if equal
            else []
        ),
        *(f"only in {comparison.label_a}: {short[label]}" for label in comparison.only_a),
        *(f"only in {comparison.label_b}: {short[label]}" for label in comparison.only_b),
        *dict.fromkeys(note for row in comparison.rows for note in row.notes),
        *comparison.notes,
    ]
    return _Lines(title, table, list(comparison.environment), remarks, left_out)


def _is_changed(row: ComparisonRow) -> bool:
    """Whether a row changed for certain, or has something wrong; of two equal values nothing is."""
    same = row.a is not None and row.a == row.b
    return row.kind in CHANGED and not (row.kind == "INVALID" and same)


def _given(value: float | str | None, unit: str) -> str:
    return value if isinstance(value, str) else _number(value, unit)


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    whole = float(value).is_integer() and abs(value) >= 1000
    return (f"{value:,.0f}" if whole else f"{value:.4g}") + ("" if unit == "1" else f" {unit}")


def _ratio(ratio: Interval | None) -> str:
    if ratio is None:
        return ""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.3f}x"
    return f"{ratio.value:.3f}x [{ratio.low:.3f}, {ratio.high:.3f}]"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [[_safe(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *body])


def _safe(text: str) -> str:
    """Text that stays text in Markdown: no table breaks, no HTML, no links or code."""
    flat = escape_controls(" ".join(text.split()))
    for mark in "\\`*_[]|":
        flat = flat.replace(mark, "\\" + mark)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
