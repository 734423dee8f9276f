"""Measuring waits for the mirror a small share of the time; what it does not get to goes over at the end."""

from pathlib import Path

import pytest

from bench.app.mirror import FREE_S, SHARE, MirrorListener
from bench.store.stored import Stored
from bench.sweep.events import GroupFinished, Recorded, Started
from tests.sweeping import HEALTHY, configuration
from tests.synthetic import record, store

DONE = GroupFinished("group", 1, 0, 1.0, 1, 1, 1.0, 1.0)


class Slow:
    """A mirror that takes so long for every record."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.got, self.problems = clock, seconds, [], []

    def start_sweep(self, *_):
        pass

    def log_record(self, item):
        self.clock.now += self.seconds
        self.got.append(item["case_key"])

    def pending(self, kept):
        return Stored(kept, [name for name, head in kept.heads().items() if head.case_key not in self.got])

    def finish(self, *_, **__):
        pass


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def listened(tmp_path):
    """A listener of a slow mirror, and records on disk."""

    def make(seconds, count):
        config, clock = configuration(tmp_path, [HEALTHY]), Clock()
        items = [record(batch=number + 1) for number in range(count)]
        kept = store(Path(config.paths.results), items, with_samples=False)
        mirror = Slow(clock, seconds)
        listener = MirrorListener(config, mirror, "tiny", clock)
        listener(Started(count, 0, 0.0))
        return listener, mirror, clock, list(kept.iterate())

    return make


def test_a_quick_mirror_has_every_record_at_once(listened):
    listener, mirror, clock, items = listened(0.05, 6)
    for item in items:
        clock.now += 10.0
        listener(Recorded(item))
        assert mirror.got[-1] == item["case_key"]
    assert len(mirror.got) == 6


def test_a_slow_mirror_takes_its_share_of_the_time_and_catches_up_in_order(listened):
    listener, mirror, clock, items = listened(10.0, 8)
    for item in items:  # short cases: a record a second
        clock.now += 1.0
        listener(Recorded(item))
    assert len(mirror.got) == 3 and FREE_S / 10.0 == 2  # after the second one it has had what is free
    waited = clock.now - len(items)
    clock.now += waited / SHARE + 1.0
    listener(DONE)
    assert len(mirror.got) == 4
    clock.now += 1e6
    listener(DONE)
    assert mirror.got == [item["case_key"] for item in items]


def test_what_it_did_not_get_to_goes_over_at_the_end(listened):
    listener, mirror, _, items = listened(60.0, 5)
    for item in items:
        listener(Recorded(item))
    assert len(mirror.got) == 1
    listener.close(None)
    assert sorted(mirror.got) == sorted(item["case_key"] for item in items)


class Told:
    """A mirror that is asked whether all is there, and keeps what it was told to do."""

    problems = ()

    def __init__(self, settled):
        self.settled, self.asked, self.calls = settled, [], []

    def is_settled(self, kept, suite, report):
        self.asked.append(report)
        return self.settled

    def pending(self, kept):
        return []

    def start_sweep(self, *_):
        self.calls.append("start")

    def log_record(self, item):
        self.calls.append("log")

    def finish(self, page, *, interrupted, report):
        self.calls.append("finish")


def test_mlflow_is_left_alone_where_nothing_was_measured_and_all_is_there(tmp_path):
    page = tmp_path / "site" / "index.html"
    (page.parent / "assets").mkdir(parents=True)
    told = page.parent / "assets" / "build.json"

    def closed(settled, *events):
        mirror = Told(settled)
        listener = MirrorListener(configuration(tmp_path, [HEALTHY]), mirror, "tiny", Clock())
        for event in (*events, DONE):
            listener(event)
        listener.close(page)
        assert "job=ui" in listener.hint()  # where the mirror is, is told in any case
        return mirror

    all_present, one_missing = Started(3, 3, 0.0), Started(3, 2, 0.0)
    assert closed(True, all_present).asked == [None] and closed(True, all_present).calls == []
    told.write_text("a")
    kept, again = (closed(True, all_present).asked for _ in range(2))
    told.write_text("b")
    assert kept == again != closed(True, all_present).asked and None not in kept
    assert closed(False, all_present).calls == ["start", "finish"]
    assert closed(True, one_missing, Recorded(record())).calls == ["start", "log", "finish"]
