"""What readers and the planner take with a results folder of so many records: each question in a process of its own."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from perf.scale.folder import configuration, planned

#: Question -> what it is in a table.
QUESTIONS = {
    "first_table": "first table (index is made)",
    "table": "table again",
    "whole": "all records whole",
    "plan": "job=plan, nothing to do",
    "resume": "sweep, nothing to do",
    "predictions": "what predictions are made from",
}


def first_table(folder: str, cases: int) -> int:
    """Rows of the tidy table where nobody has read the folder before."""
    from bench.store.index_file import NAME

    (Path(folder) / "results" / NAME).unlink(missing_ok=True)
    return table(folder, cases)


def table(folder: str, cases: int) -> int:
    """Rows of the tidy table of all readings."""
    import bench

    return len(bench.load(Path(folder) / "results"))


def whole(folder: str, cases: int) -> int:
    """Layers of all records, each read whole and let go."""
    from bench.store.records import Store

    return sum(len(record["layers"]) for record in Store(Path(folder) / "results").iterate())


def plan(folder: str, cases: int) -> int:
    """Lines that `job=plan` prints where every case has its record."""
    from bench.app.jobs.plan import run

    config = configuration(Path(folder), cases)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run(config)
    said = printed.getvalue()
    assert " 0 to measure" in said, said[-500:]
    return len(said.splitlines())


def resume(folder: str, cases: int) -> int:
    """Rows of a sweep that finds every case measured."""
    from bench.sweep.loop import Driver

    config, made = planned(folder, cases)
    swept = Driver(config, made).run({})
    assert swept.measured == 0 and not swept.problems
    return len(swept.records.outlines())


def predictions(folder: str, cases: int) -> int:
    """Rows that one prediction's question "has anything changed?" goes over."""
    from bench.store.records import Store
    from bench.workloads.prediction import source_of

    heads = Store(Path(folder) / "results").heads()
    source_of((head.brief() for head in heads.values()), "vit_tokens")
    return len(heads)
