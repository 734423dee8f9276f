"""`job=plan`: the cases and how long they will take, without measuring anything."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.app.closing import seconds_again
from bench.app.forecast import TOO_LONG, Forecast, faults, forecast, patient_workers
from bench.canonical import BASELINE_METHOD
from bench.config import catalogue
from bench.config.catalogue import parse_spec
from bench.config.schema import Config, Suite
from bench.foreign_text import escape_controls, shortened
from bench.host.environment import environment
from bench.host.identity import machine_key
from bench.plan import plan
from bench.plan.case import Case
from bench.plan.estimate import in_words
from bench.plan.plan import Group
from bench.short_names import short_names
from bench.store.records import DISTURBED, CorruptRecord, Store, counts
from bench.words import plural, them

#: Lines below the table.
MOST_REASONS = 8
TO_MEASURE = "to measure"
NOT_RUN = "cannot be run"
#: States of cases that are measured anyway, or that a retry leaves as they are.
_NOT_AGAIN = ("ok", "unreadable", TO_MEASURE, NOT_RUN)
#: What a state of a record is called, where people read another word than the record holds.
SHOWN = {DISTURBED: "disturbed"}


def run(config: Config) -> int:
    """Print every case with its key and whether it is there already, and the estimate; 0."""
    made = plan.make(config, catalogue.load())
    store, key = Store(config.paths.results), machine_key(environment(config.device.name))
    states = {case.key: _state(store, case.key, key, config.retries) for case in made.cases}
    todo = [group for group in made.groups if any(states[case.key] == TO_MEASURE for case in group.cases)]
    expected, broken, again = _looked_ahead(config, made, states, todo)
    states |= dict.fromkeys(broken, NOT_RUN)
    short = short_names(case.label for case in made.cases)
    _show(made, states, config.model, short)
    print(_sum(made, states, config.protocol.name, _seconds(todo, states, expected)))
    labels = {case.key: case.label for case in made.cases}
    told = _cannot([(shortened(short[labels[key]]), why) for key, why in broken.items()])
    told += [
        f"not counted beforehand, so its time is a bare guess: {short.get(label, label)}: {why}"
        for label, why in expected.uncounted.items()
        if label not in {labels[key] for key in broken}
    ]
    told += _again(states, again)
    if made.unscored:
        told.append(made.unscored)
    for line in told[:MOST_REASONS]:
        print(escape_controls(line))
    if len(told) > MOST_REASONS:
        print(f"and {len(told) - MOST_REASONS} more")
    return 0


def _looked_ahead(
    config: Config, made: plan.Plan, states: Mapping[str, str], todo: Sequence[Group]
) -> tuple[Forecast, dict[str, str], dict[str, float]]:
    """What is expected of the groups to measure, why cases cannot be run, and seconds of measuring rows again by kind.

    The last has `disturbed` and `failed` where there are rows of the kind that the plan leaves as they are.
    """
    left = [{"case_key": key, "status": state} for key, state in states.items() if state not in _NOT_AGAIN]
    keys = {row["case_key"] for row in left}
    others = [group for group in made.groups if group not in todo and any(case.key in keys for case in group.cases)]
    if not todo and not others:
        return Forecast({}), {}, {}
    with patient_workers(config) as workers:  # one server for all: to start it is most of a small plan
        expected = forecast(config, made, todo, workers)
        broken = faults(config, made, _suspects(config, made, states, expected), workers)
        seconds = expected.seconds | forecast(config, made, others, workers).seconds
    group_of = {case.key: group.key for group in made.groups for case in group.cases}
    return expected, broken, seconds_again(left, group_of, seconds)


def _suspects(config: Config, made: plan.Plan, states: Mapping[str, str], expected: Forecast) -> list[Case]:
    """Cases to try before anything is measured: those that nobody has vetted, and those that could not be counted.

    Nobody has vetted the user's own code, nor a method on a network, or a resolution, that only the command line has
    put together.
    """
    own = {name for table in (made.models, made.methods) for name, entry in table.items() if entry.folder is None}
    uncounted = {label for label, why in expected.uncounted.items() if why != TOO_LONG}
    vetted, sized = _pairs_of(config.suite), _is_sized(config.suite)

    def is_suspect(case: Case) -> bool:
        picked = case.method != BASELINE_METHOD and (case.model, case.method) not in vetted
        return picked or sized or bool({case.model, case.method} & own) or case.plain.label in uncounted

    return [case for case in made.cases if states[case.key] == TO_MEASURE and is_suspect(case)]


def _is_sized(suite: Suite) -> bool:
    """Whether the command line gave resolutions."""
    return suite.resolutions is not None or "resolution" in (suite.shapes or {})


def _pairs_of(suite: Suite) -> set[tuple[str, str]]:
    """Names of a model and a method that stand together in a block of any of the suite's grids."""
    pairs: set[tuple[str, str]] = set()
    for block in (block for blocks in suite.grids.values() for block in blocks):
        models, methods = ({parse_spec(spec)[0] for spec in specs} for specs in (block.models, block.methods))
        pairs |= set(itertools.product(models, methods))
    return pairs


