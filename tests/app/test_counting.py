"""A timed run also counts what its suite's papers claim, once, and never fails because of it."""

import pytest

from bench.app import counting
from bench.app.counting import count_first, counting_config
from bench.config.schema import validate
from bench.store.records import Store
from tests.sweeping import HEALTHY, QUICK, configuration

GRIDS = {"default": [{"models": [HEALTHY]}], "paper": [{"models": [HEALTHY], "batches": [1, 2]}]}


def config(folder, *, grids=GRIDS, suite=None, **changes):
    return configuration(folder, [HEALTHY], suite={"name": "tiny", "grids": grids, **(suite or {})}, **changes)


def kept(folder):
    return list(Store(folder / "results").iterate([]))


def test_the_grid_of_papers_is_counted_once_into_the_same_folder(tmp_path):
    said = []
    assert count_first(config(tmp_path), said.append) == []
    records = kept(tmp_path)
    assert [record["case"]["batch"] for record in records] in ([1, 2], [2, 1])
    assert {record["protocol"]["name"] for record in records} == {"counts"}
    assert any("counting 2 cases" in text for text in said)
    said.clear()
    assert count_first(config(tmp_path), said.append) == []
    assert len(kept(tmp_path)) == 2 and not said


def test_it_is_what_grid_paper_with_protocol_counts_makes_whatever_the_run_is_timed_on(tmp_path):
    plain = counting_config(config(tmp_path))
    other = counting_config(
        config(tmp_path, seed=3, device={"name": "cuda"}, suite={"batches": [8], "dtypes": ["bf16"]})
    )
    assert plain == other and plain.grid == "paper" and not plain.protocol.timed


@pytest.mark.parametrize(
    "change",
    [
        {"counts": False},
        {"protocol": {**QUICK, "timed": False}},
        {"suite": {"models": [HEALTHY]}},
        {"model": HEALTHY},
        {"suite": {"methods": ["none"]}},
        {"grids": {"default": GRIDS["default"]}},
    ],
)
def test_a_run_that_asks_for_something_else_has_no_counts(tmp_path, change):
    assert counting_config(config(tmp_path, **change)) is None


def test_what_cannot_be_counted_is_a_line(tmp_path):
    broken = {**GRIDS, "paper": [{"models": ["tests.faults.models:build_error"]}, {"models": [HEALTHY]}]}
    lines = count_first(config(tmp_path, grids=broken), lambda text: None)
    assert len(lines) == 1 and "was not counted" in lines[0]
    assert {record["status"] == "ok" for record in kept(tmp_path)} == {True, False}


def test_a_name_that_is_wrong_in_the_grid_of_papers_is_a_line(tmp_path):
    broken = {**GRIDS, "paper": [{"models": ["no_such_model"]}]}
    (line,) = count_first(config(tmp_path, grids=broken), lambda text: None)
    assert "no_such_model" in line


def test_an_interruption_ends_the_run(tmp_path, monkeypatch):
    from bench.sweep.attempts import Interrupted
    from bench.sweep.loop import Driver

    def interrupted(self, seconds):
        raise Interrupted("stopped")

    monkeypatch.setattr(Driver, "run", interrupted)
    with pytest.raises(Interrupted):
        count_first(config(tmp_path), lambda text: None)


def test_the_switch_is_a_key_of_the_configuration():
    assert validate({"suite": {"name": "t", "grids": GRIDS}, "protocol": QUICK, "counts": False}).counts is False
    assert counting.GRID == "paper"
