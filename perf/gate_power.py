"""How many sessions a gate needs on a runner, from sessions recorded there, through the gate's own comparison.

Run `python -m perf.gate_power RESULTS...` with five sessions or more of the same suite (a results folder each, or one
that holds them all), or `python -m perf.gate_power --measure quiet` (or `busy`, beside neighbours that this command
starts), which measures sessions of its own for seven minutes and puts its table into docs/statistics.md; it ends within
twelve minutes. Each simulated gate draws its sessions from those, with replacement; on side b every time is
longer by a known share. What is counted is how often `job=compare` calls it slower, and how often it does so where
nothing changed.

A bootstrap knows no session that the runner has not shown: with five sessions the numbers are rough, with twenty they
are good (B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 25 on power).
`bench.analysis.power` has a formula for the same question, which the gate uses.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.analysis.compare import compare
from bench.analysis.power import POWER
from bench.analysis.table import read_records
from bench.errors import UsageError
from bench.store.records import Record
from perf.gate_sessions import ROOT, RUNNERS, SECONDS, measured, written

#: Shares of time that are to be found, and the one that is to be found by nobody.
DIFFERENCES = (0.05, 0.10)
#: Sessions on a side that are tried, in this order.
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50)
#: Fewer sessions than these say nothing about what sessions differ by.
FEWEST = 5
#: Seconds for all simulated gates.
SIMULATED_S = 240.0
#: Simulated gates; the standard error of a share of nine in ten is then two hundredths.
DRAWS = 200


@dataclass(frozen=True)
class Line:
    """What was found of one difference.

    Attributes:
        difference: of the times, relative.
        found: sessions on a side -> share of gates that called one case slower.
        needed: fewest sessions of those tried with which nine in ten do; None where none of them is enough.
    """

    difference: float
    found: dict[int, float]
    needed: int | None


def sessions_of(records: Sequence[Record]) -> list[Record]:
    """The sessions of the case that has most, with their times; its model without a method where several have as many.

    Raises:
        UsageError: there are fewer than are needed.
    """
    cases: dict[tuple[str, str], dict[str, Record]] = defaultdict(dict)
    for record in records:
        timing = record.get("timing") or {}
        if record["status"] == "ok" and timing.get("session"):
            cases[record["case_key"], record["machine_key"]][str(timing["session"])] = record
    most = max(
        cases.values(),
        key=lambda found: (len(found), next(iter(found.values()))["case"]["method"] == "none"),
        default={},
    )
    if len(most) < FEWEST:
        raise UsageError(
            f"{len(most)} sessions of one case say little about what sessions differ by: measure {FEWEST} or more"
        )
    return list(most.values())


def drawn(pool: Sequence[Record], count: int, factor: float, name: str, chance: Random) -> list[Record]:
    """A side of a gate: sessions of the pool with replacement, each of its own, their times longer by a factor."""
    made = []
    for number in range(count):
        one = chance.choice(pool)
        own = {**one, "timing": copy.deepcopy(one["timing"])}  # nothing else of it changes
        own["timing"]["session"] = f"{name}{number}"
        own["started_at"] = f"2026-01-01T{ord(name) % 24:02}:{number:02}:00+00:00"
        own["content_hash"] = f"{name}{number}"
        for line in own["timing"]["invocations"]:
            line.pop("samples_file", None)
            line["median_ms"] *= factor
            if own["case"]["method"] == "none":  # it is its own baseline
                line["baseline_median_ms"] *= factor
        made.append(own)
    return made


def found_by_the_gate(a: Sequence[Record], b: Sequence[Record]) -> bool:
    """Whether the gate calls the time of b longer for certain."""
    rows = [row for row in compare(a, b, metrics=("latency_ms",)).rows if row.metric == "latency_ms"]
    return any(row.regression for row in rows)


def share_found(pool: Sequence[Record], count: int, difference: float, draws: int, seed: int = 0) -> float:
    """Share of simulated gates of so many sessions a side that find a difference."""
    chance = Random(seed)
    found = sum(
        found_by_the_gate(drawn(pool, count, 1.0, "a", chance), drawn(pool, count, 1 + difference, "b", chance))
        for _ in range(draws)
    )
    return found / draws


def line_of(
    pool: Sequence[Record],
    difference: float,
    draws: int,
    sizes: Sequence[int] = SIZES,
    seconds: float = SIMULATED_S / len(DIFFERENCES),
    power: float = POWER,
) -> Line:
    """The shares of one difference, up to the number of sessions that finds it so often, or for which there is time."""
    found: dict[int, float] = {}
    last = time.monotonic() + seconds
    for count in sizes:
        if found and time.monotonic() > last:
            break
        found[count] = share_found(pool, count, difference, draws)
        if found[count] >= power:
            return Line(difference, found, count)
    return Line(difference, found, None)


def as_text(pool: Sequence[Record], lines: Sequence[Line], false_alarms: float) -> str:
    """The table as people read it."""
    case = pool[0]["case"]
    rows = [f"{len(pool)} recorded sessions of {case['model']}, {case['method']}, on {pool[0]['machine_key']}"]
    for line in lines:
        shares = ", ".join(f"{count}: {share:.0%}" for count, share in line.found.items())
        wanted = f"{line.needed} sessions a side" if line.needed else f"more than {max(line.found)} sessions a side"
        rows.append(f"{line.difference:.0%} more time is found nine times in ten with {wanted} ({shares})")
    rows.append(f"false alarms with 3 sessions a side: {false_alarms:.0%}")
    return "\n".join(rows)


def as_table(runner: str, disturbed: int, pool: Sequence[Record], lines: Sequence[Line], false_alarms: float) -> str:
    """The table as the docs have it."""
    machine = pool[0]["machine_key"]
    head = (
        f"On a {runner} runner ({machine}): {len(pool)} sessions of {pool[0]['case']['model']}; {disturbed} more were "
        "left out as disturbed."
    )
    rows = [
        "",
        "| more time | sessions a side that find it nine times in ten | found, by sessions a side |",
        "|---|---|---|",
    ]
    for line in lines:
        shares = ", ".join(f"{count}: {share:.0%}" for count, share in line.found.items())
        rows.append(f"| {line.difference:.0%} | {line.needed or f'more than {max(line.found)}'} | {shares} |")
    return "\n".join([head, *rows, "", f"False alarms with 3 sessions a side: {false_alarms:.0%}."])


def too_disturbed(runner: str, clean: int, sessions: int) -> str:
    """What the docs say of a runner on which hardly any session is one that the gate takes."""
    return (
        f"On a {runner} runner, {clean} of {sessions} sessions were undisturbed: the gate calls the others AMBIGUOUS, "
        "whatever changed, until a side has clean ones."
    )


def measure_and_write(runner: str, page: Path, draws: int, seconds: float = SECONDS) -> int:
    """Measure sessions of a runner and put what a gate needs there into a page; 2 where they are too few.

    Where hardly any is undisturbed, all are taken as if they were, which the page says.
    """
    with tempfile.TemporaryDirectory(prefix="gate_power_") as folder:
        results = measured(Path(folder), runner, seconds)
        records = read_records(results).records
    clean = [record for record in records if record["status"] == "ok"]
    try:
        pool, note = sessions_of(clean), ""
    except UsageError:
        note = too_disturbed(runner, len(clean), len(records))
        try:
            pool = sessions_of([{**record, "status": "ok"} for record in records])
        except UsageError as error:
            written(page, runner, f"{note} {error}.")
            print(f"{note} {error}.")
            return 2
    lines = [line_of(pool, difference, draws) for difference in DIFFERENCES]
    table = as_table(runner, len(records) - len(pool), pool, lines, share_found(pool, 3, 0.0, draws))
    table = f"{note} Taken all the same:\n\n{table}" if note else table
    written(page, runner, table)
    print(table)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Print what a gate needs on this runner, from given sessions or from own ones; 2 where they say too little."""
    parser = argparse.ArgumentParser(description="Sessions that a gate needs on this runner.")
    parser.add_argument("results", nargs="*", type=Path, help="results folders that hold the sessions")
    parser.add_argument("--measure", choices=RUNNERS, help="measure sessions here, and write the table into the docs")
    parser.add_argument("--draws", type=int, default=DRAWS, help="simulated gates for each number")
    given = parser.parse_args(argv)
    if bool(given.results) == bool(given.measure):
        parser.error("name results folders, or say --measure quiet or --measure busy")
    try:
        if given.measure:
            return measure_and_write(given.measure, ROOT / "docs" / "statistics.md", given.draws)
        pool = sessions_of(read_records(given.results).records)
    except UsageError as error:
        print(f"gate_power: {error}", file=sys.stderr)
        return 2
    lines = [line_of(pool, difference, given.draws) for difference in DIFFERENCES]
    print(as_text(pool, lines, share_found(pool, 3, 0.0, given.draws)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
