"""Several servers as one unit: processes on cores of their own that share one queue in order of arrival."""

import os
import time

import pytest

from bench.workloads import load, open_loop, queueing, servers

needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two servers need two cores")


def spin(milliseconds):
    end = time.perf_counter_ns() + milliseconds * 1e6
    while time.perf_counter_ns() < end:
        pass


@needs_two_cores
def test_each_server_is_a_process_with_one_core_of_its_own_and_all_begin_at_one_moment():
    def work(server, begin):
        return server, os.getpid(), begin(), sorted(os.sched_getaffinity(0))

    told = servers.together(2, work, timeout_s=60)
    assert [line[0] for line in told] == [0, 1]
    assert len({line[1] for line in told} | {os.getpid()}) == 3 and len({line[2] for line in told}) == 1
    assert all(len(line[3]) == 1 for line in told) and told[0][3] != told[1][3]
    assert len(os.sched_getaffinity(0)) >= 2  # this process is where it was


@needs_two_cores
def test_one_that_fails_ends_the_others_and_is_the_one_that_is_named():
    def work(server, begin):
        if server == 1:
            raise ValueError("no such file")
        return begin()

    with pytest.raises(servers.ServersFailed, match="server 1 of 2: ValueError: no such file"):
        servers.together(2, work, timeout_s=60)


@needs_two_cores
def test_one_that_dies_and_one_that_never_ends_are_told():
    with pytest.raises(servers.ServersFailed, match="its process died"):
        servers.together(2, lambda server, begin: os._exit(3), timeout_s=60)
    with pytest.raises(servers.ServersFailed, match="did not end in time"):
        servers.together(2, lambda server, begin: time.sleep(60), timeout_s=0.5)


@needs_two_cores
def test_two_servers_answer_every_request_once_and_none_before_its_arrival():
    loop = open_loop.run_on_servers(lambda index: spin(2), 400, 2, count=60, seed=3)
    assert loop.servers == 2 and None not in loop.finished and len(loop.finished) == 60
    assert loop.scheduled == pytest.approx([time / 400 for time in queueing.unit_arrivals(60, 3)])
    assert all(begun >= due for due, begun in zip(loop.scheduled, loop.started, strict=True))
    assert all(service >= 0.002 for service in loop.services)
    assert max(number for _, number in queueing.in_system(loop.started, loop.finished)) <= 2


@needs_two_cores
def test_a_server_changes_its_own_copy_of_a_request_alone():
    seen = [[0], [0], [0]]

    def serve(index):
        seen[index][0] += 1
        assert seen[index][0] == 1, "another run has changed it"

    site = load.Site(2, time.perf_counter_ns, open_loop.spin_until)
    calls = [lambda index=index: serve(index) for index in range(3)]
    loops = load.arrivals(lambda count: calls[:count], site, 1000.0, 2, 0)
    assert len(loops) == load.RUNS and seen == [[0], [0], [0]]


@needs_two_cores
def test_the_saturated_rate_of_two_servers_is_that_of_both():
    site = load.Site(2, time.perf_counter_ns, open_loop.spin_until)
    rates = load.saturated(lambda index: lambda: spin(2), site, 0.02)
    assert len(rates) == load.RUNS and all(0 < rate <= 2 * 500 for rate in rates)


@pytest.mark.slow
def test_a_pipeline_of_the_instrument_is_served_by_two_processes(tmp_path):
    from bench.store.record_parts import reading_of
    from tests.sweeping import QUICK, configuration, sweep

    shapes = {"rate": [200.0], "seconds": [1], "servers": [min(2, len(os.sched_getaffinity(0)))]}
    block = {"models": ["tests.workloads.subjects:chain"], "workload": "pipeline", "shapes": shapes}
    suite = {"name": "served", "grids": {"default": [block]}}
    done = sweep(configuration(tmp_path, [], suite=suite, protocol=QUICK, device={"threads": 1}))
    (record,) = done.records
    assert record["status"] in ("ok", "contaminated", "unstable"), record["error"]
    assert reading_of(record, "saturated_rate", "request")["value"] > 0
    assert reading_of(record, "offered_rate", "request")["value"] == 200
    how = record["workload"]["open_loop"]["how"]
    assert how == f"{shapes['servers'][0]} processes, each on a core of its own" or shapes["servers"] == [1]


@pytest.mark.slow
def test_a_pipeline_with_more_servers_than_cores_is_a_row_that_says_why(tmp_path):
    from tests.sweeping import QUICK, configuration, sweep

    block = {"models": ["tests.workloads.subjects:chain"], "workload": "pipeline", "shapes": {"servers": [1024]}}
    suite = {"name": "crowded", "grids": {"default": [block]}}
    done = sweep(configuration(tmp_path, [], suite=suite, protocol=QUICK, device={"threads": 1}))
    (record,) = done.records
    assert record["status"] == "unsupported" and "each server needs its own" in record["error"]["message"]
