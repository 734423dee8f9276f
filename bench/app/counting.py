"""The counts of a first run: the suite's grid `paper`, counted on shapes alone, so that claims can be judged.

It is a sweep of its own into the same results folder, before anything is timed: half a minute once, nothing when its
records are there. What goes wrong with it is told in a line and costs the timed sweep nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.api import protocol_named
from bench.config import catalogue
from bench.config.schema import Config, Data, Device, Task
from bench.errors import BenchError
from bench.plan import plan
from bench.plan.case import Case
from bench.short_names import short_name

#: The grid of a suite that holds every setting that a paper's count is about.
GRID = "paper"


def counting_config(config: Config) -> Config | None:
    """The configuration of the counts that belong to a run; None where the run is to have none.

    That is where the counts are switched off or are the run itself, where the suite has no such grid, and where the run
    is of models or methods that were picked by hand. Where and on what data the run is timed changes no count, so the
    counts are those of `grid=paper protocol=counts`, and present once they have been made.
    """
    suite = config.suite
    picked = (
        config.model is not None or suite.models is not None or suite.methods is not None or suite.against is not None
    )
    if not config.counts or not config.protocol.timed or picked or GRID not in suite.grids:
        return None
    bare = dict.fromkeys(suite.overrides)
    return config.model_copy(
        update={
            "grid": GRID,
            "protocol": protocol_named("counts"),
            "suite": suite.model_copy(update=bare),
            "checkpoint": None,
            "device": Device(),
            "task": Task(),
            "data": Data(),
            "seed": 0,
        }
    )


def count_first(config: Config, working: Callable[[str], None]) -> list[str]:
    """Count what the run's suite claims, as far as it is not there yet; what went wrong, a line each.

    Args:
        config: of the run.
        working: called with what is being done.

    Raises:
        Interrupted: Ctrl-C, which ends the whole run.
    """
    from bench.sweep.attempts import Interrupted
    from bench.sweep.events import Event, Working
    from bench.sweep.loop import Driver

    counting = counting_config(config)
    if counting is None:
        return []

    def show_progress(event: Event) -> None:
        if isinstance(event, Working):
            working(event.what)

    try:
        sweep = Driver(counting, plan.make(counting, catalogue.load()), [show_progress]).run({})
    except Interrupted:
        raise
    except BenchError as error:
        return [f"the counts that claims are judged by are not whole: {error}"]
    lines = [
        f"{short_name(Case.from_dict(record['case']).label)} was not counted: {record['status']}: {_why(record)}"
        for record in sweep.failed
    ]
    return [*lines, *sweep.problems]


def _why(record: dict[str, object]) -> str:
    error = record.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return " ".join(str(message or "no reason was given").split())[:200]
