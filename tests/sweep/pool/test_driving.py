"""The driver of a pool against machines that are told what to do: losses, refusals, silence, what is kept."""

import dataclasses
import gzip
import json

import pytest

from bench.config import catalogue
from bench.errors import UsageError
from bench.plan import plan
from bench.store.journal import Journal
from bench.store.records import Store, seal
from bench.sweep.attempts import CircuitBroken
from bench.sweep.events import GroupFinished
from bench.sweep.pool import Arrived, Ended
from bench.sweep.pool.arrivals import Arrivals
from bench.sweep.pool.driving import PoolDriver
from tests.sweeping import configuration
from tests.synthetic import MACHINE, record


class Machines:
    """A pool whose machines do what a script says: per piece `all`, `some` (one record, then lost), `none`, ..."""

    def __init__(self, script, slots=2, ahead=1):
        self.script, self.count, self.ahead = list(script), slots, ahead
        self.given, self._news = [], []

    def slots(self):
        return self.count

    def offered(self):
        return f"{self.count} simulated slots"

    def submit(self, work):
        self.given.append(work)
        does = self.script.pop(0) if self.script else "all"
        records = [made(key) for key in work.cases]
        sent = {"all": records, "some": records[:1], "short": records[:1]}.get(does, [])
        files = {f"records/{each['record_key']}.json": json.dumps(each).encode() for each in sent}
        if files:
            self._news.append(Arrived(work.key, files))
        status = {"all": "done", "short": "done", "some": "lost", "none": "lost"}.get(does, does)
        span = {"began": 100.0, "ended": 107.0} if status == "done" else {}
        self._news.append(
            Ended(work.key, status, "" if status == "done" else f"it {status}", node=f"n{len(self.given)}", **span)
        )

    def news(self):
        return self._news.pop(0) if self._news else None


CASES = {}


def made(key):
    """The record of a case, as a machine would have sealed it."""
    return seal(record(**dataclasses.asdict(CASES[key])))


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """Runs the driver on two models with one method each; gives the pool, the store, the events and the problems."""

    def run(script, *, retries=2, breaker=5, slots=2, **more):
        config = configuration(
            tmp_path,
            ["deit_tiny", "vit_small"],
            ["tome(r=13)"],
            executor={"machine_retries": retries, "breaker": breaker},
        )
        groups = plan.make(config, catalogue.load()).groups
        CASES.update({case.key: case for group in groups for case in group.cases})
        store, events, problems = Store(config.paths.results), [], []
        pool = Machines(script, slots)
        kept = []
        arrivals = Arrivals(store, Journal(store.journal), "", lambda item: (kept.append(item), on(item)))
        driver = PoolDriver(config, pool, arrivals, Journal(store.journal), events.append, problems, **more)
        on = lambda item: driver.recorded(item["case_key"], item["status"] != "ok")  # noqa: E731
        missing = {group.key: list(group.cases) for group in groups}
        try:
            driver.measure(groups, missing, {group.key: 10.0 * (i + 1) for i, group in enumerate(groups)})
        finally:
            run.pool, run.store, run.events, run.problems, run.kept = pool, store, events, problems, kept
            run.arrivals, run.problems_of_files = arrivals, arrivals.problems
        return run

    return run


def test_every_case_gets_its_record_the_longest_group_first(swept):
    done = swept(["all", "all"])
    assert not done.problems and not done.problems_of_files
    assert {item["case_key"] for item in done.kept} == set(CASES) & {
        key for work in done.pool.given for key in work.cases
    }
    assert [work.seconds for work in done.pool.given] == [20.0, 10.0]
    finished = [event for event in done.events if isinstance(event, GroupFinished)]
    assert [(event.cases, event.failed, event.left) for event in finished] == [(2, 0, 1), (2, 0, 0)]
    assert [event.seconds for event in finished] == [7.0, 7.0]  # its own, not how long it waited for a machine


def test_a_second_machine_does_not_make_the_last_group_shorter_and_a_loss_is_told_at_once(swept):
    left = {}
    for slots in (1, 2):
        done = swept(["all", "none", "all"], slots=slots)
        left[slots] = next(event.seconds_left for event in done.events if isinstance(event, GroupFinished))
        assert [event.what for event in done.events if "was lost" in getattr(event, "what", "")]
    assert left == {1: 10.0, 2: 10.0}


