"""Processes that pre-process ahead: every tensor arrives once, in order and as it was; failures are named."""

import os
import time

import pytest
import torch

from bench.errors import UsageError
from bench.workloads import busy_cores, module_of, workers
from bench.workloads.servers import ServersFailed
from tests.suites.serving.test_services import facts_of
from tests.workloads.test_servers import needs_two_cores, spin


def made(index):
    spin(2)
    return torch.full((3, 5), float(index))


@needs_two_cores
def test_tensors_arrive_in_order_of_their_requests_and_as_they_were():
    seen = []
    cores = os.sched_getaffinity(0)
    run = workers.run(made, lambda values: seen.extend(value.clone() for value in values), 1, seconds=0.01, most=2)
    assert all(torch.equal(value, torch.full((3, 5), float(index))) for index, value in enumerate(seen))
    assert len(seen) >= workers.LEAST + 2 * workers.SLOTS and run.bytes == 60
    assert os.sched_getaffinity(0) == cores  # this process is where it was
    assert run.ms > 0 and run.ms == run.write_ms + run.read_ms


@needs_two_cores
def test_the_slower_side_decides_the_rate():
    ahead = workers.run(made, lambda values: None, 1, seconds=0.05)
    behind = workers.run(lambda index: torch.zeros(4), lambda values: spin(4), 1, seconds=0.05)
    assert 0 < ahead.rate <= 500 and 0 < behind.rate <= 250  # 2 ms a tensor; 4 ms an answer


@needs_two_cores
def test_a_worker_that_fails_or_dies_is_named():
    def broken(index):
        if index > 2:
            raise OSError("no such picture")
        return torch.zeros(2)

    with pytest.raises(ServersFailed, match="worker 1 of 1: OSError: no such picture"):
        workers.run(broken, lambda values: None, 1, seconds=0.05)
    with pytest.raises(ServersFailed, match=r"request 1 comes to \(3,\), request 0 to \(2,\)"):
        workers.run(lambda index: torch.zeros(2 + index), lambda values: None, 1, seconds=0.05)
    with pytest.raises(ServersFailed, match="its process died"):
        workers.run(lambda i: torch.zeros(2) if i == 0 else os._exit(3), lambda values: None, 1, seconds=0.05)
    with pytest.raises(UsageError, match="makes a list"):
        workers.run(lambda index: [1], lambda values: None, 1, seconds=0.05)


@needs_two_cores
def test_a_service_tells_what_handing_over_takes_and_whose_share_a_stage_is():
    from suites.serving.image_service import image_service

    module = image_service(image="small", side=32)
    facts = facts_of(module, workers=1)
    found = {item.metric: item for item in facts.readings if item.part == "request"}
    assert found["hand_over_ms"].value > 0 and "12288 B" in found["hand_over_ms"].method_note  # 3 x 32 x 32 floats
    assert found["saturated_rate"].value > 0 and found["cores_busy"].value > 0
    notes = {item.part: item.method_note for item in facts.readings if item.metric == "stage_utilisation"}
    assert notes["decode"].endswith("workers") and notes["infer"].endswith("servers")


def test_what_does_not_fit_together_is_refused_and_a_machine_that_is_too_small_is_told():
    pipeline = module_of("pipeline")
    with pytest.raises(UsageError, match="leave rate out"):
        facts_of(_service(), workers=1, rate=5.0)
    with pytest.raises(UsageError, match="no stage up to which"):
        facts_of(_service(given="tensor"), workers=1)
    with pytest.raises(UsageError, match="set servers=1"):
        workers.check(1, "cpu", 1, 2)
    with pytest.raises(NotImplementedError, match="each worker needs its own"):
        workers.check(len(os.sched_getaffinity(0)), "cpu", 1, 1)
    with pytest.raises(NotImplementedError, match="stays on the CPU"):
        workers.check(1, "cuda", 1, 1)
    workers.check(0, "cuda", 4, 2)
    assert pipeline.WORKLOAD.shape({})["workers"] == 0


def _service(**settings):
    from suites.serving.image_service import image_service

    return image_service(image="small", side=32, **settings)


@needs_two_cores
def test_cores_are_busy_with_all_processes_of_the_family():
    def child(seconds, after=5.0):
        pid = os.fork()
        if pid == 0:
            spin(1e3 * seconds)
            time.sleep(after)
            os._exit(0)
        return pid

    with busy_cores.watched() as idle:
        time.sleep(0.1)
    with busy_cores.watched() as both:
        pid = child(0.15)
        spin(150)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    with busy_cores.watched() as ended:
        os.waitpid(child(0.15, after=0.0), 0)
    assert ended.cores > idle.cores + 0.2  # its time counts although it is there no longer
    assert idle.cores < 0.5 and both.cores > idle.cores + 0.2 and both.processes >= idle.processes + 1
    assert busy_cores.BusyCores(1.95, 3, 2).is_full and not busy_cores.BusyCores(1.8, 3, 2).is_full
    assert not busy_cores.BusyCores().is_full
