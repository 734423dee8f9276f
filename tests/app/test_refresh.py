"""A page while the sweep goes on: after each finished group, with little time, and never at the cost of measuring."""

import json
import subprocess
from pathlib import Path

import pytest

from bench.app import refresh
from bench.app.progress import GroupLines
from bench.app.refresh import Refresher, build_apart
from bench.config.schema import Block, validate
from bench.sweep.events import Advanced, GroupFinished, Recorded, Started, Working
from tests.sweeping import HEALTHY, configuration
from tests.synthetic import store


def finished(left=3, seconds=60.0, done=1):
    return GroupFinished("deit_tiny · batch 1", 7, 0, seconds, done, left, 30.0 * done, 30.0 * left)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def refresher(config, build, clock=None):
    shown = []
    return Refresher(config, shown.append, build=build, clock=clock or Clock()), shown


def test_the_first_group_gives_a_page_and_the_last_leaves_it_to_the_end(tmp_path):
    listener, shown = refresher(configuration(tmp_path, [HEALTHY]), lambda config: Path("index.html"))
    listener(Working("timing"))
    assert shown == []
    listener(finished())
    assert shown == [Path("index.html")]
    listener(finished(left=0))
    assert len(shown) == 1


def test_refreshes_take_a_twentieth_of_the_measuring_time_at_most(tmp_path):
    clock = Clock()

    def build(config):
        clock.now += 4.0
        return Path("index.html")

    listener, shown = refresher(configuration(tmp_path, [HEALTHY]), build, clock)
    for _ in range(40):
        clock.now += 10.0
        listener(finished())
    # the first is free; the others follow where what was spent is a twentieth of 400 s at most: 4 s every 8 groups
    assert len(shown) == 6 and 4.0 * (len(shown) - 1) <= 0.05 * 40 * 10.0


def test_a_page_that_cannot_be_made_is_one_line_and_the_sweep_goes_on(tmp_path, capsys):
    def build(config):
        raise OSError("no\nroom")

    listener, shown = refresher(configuration(tmp_path, [HEALTHY]), build)
    listener(finished())
    told = capsys.readouterr().err
    assert shown == [] and told.count("\n") == 1 and "OSError: no room" in told


def test_the_page_is_made_in_a_process_of_its_own_that_is_ended_when_it_takes_too_long(tmp_path, monkeypatch):
    config = configuration(tmp_path, [HEALTHY])
    store(Path(config.paths.results))
    assert build_apart(config).is_file()
    monkeypatch.setattr(refresh, "LIMIT_S", 0.01)
    with pytest.raises(TimeoutError, match=r"longer than 0\.01 s"):
        build_apart(config)


def test_a_page_is_made_of_blocks_that_give_their_batch_among_the_shapes(tmp_path):
    config = configuration(tmp_path, [HEALTHY])
    block = {"models": [HEALTHY], "shapes": {"batch": [4]}}
    tree = {**config.model_dump(exclude_unset=True), "suite": {"name": "tiny", "grids": {"default": [block]}}}
    shaped = validate(tree)
    store(Path(shaped.paths.results))
    assert build_apart(shaped).is_file()


def test_without_a_terminal_every_group_is_a_line_with_what_is_left():
    said = []
    lines = GroupLines(said.append)
    lines(Started(21, 0, 120.0))
    lines(finished(left=3, seconds=60.0))
    lines(finished(left=0, done=4))
    assert said[0] == "bench: 21 of 21 cases to measure, about 2 min"
    # 60 s for what was estimated at 30 s: the 90 s that are left become 180
    assert said[1] == "bench: deit_tiny · batch 1: 7 cases in 60 s; 3 groups left, about 3 min"
    assert said[2] == "bench: deit_tiny · batch 1: 7 cases in 60 s; that was the last group"


def test_in_a_long_group_a_line_a_minute_says_what_is_being_done():
    said, now = [], [0.0]
    lines = GroupLines(said.append, clock=lambda: now[0])
    lines(Started(3, 0, 0.0))
    events = (Working("probe a"), Recorded({}), Working("probe b"), Advanced(1.0))
    for second, event in zip((20.0, 30.0, 70.0, 80.0), events, strict=True):
        now[0] = second
        lines(event)
    assert said == ["bench: 3 of 3 cases to measure", "bench: 1 of 3 cases done; now probe b"]


def test_long_work_around_the_sweep_is_said_soon_and_then_every_minute_and_short_work_is_not():
    said, now = [], [0.0]
    lines = GroupLines(said.append, clock=lambda: now[0])

    def until(second):
        while now[0] < second:
            now[0] += 5.0
            lines.beat()

    lines.working("estimating the time")
    until(5.0)
    assert said == []
    until(90.0)
    assert said == ["bench: estimating the time"] * 2  # at 10 and at 70 s
    lines(Started(3, 0, 0.0))
    lines(Working("timing 3 cases together, process 1"))
    until(210.0)  # one process, no event
    assert said[3:] == ["bench: 0 of 3 cases done; now timing 3 cases together, process 1"] * 2
    lines.working("writing the report")
    until(215.0)
    assert len(said) == 5
    until(220.0)
    assert said[5:] == ["bench: writing the report"]


def test_the_process_apart_is_given_the_blocks_as_they_were_written(tmp_path, monkeypatch):
    """A block with a batch in its shapes has none in `batches`; told both, the other side would refuse it."""
    config = configuration(tmp_path, [HEALTHY])
    block = Block(models=["digits_tiny"], shapes={"batch": [32]})
    config = config.model_copy(update={"suite": config.suite.model_copy(update={"grids": {config.grid: [block]}})})
    told = []

    def run(command, *, input, **_):
        told.append(validate(json.loads(input)))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(refresh.subprocess, "run", run)
    build_apart(config)
    assert told == [config]
    assert told[0].suite.grids[config.grid][0].shape_lists == {"batch": [32]}
