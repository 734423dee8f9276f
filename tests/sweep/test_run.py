"""Promises of the sweep: nothing measured twice, nothing lost, every failure a row."""

import collections
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from bench.analysis import table
from bench.config.protocol import Protocol
from bench.errors import ResultsError
from bench.host.environment import environment
from bench.host.identity import machine_key
from bench.plan.case import Case
from bench.store.journal import Journal
from bench.store.lock import ResultsLock
from bench.store.records import Store, read_json, seal, write_json
from bench.sweep.attempts import CircuitBroken, Interrupted
from bench.sweep.events import Working
from bench.sweep.memory import cases_that_fit
from tests import reanalysis
from tests.sweeping import HEALTHY, QUICK, configuration, sweep

ROOT = Path(__file__).resolve().parents[2]
WIDE = f"{HEALTHY}(width=8)"
#: Samples enough for a 90th percentile, whatever they cost.
ENOUGH = {**QUICK, "latency": {**QUICK["latency"], "samples": 64, "min_samples": 64, "throughput_windows": 3}}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep of a healthy model with a method that also is one, and its results folder."""
    folder = tmp_path_factory.mktemp("sweep")
    methods = ["none", "tests.faults.methods:same", "tests.faults.methods:narrow"]
    config = configuration(folder, [HEALTHY], methods, protocol=ENOUGH)
    return config, sweep(config)


def value(record, metric):
    return next(row for row in record["readings"] if row["metric"] == metric)


def test_version_2_plans_later_processes_and_takes_extras_once(tmp_path):
    latency = {**QUICK["latency"], "invocations": 3, "max_invocations": 3, "samples": 40, "warmup_s": 0.03}
    latency |= {"throughput_processes": 1, "fewest_samples": 33, "most_samples": 50}
    config = configuration(
        tmp_path, [HEALTHY], ["none", "tests.faults.methods:same"], protocol={**QUICK, "version": 2, "latency": latency}
    )
    _, record = sweep(config).records
    assert record["status"] == "ok" and record["protocol"]["version"] == 2
    lines = record["timing"]["invocations"]
    assert lines[0]["n"] == 40 and all(33 <= line["n"] <= 50 for line in lines[1:])
    assert [line["throughput_per_s"] is None for line in lines] == [False, True, True]
    assert record["layers_info"]["processes"] == 1 and "twin as control" in value(record, "speedup")["statistic"]
    assert (value(record, "throughput_per_s")["n"], value(record, "latency_ms")["n"]) == (1, 3)


def test_every_case_gets_every_quantity_with_unit_interval_and_provenance(done):
    _, result = done
    assert [record["status"] for record in result.records] == ["ok"] * 3, [r["error"] for r in result.records]
    for record in result.records:
        metrics = {row["metric"] for row in record["readings"]}
        assert {
            "params",
            "macs",
            "latency_ms",
            "throughput_per_s",
            "peak_memory_bytes",
            "energy_j",
            "accuracy",
        } <= metrics
        latency = value(record, "latency_ms")
        assert latency["ci_low"] <= latency["value"] <= latency["ci_high"]
        assert (latency["n"], latency["unit"], latency["provenance"]) == (2, "ms", "measured")
        for row in record["readings"]:
            assert row["unit"] and (row["value"] is not None or row["method_note"])


def test_macs_of_a_convolution_are_its_closed_form(done):
    _, result = done
    by_method = {record["case"]["method"]: record for record in result.records}
    assert value(by_method["none"], "macs")["value"] == 4 * 3 * 9 * 6 * 6
    assert value(by_method["tests.faults.methods:narrow"], "macs")["value"] == 2 * 3 * 9 * 6 * 6


def test_every_timed_number_is_recomputed_from_the_raw_samples(done):
    config, result = done
    for record in result.records:
        reanalysis.assert_agrees(config.paths.results, record)
        assert {line["n"] for line in record["timing"]["invocations"]} == {64}
        assert value(record, "latency_p90_ms")["value"] > 0


def test_every_row_carries_the_protocols_hash_and_all_its_values(done):
    config, result = done
    frame = table.load(config.paths.results)
    assert set(frame["protocol"]) == {config.protocol.hash}
    for record in result.records:
        assert record["case"]["protocol"] == record["protocol"]["hash"] == config.protocol.hash
        assert record["protocol"] == config.protocol.as_record()
        version = record["protocol"]["version"]
        assert Protocol(version=version, **record["protocol"]["parameters"]).hash == config.protocol.hash


def test_the_baseline_carries_the_noise_floor_and_no_speedup(done):
    _, result = done
    baseline = next(r for r in result.records if r["case"]["method"] == "none")
    assert value(baseline, "aa_ratio")["value"] is not None
    assert "speedup" not in {row["metric"] for row in baseline["readings"]}


def test_layer_rows_add_up_to_the_whole(done):
    _, result = done
    for record in result.records:
        assert sum(row["macs"] for row in record["layers"]) == value(record, "macs")["value"]
        info = record["layers_info"]
        explained = sum(row["time_ms"] for row in record["layers"] if row["time_ms"] is not None)
        assert info["end_to_end_ms"] == pytest.approx(explained + info["unexplained_ms"])


def test_second_run_measures_nothing(done):
    config, first = done
    before = {path: path.stat().st_mtime_ns for path in Path(config.paths.results).rglob("*.json*")}
    again = sweep(config)
    assert again.measured == 0
    assert {r["content_hash"] for r in again.records} == {r["content_hash"] for r in first.records}
    after = {path: path.stat().st_mtime_ns for path in Path(config.paths.results).rglob("*.json*")}
    assert {p: t for p, t in after.items() if p.name != "journal.jsonl"} == {
        p: t for p, t in before.items() if p.name != "journal.jsonl"
    }


def test_an_added_method_is_timed_with_the_baseline_that_is_already_there(done, tmp_path):
    config, _ = done
    methods = ["none", "tests.faults.methods:narrow(width=1)"]
    more = configuration(Path(config.paths.results).parent, [HEALTHY], methods, protocol=ENOUGH)
    result = sweep(more)
    assert result.measured == 1
    added = next(r for r in result.records if r["case"]["setting"])
    assert value(added, "speedup")["value"] is not None
    reanalysis.assert_agrees(more.paths.results, added)
    apart = {
        record["case"]["method"]: "another_session" in {f["code"] for f in record["flags"]} for record in result.records
    }
    assert apart == {"none": False, "tests.faults.methods:narrow": True}


def test_failed_cases_are_rows_and_do_not_stop_the_others(tmp_path):
    names = ["segfault", "wrong_value", "build_error"]
    config = configuration(tmp_path, [HEALTHY, *(f"tests.faults.models:{name}" for name in names)])
    result = sweep(config)
    statuses = {record["case"]["model"].partition(":")[2]: record["status"] for record in result.records}
    assert statuses == {"healthy": "ok", "segfault": "crashed", "wrong_value": "invalid", "build_error": "crashed"}
    failed = next(r for r in result.records if r["status"] == "invalid")
    assert "a value that the model does not take" in failed["error"]["message"]
    assert all(row["provenance"] == "unavailable" and row["method_note"] for row in failed["readings"])


def test_a_method_that_breaks_in_company_is_named_and_the_rest_is_timed(tmp_path):
    breaks, raises = "tests.faults.methods:breaks_later", "tests.faults.methods:raises_later"
    config = configuration(tmp_path, [HEALTHY], ["none", breaks, raises])
    records = {record["case"]["method"]: record for record in sweep(config).records}
    assert {name: record["status"] for name, record in records.items()} == {
        "none": "ok",
        breaks: "crashed",
        raises: "crashed",
    }
    assert {records[name]["error"]["phase"] for name in (breaks, raises)} == {"measure"}
    assert records[breaks]["error"]["type"] == "SIGSEGV"
    assert records[raises]["error"]["message"].startswith(
        "the cache of this layer is full\n"
    )  # and where, in the user's code


def test_a_failed_baseline_leaves_absolute_values_and_removes_ratios(tmp_path):
    config = configuration(tmp_path, ["tests.faults.models:wrong_value"], ["none", "tests.faults.methods:healed"])
    records = {record["case"]["method"]: record for record in sweep(config).records}
    healed = records["tests.faults.methods:healed"]
    assert records["none"]["status"] == "invalid"
    assert value(healed, "latency_ms")["value"] > 0
    speedup = [row for row in healed["readings"] if row["metric"] == "speedup"]
    assert all(row["value"] is None and "baseline failed" in row["method_note"] for row in speedup)


def test_failed_cases_are_measured_again_only_when_asked(tmp_path):
    config = configuration(tmp_path, ["tests.faults.models:wrong_value"])
    first = sweep(config).records[0]
    assert sweep(config).measured == 0
    again = sweep(configuration(tmp_path, ["tests.faults.models:wrong_value"], retry_failed=True))
    assert again.measured == 1
    assert again.records[0]["supersedes"] == first["content_hash"]
    assert len(list(Store(config.paths.results).iterate())) == 1


def test_many_lost_cases_in_a_row_break_the_circuit(tmp_path):
    models = [f"tests.faults.models:{name}" for name in ("segfault", "abort", "killed", "exits_quietly")]
    config = configuration(tmp_path, models, executor={"retries": 0, "breaker": 2})
    with pytest.raises(CircuitBroken, match="2 cases in a row"):
        sweep(config)
    assert len(list(Store(config.paths.results).iterate())) == 2


def test_an_unreadable_record_is_reported_and_not_overwritten(tmp_path):
    config = configuration(tmp_path, [HEALTHY])
    record = sweep(config).records[0]
    path = next(Path(config.paths.results).glob("records/*.json"))
    path.write_text(path.read_text().replace('"status":"ok"', '"status":"no"'))
    again = sweep(config)
    assert again.measured == 0
    assert "does not match its hash" in again.problems[0]
    assert record["case_key"] in path.name


def test_second_driver_is_refused_and_told_who_holds_the_folder(tmp_path):
    config = configuration(tmp_path, [HEALTHY])
    code = (
        f"from bench.store.lock import ResultsLock; import time\nwith ResultsLock({config.paths.results!r}): "
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(ResultsError, match=str(holder.pid)):
            sweep(config)
        holder.kill()
    with ResultsLock(config.paths.results):
        pass


@pytest.fixture
def listens_to_ctrl_c():
    """A test run in the background inherits Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupting_marks_the_case_in_hand_and_keeps_what_was_before(tmp_path, listens_to_ctrl_c):
    config = configuration(tmp_path, [HEALTHY, WIDE])

    def impatient(event):
        if isinstance(event, Working) and "probe" in event.what and "width=8" in event.what:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        sweep(config, impatient)
    kept = {r["case"]["model_settings"]: r["status"] for r in Store(config.paths.results).iterate()}
    assert kept[""] == "ok"
    finished = sweep(config)
    assert {r["status"] for r in finished.records} == {"ok"}
    assert len(list(Store(config.paths.results).iterate())) == 2


