"""What the rows say in words: the sentence on top of the site and the numbers beside it, never without their basis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.foreign_text import shortened
from bench.metrics import METRICS
from reports.columns import CHANGE
from reports.groups import Group, is_timed, machine_title
from reports.numbers import pair, plain
from reports.rows import Row
from reports.scores import SCORES
from reports.words import plural


@dataclass(frozen=True)
class Finding:
    """A number with the sentence that says what it is."""

    big: str
    what: str


def headline(rows: Sequence[Row], groups: Sequence[Group]) -> str:
    """The finding of the site in one sentence: the best saving that is real, against what was promised."""
    best = _best_saving(rows)
    if best is None:
        done = sum(row.status == "ok" for row in rows)
        if not rows:
            return "There are no results yet"
        return f"{done} of {len(rows)} cases were measured" if done else f"None of the {len(rows)} cases finished"
    speed = best.cells["speedup"]
    if (speed.low or speed.value or 0) <= 1.0:
        return "Nothing here is surely faster than what it is compared with"
    gain, promised = best.value("realised_gain"), best.value("mac_ratio")
    times = f"{pair(speed.value or 0, speed.low, speed.high)} times as fast"
    if best.by_model or best.against:
        words = f"{best.name} is {times} as {best.against or shortened(best.side.label)}"
    else:
        words = f"{best.head} makes {shortened(best.case.model)} {times}"
    if len({row.machine_key for row in rows}) > 1:
        words += f" on {machine_title(best.record)}"
    cost = _at_what_cost(best)
    if gain is None or promised is None:
        return f"{words}, {cost}"
    if gain >= 1:
        return f"{words}, all of the {pair(promised, None, None)} times that its operations promise, {cost}"
    return f"{words}, {cost}; its operations promise {pair(promised, None, None)} times"


def _at_what_cost(row: Row) -> str:
    """What is known of the score that a speed-up was bought with."""
    named = {name: row.cells.get(f"{name}{CHANGE}") for name in SCORES}
    known = {name: cell for name, cell in named.items() if cell is not None and cell.value is not None}
    if not known:
        tried = next((name for name in SCORES if name in row.cells), None)
        return f"at {_article(_spoken(tried))} that was not measured" if tried else "at a score that was not measured"
    metric, change = next(iter(known.items()))
    width = None if change.low is None or change.high is None else (change.high - change.low) / 2
    places = 1 if METRICS[metric].unit == "%" else 3
    margin = "" if width is None else f" ± {plain(width, places)}"
    value = change.value or 0.0
    amount = f"{'+' if value > 0 else ''}{plain(value, places)}{margin}"
    if METRICS[metric].unit == "%":
        return f"at {amount} points of {_spoken(metric)}"
    return f"at {amount} {METRICS[metric].unit} in {_spoken(metric)}"


def _spoken(metric: str) -> str:
    title = METRICS[metric].title
    return title if title[1:2].isupper() else title[0].lower() + title[1:]


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def findings(rows: Sequence[Row], groups: Sequence[Group]) -> list[Finding]:
    """Up to four numbers that a first look needs."""
    found = []
    best = _best_saving(rows)
    if best is not None:
        speed = best.cells["speedup"]
        found.append(
            Finding(
                f"{pair(speed.value or 0, speed.low, speed.high)}×", f"largest speed-up: {best.name}, {_over(best)}"
            )
        )
    gains = [row.value("realised_gain") or 0.0 for row in rows if row.ranked and row.value("realised_gain") is not None]
    if gains:
        found.append(
            Finding(
                f"{plain(median(gains), 2)}×",
                f"of the promised speed-up arrives (median of {plural(len(gains), 'case')}, "
                f"{plain(min(gains), 2)} to {plain(max(gains), 2)})",
            )
        )
    floors = [group.noise_floor for group in groups if group.noise_floor]
    if floors:
        width = max(max(high - 1, 1 - low) for low, high in floors) * 100
        found.append(
            Finding(
                f"±{plain(width, 2 if width < 1 else 1)} %",
                "noise floor: how far two identical subjects differed when timed together",
            )
        )
    found.append(_coverage(rows, groups))
    return found


def _over(row: Row) -> str:
    """What a row is faster than, in words."""
    return f"over {row.against}" if row.against else "over the same network without it"


def _coverage(rows: Sequence[Row], groups: Sequence[Group]) -> Finding:
    counted = [row for row in rows if row.status == "ok" and not is_timed(row)]
    others = len(rows) - len(counted)
    ends = Counter("contaminated" if row.contaminated and row.status == "ok" else row.status for row in rows)
    failed = [f"{count} {status}" for status, count in ends.most_common() if status != "ok"]
    kinds = f" in {len(groups)} groups that are ranked apart" if len(groups) > 1 else ""
    if not others:
        return Finding(str(len(counted)), f"cases counted, none timed{kinds}")
    more = [", ".join(failed)] * bool(failed) + [f"{len(counted)} more counted, not timed"] * bool(counted)
    measured = ends.get("ok", 0) - len(counted)
    return Finding(f"{measured} of {others}", "; ".join([f"cases measured{kinds}", *more]))


def _best_saving(rows: Sequence[Row]) -> Row | None:
    sped = [row for row in rows if row.ranked and row.value("speedup") is not None]
    return max(sped, key=lambda row: row.cells["speedup"].low or row.cells["speedup"].value or 0.0, default=None)
