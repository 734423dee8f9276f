"""Several instances at once, in real processes: cores of their own, failures in words, others' work named."""

import os
import time

import pandas
import pytest
import torch
from torch import nn

import bench
from bench.api import side_by_side
from bench.api.results import Instances
from bench.api.side_by_side import Busy, _shares, disturbances
from bench.app.jobs import instances as jobs
from bench.errors import BenchError, UsageError
from tests.sweeping import HEALTHY, configuration

CORES = len(os.sched_getaffinity(0))


class Waits(nn.Module):
    """Takes at least ten milliseconds, in which it uses no core: two instances do twice as much."""

    def forward(self, x):
        time.sleep(0.01)
        return x


class Breaks(nn.Module):
    def forward(self, x):
        raise ValueError("this one cannot run")


@pytest.mark.slow
@pytest.mark.skipif(CORES < 2, reason="one core holds one instance")
def test_rows_by_the_number_of_instances():
    frame = bench.instances(Waits(), torch.ones(3, 2), [1, 2], seconds=0.3, rounds=2)
    assert frame["instances"].tolist() == [1, 2] and frame["threads"].tolist() == [CORES, CORES // 2]
    assert (frame["latency_ms"] >= 10).all() and (frame["throughput_per_s"] <= frame["instances"] * 300).all()
    assert (frame["rounds"] == 2).all() and (frame["runs"] >= 4).all()


def test_an_instance_that_fails_is_told_with_its_reason():
    with pytest.raises(BenchError, match="ValueError: this one cannot run"):
        bench.instances(Breaks(), torch.ones(1, 2), [1], seconds=0.1, rounds=1)


@pytest.mark.parametrize("counts", [[], [0], [CORES + 1]])
def test_counts_that_cannot_be(counts):
    with pytest.raises(UsageError, match=f"from 1 to {CORES}"):
        bench.instances(Waits(), torch.ones(1, 2), counts)


def test_cores_are_shared_out_and_none_is_given_twice(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)))
    assert _shares(3) == [[0, 1], [2, 3], [4, 5]] and _shares(1) == [list(range(7))]


def test_other_work_is_named_and_that_of_the_instances_is_not():
    before = Busy(0.0, 100.0, 50.0, 1.0)
    assert disturbances(before, Busy(2.0, 104.0, 54.0, 1.0)) == []
    assert disturbances(before, Busy(2.0, 104.0, 52.0, 1.0)) == ["host busy: 1.0 cores"]
    assert disturbances(before, Busy(2.0, 102.0, 52.0, 1.0 + 2.0 * CORES)) == ["stolen time"]


def test_the_job_prints_the_table_and_keeps_it(monkeypatch, tmp_path, capsys):
    row = dict.fromkeys(side_by_side.COLUMNS, 1.0) | {"instances": 2, "threads": 1, "flag": "host busy: 1.0 cores"}
    more = {"instances": 4, "throughput_per_s": 3.0, "throughput_low": 2.9, "throughput_high": 3.1, "flag": ""}
    found = Instances([row, {**row, **more}])
    monkeypatch.setattr(side_by_side, "instances", lambda *_, **__: found)
    assert jobs.run(configuration(tmp_path, [HEALTHY])) == 0
    said = capsys.readouterr().out
    best = "4 is the smallest that cannot be told from the fastest: 3 times the throughput of 2, at 1 times its latency"
    assert [word for word in ("together", "busy", "99th", best) if word not in said] == []
    assert best in repr(found) and best in found._repr_html_() and "host busy" in repr(found)
    (kept,) = (tmp_path / "results").glob("instances_*.csv")
    assert pandas.read_csv(kept)["instances"].tolist() == [2, 4]
