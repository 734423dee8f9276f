"""Bytes that a formula promises, bytes that autograd saves and that are alive, and their price in products and time.

Each number is a ratio to the row's own other side in its own convention, with its bytes beside it; conventions are
never compared with each other, and a row has only those that it and its other side state. What is alive is the
most at any moment of live tensors that are neither weights nor gradients nor the optimizer's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.labels import NO_SPEED, label_of
from reports.content import Site
from reports.rows import Cell, Row

#: Conventions that are stated by a formula, and how the table calls them.
PROMISES = {
    "engine_peak_bytes": "engine",
    "promised_saved_bytes": "saved",
    "im2row_bytes": "im2row",
    "kept_bytes": "kept",
}
SAVED, ALIVE = "saved_activation_bytes", "peak_activation_bytes"


@dataclass(frozen=True)
class Price:
    """A row beside its other side: what it promises and holds, and what it costs.

    Attributes:
        name: of the case, the other side in brackets where it is named.
        promised: by convention, own bytes and the other side's.
        saved, alive: own bytes and the other side's; None where either is not known.
        products: own over the other side's.
        time: own over the other side's, with its interval; no value where its time claims nothing.
    """

    name: str
    promised: dict[str, tuple[float, float]]
    saved: tuple[float, float] | None
    alive: tuple[float, float] | None
    products: float | None
    time: Cell


def prices(site: Site) -> list[Price]:
    """The ranked rows that promise bytes beside their other side, or save some for a backward, in the site's order."""
    found = []
    for row in site.rows:
        other = site.baseline(row)
        if other is None or row.case.is_baseline or not row.ranked:
            continue
        promised = {word: pair for metric, word in PROMISES.items() if (pair := _pair(row, other, metric))}
        saved = _pair(row, other, SAVED)
        if promised or saved:
            products = _pair(row, other, "macs")
            ratio = products[0] / products[1] if products else None
            found.append(Price(_name(row), promised, saved, _pair(row, other, ALIVE), ratio, _time(row)))
    return found


def _pair(row: Row, other: Row, metric: str) -> tuple[float, float] | None:
    own, theirs = row.value(metric), other.value(metric)
    return (own, theirs) if own is not None and theirs else None


def _name(row: Row) -> str:
    own = f"{row.case.model_label}, {row.head_in_full}"
    return f"{own} (against {row.against})" if row.against else own


def _time(row: Row) -> Cell:
    """One over the speed-up; without a value where the execution claims no speed."""
    execution = str(label_of(row.record, "execution"))
    if execution in NO_SPEED:
        return Cell(None, note=NO_SPEED[execution])
    speedup = row.cells.get("speedup")
    if speedup is None or not speedup.value:
        return Cell(None, note=(speedup.note if speedup else "") or "no speed-up was measured")
    low, high = (None if not end else 1 / end for end in (speedup.high, speedup.low))
    return Cell(1 / speedup.value, low, high, speedup.n, speedup.provenance)


def table(found: Sequence[Price]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: a case each, its bytes by formula, saved and alive, its products and its time."""
    head = ["case", "by formula", "saved for the backward", "alive at the peak", "products", "time"]
    return head, [_line(one) for one in found]


def _line(one: Price) -> list[str]:
    promised = "; ".join(f"{word} {_bytes(pair)}" for word, pair in one.promised.items())
    products = "unavailable" if one.products is None else f"{one.products:.3f}x"
    return [one.name, promised or "-", _bytes(one.saved), _bytes(one.alive), products, _said(one.time)]


def _bytes(pair: tuple[float, float] | None) -> str:
    """`0.125x (175,616 of 1,404,928 B)`, or a dash where one side has none."""
    return "-" if pair is None else f"{pair[0] / pair[1]:.3f}x ({pair[0]:,.0f} of {pair[1]:,.0f} B)"


def _said(cell: Cell) -> str:
    """`1.35x [1.33, 1.37]`, or why there is none."""
    if cell.value is None:
        return f"unavailable ({cell.note})"
    if cell.low is None or cell.high is None:
        return f"{cell.value:.2f}x"
    return f"{cell.value:.2f}x [{cell.low:.2f}, {cell.high:.2f}]"
