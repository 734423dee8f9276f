"""How long a gate takes to find more time, by kind of runner: sessions simulated in worlds whose scatter is known.

`python -m perf.gate_worlds` draws sessions of a protocol in each world of `perf.worlds`, and gates from these sessions
through the gate's own comparison (`perf.gate_power`): how many sessions a side find 5 and 10 % more time in four of
five gates, and how long these take. `perf.gate_power` asks the same of sessions that were recorded on a runner of
your own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.analysis import assemble
from bench.plan.case import Case
from bench.reading import reading
from bench.statistics import log_mean_interval
from bench.store.records import Record
from perf.gate_power import DIFFERENCES, Line, line_of, share_found
from perf.rules import RULES, Rule, Values
from perf.simulated import sessions_of
from perf.worlds import BASELINE, CASES, PRODUCT, TWIN, WORLDS, World

#: Share of gates that are to find the difference.
POWER = 0.8
#: Sessions of a world that gates draw from.
SESSIONS = 200
#: Gates for each number; the standard error of four in five is then three hundredths.
DRAWS = 150
#: Sessions on a side that are tried.
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32)
#: Seconds for one difference in one world.
SECONDS = 60.0


@dataclass(frozen=True)
class Row:
    """A kind of runner: what each difference takes there, seconds of a session for one case, and false alarms."""

    world: str
    seconds: float
    lines: tuple[Line, ...]
    false: float


def pool_of(rule: Rule, world: World, count: int, seed: int = 0) -> tuple[list[Record], float]:
    """Records of so many sessions of one network, and the mean seconds of a session for one case."""
    values, taken, seconds = sessions_of(rule, world, np.random.default_rng([seed, 2]), count)
    records = [_record(rule, values, number, int(processes)) for number, processes in enumerate(taken)]
    return records, float(seconds.mean()) / len(CASES)


def _record(rule: Rule, values: Values, number: int, processes: int) -> Record:
    """The record of the baseline in one session, with what the gate reads of it."""
    ms = {name: np.exp(values[name][number, :processes]) for name in (BASELINE, TWIN, PRODUCT)}
    case = Case(suite="gate", model="network", protocol=rule.protocol.hash)
    context = assemble.Context(rule.protocol, {}, "simulated", {}, {})
    floor = log_mean_interval((ms[BASELINE] / ms[TWIN]).tolist())
    lines = [
        {"index": i, "median_ms": own, "baseline_median_ms": own, "gemm_median_ms": float(ms[PRODUCT][i])}
        for i, own in enumerate(ms[BASELINE].tolist())
    ]
    return {
        **assemble.blank(case, context, "2026-01-01T00:00:00+00:00", "2026-01-01T00:01:00+00:00"),
        "status": "ok",
        "error": None,
        "flags": [],
        "readings": [reading("latency_ms", float(np.exp(np.log(ms[BASELINE]).mean())), "measured").as_dict()],
        "timing": {
            "session": f"simulated{number}",
            "paired": True,
            "clean": True,
            "noise_floor": {"low": floor.low, "high": floor.high},
            "invocations": lines,
        },
    }


def row_of(rule: Rule, world: World, draws: int = DRAWS, sizes: Sequence[int] = SIZES) -> Row:
    """What a gate takes in one world."""
    pool, seconds = pool_of(rule, world, SESSIONS)
    lines = tuple(line_of(pool, difference, draws, sizes, SECONDS, POWER) for difference in DIFFERENCES)
    return Row(world.name, seconds, lines, share_found(pool, 3, 0.0, draws))


def as_table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each kind of runner."""
    heads = " | ".join(f"{difference:.0%}: sessions a side | s per case" for difference in DIFFERENCES)
    lines = [
        f"| runner | s per case and session | {heads} | false alarms, 3 sessions a side |",
        "|---|---:|" + "---:|---:|" * len(DIFFERENCES) + "---:|",
    ]
    for row in rows:
        cells = " | ".join(_cells(line, row.seconds) for line in row.lines)
        lines.append(f"| {row.world} | {row.seconds:.1f} | {cells} | {row.false:.0%} |")
    return "\n".join(lines)


def _cells(line: Line, seconds: float) -> str:
    """Sessions that are enough and the seconds of both sides; or that more are needed than were tried."""
    most = max(line.found)
    if line.needed is None:
        return f"more than {most} ({line.found[most]:.0%} with these) | more than {2 * most * seconds:.0f}"
    return f"{line.needed} | {2 * line.needed * seconds:.0f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.gate_worlds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", default="v2/quick", choices=[rule.name for rule in RULES])
    parser.add_argument("--worlds", nargs="+", choices=[world.name for world in WORLDS])
    parser.add_argument("--draws", type=int, default=DRAWS, help="simulated gates for each number")
    given = parser.parse_args(argv)
    rule = next(rule for rule in RULES if rule.name == given.protocol)
    print(as_table([]))
    for world in WORLDS:
        if not given.worlds or world.name in given.worlds:
            print(as_table([row_of(rule, world, given.draws)]).splitlines()[-1], flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
