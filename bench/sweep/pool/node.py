"""One machine's part: a process of its own that measures a piece of work with the local sweep.

    python -m bench.sweep.pool.node WORK.json FOLDER

Whatever started it (a task of Ray's, a job of SLURM's) shares nothing with the processes that are timed. It writes
`FOLDER/results`, a results folder like any other, and last `FOLDER/ended.json`.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.config import catalogue
from bench.config.schema import Config
from bench.errors import BenchError, UsageError
from bench.plan import plan
from bench.plan.plan import Group, Plan
from bench.store.records import write_atomically, write_json
from bench.sweep.pool.place import NODE, held, keep_folder, place_for, settle
from bench.sweep.pool.work import Work, difference, versions
from bench.worker import isolation

ENDED = "ended.json"
RESULTS = "results"


def main(arguments: list[str]) -> int:
    """Measure the piece of work; 0 also where that failed, because it is told in the file."""
    isolation.die_with_parent()
    text, folder = Path(arguments[0]).read_text(encoding="utf-8"), Path(arguments[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, sys.path)))  # for the workers
    write_json(folder / ENDED, {**measure(Work.read(text), folder), "node": node_name()})
    return 0


def measure(work: Work, folder: Path) -> dict[str, Any]:
    """How it ended: `status` is done, refused or failed, with the message, and when measuring began and ended."""
    unlike = difference(work.versions, versions())
    if unlike:
        return _refused(f"this machine has {unlike}; give all machines the driver's versions")
    try:
        config = work.configured(str(folder / RESULTS))
        made = part_of(plan.make(config, catalogue.load()), work)
        check_threads(config)
    except UsageError as error:
        return _refused(str(error))
    own = place_for(config)
    with held(own):
        settle(own)
        try:
            check_threads(config)  # of its part of the cores
        except UsageError as error:
            return _refused(str(error))
        kept, began = keep_folder(), time.time()
        _copy_calibrations(kept, folder / RESULTS / "machines")
        try:
            from bench.sweep.loop import Driver

            Driver(config, made).run({})
        except BenchError as error:
            return {"status": "failed", "message": str(error), "began": began, "ended": time.time(), "place": own.title}
        finally:
            _copy_calibrations(folder / RESULTS / "machines", kept)
    return {"status": "done", "message": "", "began": began, "ended": time.time(), "place": own.title}


def part_of(made: Plan, work: Work) -> Plan:
    """The plan of the work's cases alone.

    Raises:
        UsageError: this machine's plan lacks some: models, data or code are other than the driver's.
    """
    wanted = set(work.cases)
    groups = [Group(tuple(case for case in group.cases if case.key in wanted)) for group in made.groups]
    found = {case.key for group in groups for case in group.cases}
    if found != wanted:
        raise UsageError(
            f"{len(wanted - found)} of {len(wanted)} cases are not in this machine's plan of {work.label}: its code, "
            "data or checkpoints are other than the driver's"
        )
    return replace(made, groups=tuple(group for group in groups if group.cases))


def check_threads(config: Config) -> None:
    """Raise UsageError if the driver's number of threads is more than this process has cores for."""
    asked, here = plan.threads(config), plan.own_cores()
    if asked > here:
        raise UsageError(
            f"{asked} threads are more than the {here} core{'' if here == 1 else 's'} that a piece of work has here: "
            "all machines of a sweep take the driver's number; say device.threads=1, or one that all of them have"
        )


def node_name() -> str:
    """What tells this machine of a pool from the others: the name that a simulation gives it, else the host's."""
    return os.environ.get(NODE) or os.uname().nodename


def _refused(message: str) -> dict[str, Any]:
    return {"status": "refused", "message": message, "began": None, "ended": None}


def _copy_calibrations(source: Path, target: Path) -> None:
    """Copy them whole or not at all: another GPU's piece may read them at the same time."""
    for path in source.glob("*.json"):
        write_atomically(target / path.name, path.read_bytes())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
