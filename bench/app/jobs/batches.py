"""`job=batches`: the largest batch that fits, throughput up to it, and where more stops paying."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.config import catalogue
from bench.config.schema import Config
from bench.errors import UsageError
from bench.foreign_text import escape_controls
from bench.plan import plan
from bench.plan.case import Case
from bench.plan.recipe import recipe_for
from bench.short_names import short_name
from bench.workloads import FORWARD

if TYPE_CHECKING:
    from bench.api.results import Table as Results


def run(config: Config) -> int:
    """Search, print the batches with memory and throughput, and keep the table beside the results; 0.

    Raises:
        UsageError: the configuration names more than one network, or another workload than a forward.
    """
    made = plan.make(config, catalogue.load())
    case = only_network(made.cases, "batches")
    from bench.api.batching import largest_batch
    from bench.worker import subject

    built = subject.build(recipe_for(case, made, config))
    frame = largest_batch(
        built.module,
        built.args,
        kwargs=built.kwargs,
        protocol=config.protocol,
        device=config.device.name,
        threads=case.threads,
    )
    path = Path(config.paths.results) / f"batches_{case.key[:8]}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    show(escape_controls(short_name(case.label).replace(f" · batch {case.batch}", "")), frame)
    print(f"kept in {path}")
    return 0


def only_network(cases: Iterable[Case], job: str) -> Case:
    """The one network that is meant: with its method, where the plan holds the plain one beside it.

    Raises:
        UsageError: there are several, or it is no forward.
    """
    found = {(case.model_label, case.method_label): case for case in cases}
    reduced = [case for case in found.values() if not case.is_baseline]
    wanted = reduced or list(found.values())
    if len(wanted) != 1:
        raise UsageError(
            f"job={job} is for one network, and {len(wanted)} are named; say model=..., or "
            "'suite.models=[deit_tiny]' 'suite.methods=[\"tome(r=13)\"]'"
        )
    if wanted[0].workload != FORWARD:
        raise UsageError(f"job={job} is for forwards; {wanted[0].workload} has a batch in its shape: suite.shapes")
    return wanted[0]


def show(label: str, found: Results) -> None:
    """Print the table and what follows from it."""
    shown = found.shown()
    table = Table(*shown.columns, title=escape(label), title_justify="left")
    for row in shown.itertuples(index=False, name=None):
        table.add_row(*(escape(escape_controls(str(cell))) for cell in row))
    Console().print(table)
    for line in found.remarks():
        print(line)