@pytest.mark.parametrize(
    ("room", "parts"),
    [
        (None, ["abcd"]),  # nothing tells: all together
        (600, ["abcd"]),  # 2 x 100 for the baseline and its twin, 400 for the four
        (599, ["abc", "d"]),
        (400, ["ab", "cd"]),
        (300, ["a", "b", "c", "d"]),
        (0, ["a", "b", "c", "d"]),  # whether one runs at all is for the measurement to say
    ],
)
def test_cases_are_packed_by_what_fits_beside_the_baseline_and_its_twin(room, parts):
    cases = [Case(suite="t", model=name) for name in "abcd"]
    sizes = {case.key: 100.0 for case in cases}
    packed = cases_that_fit(cases, sizes, cases[0].key, room)
    assert ["".join(case.model for case in part) for part in packed] == parts


def test_a_baseline_of_unknown_size_counts_as_the_largest_member():
    small, large = (Case(suite="t", model=name) for name in ("small", "large"))
    sizes = {small.key: 10.0, large.key: 100.0}
    assert cases_that_fit([small, large], sizes, "of an earlier session", 310.0) == [[small, large]]
    assert cases_that_fit([small, large], sizes, "of an earlier session", 309.0) == [[small], [large]]
    assert cases_that_fit([], {}, "any", 309.0) == []


