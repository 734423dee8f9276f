"""`job=instances`: several copies of one network at once, cores shared out."""

from __future__ import annotations

from pathlib import Path

from bench.app.jobs.batches import only_network, show
from bench.config import catalogue
from bench.config.schema import Config
from bench.foreign_text import escape_controls
from bench.plan import plan
from bench.plan.recipe import recipe_for
from bench.short_names import short_name


def run(config: Config) -> int:
    """Run 1, 2, 4, ... and as many instances as there are cores, print the table and keep it beside the results; 0.

    Raises:
        UsageError: the configuration names more than one network, or another workload than a forward.
    """
    made = plan.make(config, catalogue.load())
    case = only_network(made.cases, "instances")
    from bench.api.side_by_side import instances
    from bench.worker import subject

    built = subject.build(recipe_for(case, made, config))
    frame = instances(built.module, built.args, kwargs=built.kwargs, batch=case.batch, device=config.device.name)
    path = Path(config.paths.results) / f"instances_{case.key[:8]}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    show(escape_controls(short_name(case.label)), frame)
    print(f"kept in {path}")
    return 0
