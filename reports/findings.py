"""What the rows say in words: the sentence on top of the site and the numbers beside it, never without their basis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from bench.foreign_text import shortened
from bench.metrics import METRICS
from bench.store.records import DISTURBED
from reports.columns import CHANGE
from reports.groups import Group, is_timed, machine_title
from reports.numbers import pair, plain
from reports.rows import Cell, Row
from reports.scores import SCORES

_CHANGES = tuple((name, f"{name}{CHANGE}") for name in SCORES)
#: Gains that have quartiles worth the name.
FEWEST_FOR_QUARTILES = 4


@dataclass(frozen=True)
class Finding:
    """A number with the sentence that says what it is."""

    big: str
    what: str


def headline(rows: Sequence[Row], groups: Sequence[Group]) -> str:
    """The finding of the site in one sentence: the typical saving, not the largest, against what was promised."""
    compared = [row for row in rows if row.ranked and row.value("speedup") is not None]
    if not compared:
        return _uncompared(rows)
    if len(compared) == 1:
        return of_one(compared[0], several_machines=len({row.machine_key for row in rows}) > 1)
    faster = sum(_ends(row)[0] > 1.0 for row in compared)
    slower = sum(_ends(row)[1] < 1.0 for row in compared)
    said = f"Of {len(compared)} cases that were compared {changes(faster, slower)}"
    arrived = _arrived(compared)
    if arrived is None:
        return said
    low, middle, high = arrived
    promised = f"{plain(100 * middle, 0)} % of the promised speed-up arrives in the median"
    return f"{said}; {promised} (quartiles {plain(100 * low, 0)} to {plain(100 * high, 0)} %)"


def _uncompared(rows: Sequence[Row]) -> str:
    """What is known where no speed-up may be ranked."""
    if not rows:
        return "There are no results yet"
    ends = Counter(row.status for row in rows)
    disturbed = ends[DISTURBED]
    done = ends["ok"]
    busy = f"{disturbed} of {len(rows)} cases were measured on a busy machine: their ratios stand, their ranks do not"
    if disturbed and not done:
        return busy
    if not done:
        return f"None of the {len(rows)} cases finished"
    return f"{done} of {len(rows)} cases were measured" + (f", {disturbed} more on a busy machine" if disturbed else "")


def _ends(row: Row) -> tuple[float, float]:
    """The interval of a speed-up; one without an interval is certain of nothing."""
    cell = row.cells["speedup"]
    return (0.0 if cell.low is None else cell.low, float("inf") if cell.high is None else cell.high)


def _over(gains: Sequence[float]) -> str:
    """Over which cases a share is the median."""
    if len(gains) == 1:
        return "in the one case that promises one"
    ends = f"{plain(100 * min(gains), 0)} to {plain(100 * max(gains), 0)} %"
    return f"(median of {len(gains)} cases that promise one, {ends})"


def changes(faster: int, slower: int) -> str:
    """How many of several are faster and slower for certain, as the end of a sentence."""
    if not faster and not slower:
        return "none is faster or slower for certain"
    verb = "is" if faster < 2 else "are"
    again = "are " if verb == "is" and slower > 1 else ""
    return f"{faster or 'none'} {verb} faster for certain and {slower or 'none'} {again}slower"


def _gains(compared: Sequence[Row]) -> list[float]:
    """Measured over promised speed-up of the rows whose operations promise one: below it there is nothing to arrive."""
    return [
        gain
        for row in compared
        if (row.value("mac_ratio") or 0.0) > 1.0 and (gain := row.value("realised_gain")) is not None
    ]


def _arrived(compared: Sequence[Row]) -> tuple[float, float, float] | None:
    """Quartiles of what arrives of the promised speed-up; None of too few rows."""
    gains = _gains(compared)
    if len(gains) < FEWEST_FOR_QUARTILES:
        return None
    low, middle, high = quantiles(gains, n=4, method="inclusive")
    return low, middle, high


def of_one(row: Row, *, several_machines: bool = False) -> str:
    """What a single compared row says: its speed-up, what it cost, and what was promised."""
    speed = row.cells["speedup"]
    times = f"{pair(speed.value or 0, speed.low, speed.high)} times as fast"
    if row.by_model or row.against:
        words = f"{row.name} is {times} as {row.against or shortened(row.side.label)}"
    else:
        words = f"{row.head} makes {shortened(row.case.model)} {times}"
    if several_machines:
        words += f" on {machine_title(row.record)}"
    cost, (low, high) = _at_what_cost(row), _ends(row)
    gain, promised = row.value("realised_gain"), row.value("mac_ratio")
    if low <= 1.0 <= high:
        words += ", which may be no difference"
    if gain is None or promised is None:
        return f"{words}, {cost}"
    if gain >= 1:
        return f"{words}, all of the {pair(promised, None, None)} times that its operations promise, {cost}"
    return f"{words}, {cost}; its operations promise {pair(promised, None, None)} times"


def _at_what_cost(row: Row) -> str:
    """What is known of the score that a speed-up was bought with."""
    found = score_change(row)
    if found is None:
        tried = next((name for name in SCORES if name in row.cells), None)
        return f"at {_article(_spoken(tried))} that was not measured" if tried else "at a score that was not measured"
    metric, change = found
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
    best = best_saving(rows)
    if best is not None:
        found.append(_of_best(best))
    gains = _gains([row for row in rows if row.ranked])
    if gains:
        found.append(
            Finding(
                f"{plain(100 * median(gains), 0)} %",
                f"of the promised speed-up arrives {_over(gains)}",
            )
        )
    floors = [group.noise_floor for group in groups if group.noise_floor]
    if floors:
        width = max(max(high - 1, 1 - low) for low, high in floors) * 100
        of_which = " of the noisiest group" if len(floors) > 1 else ""
        found.append(
            Finding(
                f"±{plain(width, 2 if width < 1 else 1)} %",
                f"noise floor{of_which}: how far two identical subjects differed when timed together",
            )
        )
    found.append(_coverage(rows, groups))
    return found


def _of_best(row: Row) -> Finding:
    """The largest speed-up and what it was bought with; where none is certain, what comes closest to one."""
    speed, other = row.cells["speedup"], row.against or "the same network without it"
    times = f"{pair(speed.value or 0, speed.low, speed.high)}×"
    if _ends(row)[0] > 1.0:
        return Finding(times, f"largest speed-up {bought(row)}: {row.name}, over {other}")
    return Finding(times, f"comes closest: {row.name} {bought(row)}; nothing is faster for certain than {other}")


def _coverage(rows: Sequence[Row], groups: Sequence[Group]) -> Finding:
    counted = [row for row in rows if row.status == "ok" and not is_timed(row)]
    others = len(rows) - len(counted)
    ends = Counter(row.state for row in rows)
    failed = [f"{count} {status}" for status, count in ends.most_common() if status != "ok"]
    kinds = f" in {len(groups)} groups that are ranked apart" if len(groups) > 1 else ""
    if not others:
        return Finding(str(len(counted)), f"cases counted, none timed{kinds}")
    more = [", ".join(failed)] * bool(failed) + [f"{len(counted)} more counted, not timed"] * bool(counted)
    measured = ends.get("ok", 0) - len(counted)
    return Finding(f"{measured} of {others}", "; ".join([f"cases measured{kinds}", *more]))


def best_saving(rows: Sequence[Row]) -> Row | None:
    """The largest speed-up, of the first kind that there is.

    Those that are certain and lose no quality for certain; those that are certain; those of which it is not known.
    """
    sped = [row for row in rows if row.ranked and row.value("speedup") is not None]
    certain = [row for row in sped if _ends(row)[0] > 1.0]
    kept = [row for row in certain if not loses(row)]
    return max(
        kept or certain or sped,
        key=lambda row: row.cells["speedup"].low or row.cells["speedup"].value or 0.0,
        default=None,
    )


def score_change(row: Row) -> tuple[str, Cell] | None:
    """The first score whose change against the other side is known, and that change."""
    for name, key in _CHANGES:
        cell = row.cells.get(key)
        if cell is not None and cell.value is not None:
            return name, cell
    return None


def loses(row: Row) -> bool:
    """Whether a row's quality is worse for certain: the whole interval of its change lies on the bad side."""
    found = score_change(row)
    if found is None:
        return False
    metric, cell = found
    if METRICS[metric].better == "higher":
        return cell.high is not None and cell.high < 0
    return cell.low is not None and cell.low > 0


def bought(row: Row) -> str:
    """What a speed-up is known to have cost."""
    found = score_change(row)
    if found is None:
        return "(quality not measured)"
    if loses(row) or found[1].low is None:
        return _at_what_cost(row)
    return f"at no certain loss of {_spoken(found[0])}"