# -- kills ------------------------------------------------------------------------------------------------------


def _command(folder, models, *overrides):
    suite = folder / "killsuite"
    suite.mkdir(exist_ok=True)
    grid = {
        "name": "killsuite",
        "grids": {"default": [{"models": models, "methods": ["none", "tests.faults.methods:narrow"]}]},
    }
    (suite / "suite.yaml").write_text(yaml.safe_dump(grid))
    flat = [
        f"protocol.{part}.{key}={v}" for part in ("latency", "counting", "energy") for key, v in QUICK[part].items()
    ]
    command = [sys.executable, "-m", "bench", "suite=killsuite", "tracking=off", "report=off", *flat, *overrides]
    environment = {**os.environ, "BENCH_SUITES": str(suite), "PYTHONPATH": str(ROOT)}
    return command, environment


def _entries(folder):
    return Journal(folder / "results" / "journal.jsonl").read().entries


def _assert_nothing_twice(folder, cases, since=0):
    entries = _entries(folder)[since:]
    counts = collections.Counter()
    for entry in entries:
        if entry["event"] == "probed":
            counts["probed", entry["case"]] += 1
        if entry["event"] == "timed":
            counts["timed", entry["session"], entry["index"]] += 1
        if entry["event"] == "recorded":
            counts["recorded", entry["case"]] += 1
    assert {key: n for key, n in counts.items() if n > 1} == {}
    records = list(Store(folder / "results").iterate())
    assert len(records) == cases
    assert {record["status"] for record in records} <= {"ok", "contaminated"}


