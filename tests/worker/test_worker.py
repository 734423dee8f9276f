"""Whatever a worker does, the driver survives it and says what happened, in which phase."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker import client
from bench.worker.client import LOG_LIMIT_BYTES
from tests.sweeping import QUICK
from tests.workers import Sharing

TIMEOUTS = {"start": 60.0, "load": 30.0, "compile": 30.0, "warmup": 30.0, "measure": 30.0}


@pytest.fixture(scope="module")
def workers():
    with Sharing(TIMEOUTS) as made:
        yield made


def probe(workers, tmp_path, model, *, meters=("params",), **rest):
    case = Case(suite="t", model=model)
    recipe = Recipe(case, f"tests.faults.models:{model}")
    spec = {"recipe": recipe.as_dict(), "protocol": QUICK, "meters": list(meters), "no_quality": "none asked for"}
    return workers.run("probe", spec, log=tmp_path / "log", **rest)


def test_healthy_model_gives_its_result(workers, tmp_path):
    outcome = probe(workers, tmp_path, "healthy")
    assert outcome.ok, outcome.error
    assert {row["metric"] for row in outcome.result["readings"]} >= {"params", "size_bytes"}
    assert outcome.max_resident_bytes > 1e7


@pytest.mark.parametrize(
    ("model", "status", "kind"),
    [
        ("segfault", "crashed", "SIGSEGV"),
        ("abort", "crashed", "SIGABRT"),
        ("killed", "crashed", "SIGKILL"),
        ("exits_quietly", "crashed", "NoResult"),
        ("build_error", "crashed", "RuntimeError"),
        ("forward_error", "crashed", "RuntimeError"),
        ("unsupported", "unsupported", "NotImplementedError"),
        ("wrong_value", "invalid", "ValueError"),
    ],
)
def test_every_way_of_dying_becomes_a_typed_outcome(workers, tmp_path, model, status, kind):
    outcome = probe(workers, tmp_path, model)
    assert (outcome.status, outcome.error["type"]) == (status, kind), outcome.error
    assert outcome.error["phase"] == ("load" if model == "build_error" else "warmup")
    assert probe(workers, tmp_path, "healthy").ok  # and the next case is not harmed


def test_an_output_that_is_not_finite_is_measured_and_flagged(workers, tmp_path):
    outcome = probe(workers, tmp_path, "nan_output")
    assert outcome.ok
    assert "not_finite" in {flag["code"] for flag in outcome.result["flags"]}


def test_only_lost_processes_are_worth_a_second_try(workers, tmp_path):
    assert probe(workers, tmp_path, "segfault").worth_retrying
    assert not probe(workers, tmp_path, "forward_error").worth_retrying


def test_allocation_beyond_the_limit_is_out_of_memory_and_spares_the_host(workers, tmp_path):
    outcome = probe(workers, tmp_path, "eats_memory", memory_limit_bytes=4 << 30)
    assert outcome.status == "oom", outcome.error


@pytest.mark.parametrize("model", ["hang", "stubborn_hang"])
def test_hangs_end_at_the_timeout_of_their_phase_even_if_they_ignore_being_asked(workers, tmp_path, monkeypatch, model):
    monkeypatch.setattr(workers, "timeouts", {**TIMEOUTS, "warmup": 0.5})
    monkeypatch.setattr(client, "GRACE_S", 0.5)
    outcome = probe(workers, tmp_path, model)
    assert outcome.status == "timeout"
    assert outcome.error["phase"] == "warmup"
    assert probe(workers, tmp_path, "healthy").ok


def timing(model, **latency):
    """What a worker is told that times a model alone."""
    protocol = {**QUICK, "latency": {**QUICK["latency"], **latency}}
    recipe = Recipe(Case(suite="t", model=model), f"tests.faults.models:{model}")
    return {"recipes": [recipe.as_dict()], "protocol": protocol, "session": "s", "index": 0, "seed": 1}


def test_waiting_for_a_quiet_host_is_not_counted_as_starting(workers, tmp_path, monkeypatch):
    """The host is busy for longer than a start may take, and the worker waits as long as its protocol tells it to."""
    assert probe(workers, tmp_path, "healthy").ok  # the server imports torch while the start has time for that
    monkeypatch.setattr(workers, "timeouts", {**TIMEOUTS, "start": 1.0})
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            outcome = workers.run("invocation", timing("healthy", quiet_wait_s=1.5), log=tmp_path / "log")
        finally:
            neighbour.kill()
    assert outcome.ok, outcome.error
    assert outcome.result["quiet"]["waited_s"] >= 1.5
    assert "host busy" in outcome.result["quiet"]["labels"] and not outcome.result["quiet"]["quiet"]


def test_the_samples_of_the_reference_say_how_many_products_each_is_the_mean_of(workers, tmp_path):
    outcome = workers.run("invocation", timing("healthy", min_sample_ms=20.0), log=tmp_path / "log")
    assert outcome.ok, outcome.error
    reference = outcome.result["reference_gemm"]
    assert reference["block"] > 1 and len(reference["ms"]) >= 10


def test_a_later_process_does_what_its_plan_says_and_a_full_one_keeps_the_times_of_its_warm_up(workers, tmp_path):
    spec = timing("healthy", warmup_s=0.05, warm_by_evidence=True)
    plan = {"rounds": 17, "warmup_s": {"twin": 0.0}, "throughput": False, "layers": False}
    first, later = (
        workers.run("invocation", told, log=tmp_path / "log").result for told in (spec, {**spec, "plan": plan})
    )
    (own,) = first["cases"].values()
    assert own["throughput"] and own["layers"]["repeats"] == 2 and len(own["latency_ms"]) == 12
    warm = own["warmup"]
    assert len(warm["trace_ms"]) == warm["iterations"] // warm["chunk"] and warm["seconds"] >= 0.05
    assert 0 < sum(warm["trace_ms"]) * warm["chunk"] / 1e3 <= warm["seconds"]
    assert later["plan"] == plan and later["twin"]["warmup"]["trace_ms"] is None
    assert later["twin"]["warmup"]["iterations"] < warm["iterations"]
    for member in (*later["cases"].values(), later["twin"]):
        assert len(member["latency_ms"]) == 17 and member["throughput"] is None and "layers" not in member
    for made in (first, later):
        assert made["stages_s"]["sampled"] > 0 and sum(made["stages_s"].values()) < made["seconds"]


def test_of_a_long_run_one_warms_up_and_as_many_are_timed_as_there_is_time_for(workers, tmp_path):
    spec = timing("healthy", long_run_s=0.02, case_seconds=0.1)
    recipe = Recipe(Case(suite="t", model="wait"), "perf.known:busy_wait", {"milliseconds": 30})
    outcome = workers.run("invocation", {**spec, "recipes": [recipe.as_dict()]}, log=tmp_path / "log")
    (own,) = outcome.result["cases"].values()
    assert (own["warmup"]["iterations"], own["warmup"]["steady"]) == (1, None)
    assert 1 <= len(own["latency_ms"]) <= 3  # a busy machine makes the run that was looked at longer
    assert own["layers"]["repeats"] == 1


def test_the_limit_of_a_wait_is_the_wait_and_a_start(tmp_path):
    with Sharing({**TIMEOUTS, "start": 60.0, "measure": 7.0}) as made:
        assert made.limit_s("quiet", 120.0) == 180.0
        assert (made.limit_s("start", 120.0), made.limit_s("measure", 120.0)) == (60.0, 7.0)
        ended = {"ended": signal.SIGTERM, "max_resident_bytes": 1}
        asked = {"protocol": {"latency": {"quiet_wait_s": 120.0}}}
        outcome = made._outcome(tmp_path, asked, ended, "quiet", 181.0, tmp_path / "log", killed_by_kernel=False)
    assert outcome.status == "timeout" and outcome.worth_retrying
    assert "the phase quiet took longer than 180 s" in outcome.error["message"]


def test_a_gigabyte_of_output_fills_no_disk(workers, tmp_path):
    largest, ended = [0], threading.Event()

    def watch():
        while not ended.wait(0.005):
            with contextlib.suppress(OSError):
                largest[0] = max(largest[0], (tmp_path / "log").stat().st_size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    outcome = probe(workers, tmp_path, "loud")
    ended.set()
    watcher.join()
    assert outcome.ok, outcome.error
    assert LOG_LIMIT_BYTES < largest[0] < 2**30  # it grew beyond the limit and was cut meanwhile, not only at the end
    assert (tmp_path / "log").stat().st_size <= LOG_LIMIT_BYTES
    again = probe(workers, tmp_path, "forward_error")
    assert len(again.error["log_tail"]) <= LOG_LIMIT_BYTES


def test_changing_outputs_are_flagged(workers, tmp_path):
    outcome = probe(workers, tmp_path, "changing_output")
    assert "changing_output" in {flag["code"] for flag in outcome.result["flags"]}


def test_children_that_a_model_leaves_behind_are_ended(workers, tmp_path):
    before = _sleepers()
    outcome = probe(workers, tmp_path, "forks_children")
    assert outcome.ok, outcome.error
    deadline = time.monotonic() + 5
    while _sleepers() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _sleepers() <= before


def _sleepers():
    """Descendants of this process other than the worker server itself."""
    return sum(1 for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE)


def test_one_case_does_not_change_the_next(workers, tmp_path):
    probe(workers, tmp_path, "changes_state")
    outcome = probe(workers, tmp_path, "healthy")
    assert outcome.ok, outcome.error


def test_a_killed_server_is_a_lost_case_and_the_next_one_starts_another(workers, tmp_path):
    assert probe(workers, tmp_path, "healthy").ok
    before = workers._server.pid
    os.kill(before, signal.SIGKILL)
    time.sleep(0.1)
    assert probe(workers, tmp_path, "healthy").ok and workers._server.pid != before


def test_the_server_has_torch_but_no_threads(workers, tmp_path):
    probe(workers, tmp_path, "healthy")
    assert workers.ready["threads"] == 1
