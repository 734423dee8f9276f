"""Which bars of a waterline are drawn: by layer, by block, or the slowest and one for the rest. Totals never move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from bench.analysis.roofline import SLACK, Bar, Waterline, summed, with_shares

#: Above this many layers a waterline is grouped by block unless told otherwise.
GROUP_ABOVE = 200


def grouped(line: Waterline, key: Callable[[Bar], str] | None = None) -> Waterline:
    """The same totals with neighbouring bars of one block drawn as one bar; times add, so nothing moves in the sums.

    Args:
        line: an ungrouped waterline.
        key: names the group of a bar; by default its layer's block, and bars without one stay alone.
    """
    name_of = key or (lambda bar: bar.layer.block if bar.layer else "")
    groups: list[tuple[str, list[Bar]]] = []
    for bar in line.bars:
        name = name_of(bar)
        if groups and name and groups[-1][0] == name:
            groups[-1][1].append(bar)
        else:
            groups.append((name, [bar]))
    bars = [members[0] if len(members) == 1 else summed(name, members) for name, members in groups]
    return replace(line, bars=with_shares(bars, line.totals))


def top_share(line: Waterline, share: float) -> Waterline:
    """The fewest bars that hold `share` (0..1) of the time, in order, and one bar `other` for the rest: totals stay.

    Time is measured time where every bar has it, else attainable time, else the bars are returned unchanged.
    """
    times = _first_complete([b.time_ms for b in line.bars], [b.attainable_ms for b in line.bars])
    if times is None or not line.bars:
        return line
    goal, running, kept = share * math.fsum(times), 0.0, set()
    for position in sorted(range(len(times)), key=lambda i: (-times[i], i)):
        if running >= goal * (1 - SLACK):
            break
        running += times[position]
        kept.add(position)
    rest = [bar for i, bar in enumerate(line.bars) if i not in kept]
    shown = [bar for i, bar in enumerate(line.bars) if i in kept]
    if len(rest) > 1:
        rest = [summed("other", rest)]
    return replace(line, bars=with_shares(shown + rest, line.totals))


def _first_complete(*columns: list[float | None]) -> list[float] | None:
    for column in columns:
        values = [value for value in column if value is not None]
        if len(values) == len(column):
            return values
    return None
