"""The table of what each kind of layer reaches on a machine, over the plain networks that were timed there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from bench.analysis.layer_kinds import KINDS, KindShare, shares
from bench.words import plural
from reports.numbers import MISSING, plain
from reports.rows import Row

HEAD = ("Kind of layer", "Networks", "Layers", "Of the layers' time", "Of the peak", "Of the bandwidth")
NUMBERS = (1, 2, 3, 4, 5)


def table(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """A line per kind and arithmetic, as `HEAD` says: the median over networks, with the smallest and the largest.

    Only networks as they are, undisturbed and with times of their layers; empty where there is none.
    """
    found: dict[tuple[str, str], list[KindShare]] = {}
    for row in _plain(rows):
        if row.ranked:
            for share in shares(row.record):
                found.setdefault((share.kind, share.dtype), []).append(share)
    several = len({dtype for _, dtype in found}) > 1
    ordered = sorted(found.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1]))
    return [_line(f"{kind}, {dtype}" if several else kind, own) for (kind, dtype), own in ordered]


def left_out(rows: Iterable[Row]) -> str:
    """Why plain networks do not count here; empty where all do."""
    plain_rows = _plain(rows)
    disturbed = sum(row.disturbed for row in plain_rows)
    untimed = sum(row.ranked and not shares(row.record) for row in plain_rows)
    counted = ((disturbed, "ran beside other work"), (untimed, "without times of layers"))
    return ", ".join(f"{plural(count, 'case')} {why}" for count, why in counted if count)


def _plain(rows: Iterable[Row]) -> list[Row]:
    """Networks as they are; a bare function is none."""
    return [row for row in rows if (row.case.is_baseline or row.by_model) and row.case.workload != "operator"]


def _line(name: str, own: Sequence[KindShare]) -> tuple[str, ...]:
    return (
        name,
        str(len(own)),
        str(sum(share.layers for share in own)),
        _range([share.of_time for share in own]),
        _range([share.of_peak for share in own]),
        _range([share.of_bandwidth for share in own]),
    )


def _range(values: Sequence[float | None]) -> str:
    """Median with the smallest and the largest in percent; a dash where one is not known."""
    known = [100 * value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return MISSING
    middle = f"{_percent(median(known))} %"
    return middle if len(known) == 1 else f"{middle} ({_percent(min(known))} to {_percent(max(known))})"


def _percent(value: float) -> str:
    return plain(value, 0 if value >= 10 else 1)
