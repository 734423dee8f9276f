"""`job=plan`: the cases and how long they will take, without measuring anything."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.app.forecast import forecast
from bench.config import catalogue
from bench.config.schema import Config
from bench.foreign_text import escape_controls, shortened
from bench.host.environment import environment
from bench.host.identity import machine_key
from bench.plan import plan
from bench.plan.estimate import in_words
from bench.store.records import CorruptRecord, Store, is_present

#: Cases that could not be counted beforehand that are named.
MOST_REASONS = 5


def run(config: Config) -> int:
    """Print every case with its key and whether it is there already, and the estimate; 0."""
    made = plan.make(config, catalogue.load())
    store, key = Store(config.paths.results), machine_key(environment(config.device.name))
    expected = forecast(config, made)
    table = Table(
        "key",
        "case",
        "state",
        title=escape(shortened(escape_controls(f"{made.suite.name}: {made.suite.title}"))),
        title_justify="left",
    )
    missing_seconds, missing = 0.0, 0
    for group in made.groups:
        states = [_state(store, case.key, key, config.retry_failed) for case in group.cases]
        absent = states.count("to measure")
        missing += absent
        missing_seconds += expected.seconds[group.key] * absent / len(states)
        for case, state in zip(group.cases, states, strict=True):
            table.add_row(*map(escape, (case.key, shortened(escape_controls(case.label)), state)))
        table.add_section()
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    print(
        f"{len(made.cases)} cases in {len(made.groups)} groups; {missing} to measure, about "
        f"{in_words(missing_seconds)} with protocol={config.protocol.name} (an estimate from counts)"
    )
    for reason in expected.uncounted[:MOST_REASONS]:
        print(f"not counted beforehand, so its time is a bare guess: {escape_controls(reason)}")
    if len(expected.uncounted) > MOST_REASONS:
        print(f"and {len(expected.uncounted) - MOST_REASONS} more")
    return 0


def _state(store: Store, case_key: str, machine_key: str, retry_failed: bool) -> str:
    try:
        record = store.latest(case_key, machine_key)
    except CorruptRecord:
        return "unreadable"
    if not is_present(record, retry_failed=retry_failed):
        return "to measure"
    assert record is not None
    return str(record["status"])
