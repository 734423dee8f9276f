"""`job=run`: measure what is missing, mirror it, rebuild the report, and show the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.app import mirror, site
from bench.app.best import best_row
from bench.app.closing import in_order_of, seconds_again, show_rows, state_text
from bench.app.counting import count_first
from bench.app.fault_text import one_line
from bench.app.forecast import group_seconds, unfinished_groups
from bench.app.progress import GroupLines, ProgressBar
from bench.app.refresh import Refresher
from bench.app.terminal import tell
from bench.config import catalogue
from bench.config.schema import Config
from bench.errors import BenchError, ResultsError
from bench.foreign_text import escape_controls, shortened
from bench.plan import plan
from bench.plan.case import Case
from bench.short_names import short_name
from bench.store.lock import ResultsLock
from bench.store.records import Record

if TYPE_CHECKING:
    from bench.sweep.writing import Sweep

FINISHED_WITH_FAILURES = 3


def run(config: Config) -> int:
    """Run the sweep; 0 if all is well, 3 with failed rows, 130 if interrupted."""
    made = plan.make(config, catalogue.load())
    with ResultsLock(config.paths.results):
        pass  # a folder that is taken or cannot be written is refused at once, not after a forecast
    if made.unscored:
        tell(made.unscored)
    from bench.sweep.loop import Driver  # brings scipy: a wrong name is answered before that

    with GroupLines() as said, ProgressBar(said) as bar:
        bar.working("estimating the time")
        seconds = group_seconds(config, made, unfinished_groups(config, made))
        copy = mirror.open_mirror(config, made)
        lines = count_first(config, bar.working)
        refresher = Refresher(config, copy.refresh)
        driver, stopped = Driver(config, made, [bar, copy, said, refresher]), None
        try:
            driver.run(seconds)
        except BenchError as error:
            stopped = error
            if not driver.sweep.records:
                copy.close(None, interrupted=True)
                raise
        bar.working("writing the report")
        page, stopped = _page(config, stopped)
        bar.working("mirroring to MLflow")
        copy.close(page, interrupted=stopped is not None)
    group_of = {case.key: group.key for group in made.groups for case in group.cases}
    rows = in_order_of(group_of, driver.sweep.records.outlines())
    _summarise(driver.sweep, rows, page, copy, seconds_again(rows, group_of, seconds))
    for line in lines:
        tell(line)
    if stopped is not None:
        tell(str(stopped))
        return stopped.exit_code
    return FINISHED_WITH_FAILURES if driver.sweep.failed or driver.sweep.problems else 0


def _page(config: Config, stopped: BenchError | None) -> tuple[Path | None, BenchError | None]:
    """The report's first page and what stopped the run: a disk that the page does not fit on costs no record."""
    if not config.report.enabled:
        return None, stopped
    try:
        return site.build(config), stopped
    except OSError as error:
        full = ResultsError(
            f"{config.paths.site}: the report cannot be written ({error.strerror or error}); make room and run "
            "job=report: every record is kept"
        )
        return None, stopped or full
    except BenchError as error:
        return None, stopped or error


def _summarise(
    sweep: Sweep,
    rows: Sequence[Record],
    page: Path | None,
    copy: mirror.MirrorListener,
    again: Mapping[str, float],
) -> None:
    """Print the rows, then page, MLflow, the best of what was compared, the states of rows, and what failed first."""
    show_rows(rows)
    print(f"report   {page if page else 'not written'}")
    print(f"mlflow   {copy.hint()}")
    best = best_row(rows, lambda keys: list(sweep.records.that(lambda head: head.case_key in keys)))
    if best:
        print(f"best     {best}")
    print(f"rows     {state_text(rows, again)}; {sweep.measured} measured now")
    why = failure_text(sweep)
    if why:
        print(f"failed   {why}")
    for problem in [*sweep.problems, *copy.problems]:
        tell(problem)


def failure_text(sweep: Sweep) -> str:
    """How many rows failed, and why the first of them did; empty where none did but by the user's interruption."""
    broken = sweep.failed.that(lambda head: head.status != "interrupted")
    if not broken:
        return ""
    first = broken[0]
    label = short_name(Case.from_dict(first["case"]).label)
    return escape_controls(
        f"{len(broken)} of {len(sweep.records)}: {shortened(label)}: {first['status']}: "
        f"{one_line(first['error'] or {})}"
    )