def _kill_until_done(folder, kills, seed, *overrides, longest=6.5):
    """Kill the driver at random moments, then let it finish."""
    models = [HEALTHY, WIDE]
    command, environment = _command(folder, models, *overrides)
    generator, done = random.Random(seed), 0
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(generator.uniform(0.3, longest))
        if process.poll() is None:
            process.kill()
            done += 1
        process.wait()
    last = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert last.returncode == 0, last.stderr
    return done


@pytest.mark.slow
def test_killed_sweep_resumes_without_remeasuring(tmp_path):
    assert _kill_until_done(tmp_path, 3, seed=1) >= 1
    _assert_nothing_twice(tmp_path, 4)


def _contaminate(folder):
    """Make every record one that other work disturbed: it has its numbers, and a retry measures it again."""
    for path in Store(folder / "results").records.glob("*.json"):
        write_json(path, seal({**read_json(path), "status": "contaminated"}))


@pytest.mark.slow  # `test_resuming` kills a retry once
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [2, 20])
def test_a_killed_retry_resumes_without_remeasuring(tmp_path, kills):
    _kill_until_done(tmp_path, 0, 1)
    _contaminate(tmp_path)
    since = len(_entries(tmp_path))
    assert _kill_until_done(tmp_path, kills, 2, "retry_failed=true") >= 1
    _assert_nothing_twice(tmp_path, 4, since)
    found = list(Store(tmp_path / "results").iterate())
    assert all(record["supersedes"] and record["status"] == "ok" for record in found)
    assert {record["environment"]["torch"]["threads"] for record in found} == {found[0]["case"]["threads"]}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_lose_nothing(tmp_path):
    killed = 0
    for round_ in range(20):
        folder = tmp_path / str(round_)
        folder.mkdir()
        killed += _kill_until_done(folder, 5, seed=round_)
        _assert_nothing_twice(folder, 4)
    assert killed >= 80


def test_machine_key_is_in_every_record(done):
    config, result = done
    assert {r["machine_key"] for r in result.records} == {machine_key(environment(config.device.name))}


def test_the_journal_names_the_content_of_every_record(done):
    """So that a record that was put into the folder later is not taken for one that was measured here."""
    config, result = done
    told = Journal(Store(config.paths.results).journal).read().events("recorded")
    assert {record["content_hash"] for record in result.records} <= {entry["content_hash"] for entry in told}


def test_every_record_tells_how_the_torch_that_measured_is_built(done):
    """Read in the workers: the driver does not import torch."""
    _, result = done
    for record in result.records:
        torch = record["environment"]["torch"]
        assert torch["version"] == record["environment"]["packages"]["torch"] and torch["cpu_capability"]
        assert torch["threads"] == record["case"]["threads"] and "mkl" in torch and "cudnn" in torch