def test_a_lost_machine_costs_only_what_it_had_not_sent(swept):
    done = swept(["some", "all", "all"])
    assert not done.problems
    first, *_, again = done.pool.given
    assert again.cases == first.cases[1:] or len(done.pool.given) == 3
    assert sum(len(work.cases) for work in done.pool.given) == 2 + 2 + 1
    assert len({item["case_key"] for item in done.kept}) == len(done.kept) == 4
    assert len(Journal(done.store.journal).read().events("machine_lost")) == 1


def test_what_no_machine_can_measure_is_told_and_the_rest_is_measured(swept):
    done = swept(["none", "all", "none", "none"], retries=2)
    assert len(done.kept) == 2
    (problem,) = done.problems
    assert "2 of 2 cases were not measured: it lost" in problem and "run the same command again" in problem


def test_a_machine_that_ends_well_without_all_records_is_not_believed(swept):
    done = swept(["short", "all", "all"])
    assert len(done.kept) == 4 and not done.problems
    assert "without a record" in Journal(done.store.journal).read().events("machine_lost")[0]["why"]


def test_a_machine_unlike_the_driver_ends_the_sweep_with_what_it_has(swept):
    with pytest.raises(UsageError, match=r"n1: it refused\. What was measured is kept"):
        swept(["refused"])


def test_losses_in_a_row_end_the_sweep(swept):
    with pytest.raises(CircuitBroken, match="2 groups in a row"):
        swept(["failed", "failed"], breaker=2)


def test_a_pool_without_machines_is_given_up_with_the_remedy(swept):
    with pytest.raises(UsageError, match=r"no machine of the pool has offered a slot for 0\.1 s: 0 simulated slots"):
        swept([], slots=0, nobody_s=0.1)


def test_files_that_are_no_results_are_left_out_and_told(tmp_path):
    CASES.clear()
    store = Store(tmp_path / "results")
    kept = []
    arrivals = Arrivals(store, Journal(store.journal), "a100", kept.append)
    good = record()
    foreign, interrupted = (
        record(model="other"),
        record(status="interrupted", error={"phase": "x", "type": "y", "message": "z"}),
    )
    body = lambda item: json.dumps(item).encode()  # noqa: E731
    good, foreign, interrupted = seal(good), seal(foreign), seal(interrupted)
    arrivals.keep(
        {
            "../outside.json": b"{}",
            "/etc/passwd": b"x",
            "records": b"{}",
            "secrets/a.json": b"{}",
            "machines/m.json": b'{"peaks": 3}',
            "samples/s/00.json.gz": b"no gzip",
            "samples/s/01.json.gz": gzip.compress(b"{}"),
            "records/a.json": body(interrupted),
            "records/b.json": body(foreign),
            "records/c.json": body({**good, "status": "oom"}),
            "records/d.json": body(good),
        },
        frozenset({good["case_key"]}),
    )
    assert [item["case_key"] for item in kept] == [good["case_key"]]
    assert len(arrivals.problems) == 8
    assert not (tmp_path / "outside.json").exists() and (store.samples / "s" / "01.json.gz").exists()
    assert not (store.samples / "s" / "00.json.gz").exists() and not (store.root / "secrets").exists()
    assert arrivals.machines() == (MACHINE,)
    assert Arrivals(store, Journal(store.journal), "h100", kept.append).machines() == ()


def test_a_case_measured_again_supersedes_the_row_of_its_machine(tmp_path):
    store = Store(tmp_path / "results")
    arrivals = Arrivals(store, Journal(store.journal), "", lambda item: None)
    first, second = seal(record(status="crashed", error={"phase": "p", "type": "T", "message": "m"})), seal(record())
    wanted = frozenset({first["case_key"]})
    arrivals.keep({"records/a.json": json.dumps(first).encode()}, wanted)
    arrivals.keep({"records/b.json": json.dumps(second).encode()}, wanted)
    (row,) = store.iterate()
    assert row["status"] == "ok" and len(store.attempts(first["case_key"], MACHINE)) == 2