def _show(made: plan.Plan, states: Mapping[str, str], model: str | None, short: Mapping[str, str]) -> None:
    """The table of cases, group by group, under the suite's title or the model that was named."""
    title = escape(shortened(escape_controls(model or f"{made.suite.name}: {made.suite.title}")))
    table = Table("key", "case", "state", title=title, title_justify="left")
    for group in made.groups:
        for case in group.cases:
            name, state = shortened(escape_controls(short[case.label])), states[case.key]
            table.add_row(*map(escape, (case.key, name, SHOWN.get(state, state))))
        table.add_section()
    Console(width=None if Console().is_terminal else 140).print(table)


def _sum(made: plan.Plan, states: Mapping[str, str], protocol: str, seconds: float) -> str:
    """How many cases there are, and what of them is to be measured in about which time."""
    missing, broken = (list(states.values()).count(state) for state in (TO_MEASURE, NOT_RUN))
    there = f"{plural(len(made.cases), 'case')} in {plural(len(made.groups), 'group')}"
    if broken:
        there += f"; {broken} cannot be run"
    if not missing:
        return f"{there}; nothing to measure"
    about = f"about {in_words(seconds)} with protocol={protocol} (an estimate from counts, for a quiet machine)"
    return f"{there}; {missing} to measure, {about}"


def _cannot(reasons: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each reason why cases cannot be run, with the cases that it holds for."""
    cases = dict[str, list[str]]()
    for label, why in reasons:
        cases.setdefault(why, []).append(label)
    lines = []
    for why, labels in cases.items():
        others = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        lines.append(f"cannot be run: {labels[0]}{others}: {why}")
    return lines


def _seconds(todo: Sequence[Group], states: Mapping[str, str], expected: Forecast) -> float:
    """The estimate of the cases that are to be measured; of a group in part, that part of it."""
    shares = ((group, [states[case.key] for case in group.cases]) for group in todo)
    return sum(expected.seconds[group.key] * own.count(TO_MEASURE) / len(own) for group, own in shares)


def _again(states: Mapping[str, str], seconds: Mapping[str, float]) -> list[str]:
    """What to type to have disturbed and failed rows measured again, and about how long that takes."""
    disturbed = sum(state == DISTURBED for state in states.values())
    failed = sum(state not in (*_NOT_AGAIN, DISTURBED) for state in states.values())
    lines = []
    for kind, count, why in (("disturbed", disturbed, " by other work"), ("failed", failed, "")):
        about = f", about {in_words(seconds[kind])}" if seconds.get(kind) else ""
        if count:
            lines.append(f"{count} {kind}{why}: retry={kind} measures {them(count)} again{about}")
    return lines


def _state(store: Store, case_key: str, machine_key: str, retry: str) -> str:
    try:
        head = store.head(case_key, machine_key)
    except CorruptRecord:
        return "unreadable"
    if head is None or not counts(head.status, retry=retry):
        return TO_MEASURE
    return head.status
