"""The instrument on a real GPU: `nox -s tests -- -m gpu`. Nothing here says how fast a GPU has to be."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from bench.host import gpus
from bench.host.gpu_clocks import sampling
from bench.host.visible_gpus import as_text, locate, nvml
from bench.meters import latency
from bench.meters.latency import Runner
from bench.store.records import Store, read_json
from bench.worker import cuda
from tests.sweeping import QUICK

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
MODELS = "tests.gpu.models"

#: What nobody may change, as questions to NVML.
SETTINGS = (
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetMigMode",
)


def settings():
    found = {}
    with nvml() as lib:
        for ask in SETTINGS:
            try:
                found[ask] = getattr(lib, ask)(locate(lib).board)
            except lib.NVMLError as error:
                found[ask] = str(error)
    return found


def run(folder, *overrides, models=("small",), methods=("same",), device="cuda"):
    """The records of a sweep by the command line, by model and method, and its exit code."""
    suite = folder / "gpusuite"
    suite.mkdir(exist_ok=True)
    names = [f"{MODELS}:{name}" for name in models]
    block = {"models": names, "methods": ["none", *(f"{MODELS}:{name}" for name in methods)]}
    (suite / "suite.yaml").write_text(yaml.safe_dump({"name": "gpusuite", "grids": {"default": [block]}}))
    protocol = [
        f"protocol.{part}.{key}={value}"
        for part in ("latency", "counting", "energy")
        for key, value in QUICK[part].items()
    ]
    command = [sys.executable, "-m", "bench", "suite=gpusuite", "tracking=off", "report=off", f"device={device}"]
    done = subprocess.run(
        [*command, *protocol, "protocol.latency.warmup_s_gpu=0.1", *overrides],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "BENCH_SUITES": str(suite), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode in (0, 3), done.stderr + done.stdout
    found = {}
    for record in Store(folder / "results").iterate():
        case = record["case"]
        found[case["model"].rpartition(":")[2], case["method"].rpartition(":")[2]] = record
    return found, done.returncode


def value(record, metric):
    return next(row for row in record["readings"] if row["metric"] == metric)


def raw_samples(folder, record):
    return read_json(folder / "results" / record["timing"]["invocations"][0]["samples_file"])


# --- parts -----------------------------------------------------------------------------------------------------------


def test_events_and_host_time_the_same_work():
    cuda.select("cuda")
    a = torch.randn(4096, 4096, device="cuda")
    runner = Runner("product", lambda: a @ a, torch.cuda.synchronize, cuda.EventClock())
    latency.time_both(runner, 3)
    host, device = latency.time_both(runner, 20)
    assert 0 < device <= 1.01 * host  # the host waits for all that the device does
    assert device > 0.5 * host  # and for work this long hardly for anything else


def test_the_board_that_is_asked_is_the_one_that_cuda_uses():
    cuda.select("cuda")
    with nvml() as lib:
        found = locate(lib, "cuda")
        assert as_text(lib.nvmlDeviceGetUUID(found.own)).endswith(str(torch.cuda.get_device_properties(0).uuid)) or (
            found.divided
        )
    state = gpus.gpu_state("cuda")
    assert isinstance(state["foreign_processes"], int)
    assert gpus.free_memory("cuda") > 0
    described = [gpu for gpu in gpus.read_gpus()[0] if gpu["visible_as"] == "cuda:0"]
    assert len(described) == 1 and described[0]["name"] and described[0]["power_limit_w"]


def test_clocks_are_sampled_between_rounds():
    with sampling("cuda") as samples:
        for _ in range(5):
            samples.take()
    raw = samples.as_dict()
    assert raw["round"][0] == 0 and len(raw["round"]) >= 1
    assert raw["sm_mhz"][0] is None or raw["sm_mhz"][0] > 0
    assert json.dumps(raw)


def test_the_energy_counter_never_falls():
    with nvml() as lib:
        board = locate(lib, "cuda").board
        try:
            before = lib.nvmlDeviceGetTotalEnergyConsumption(board)
        except lib.NVMLError as error:
            pytest.skip(f"this board has no counter: {error}")
        readings = [before]
        x = torch.randn(4096, 4096, device="cuda")
        for _ in range(20):
            x @ x
            torch.cuda.synchronize()
            time.sleep(0.05)
            readings.append(lib.nvmlDeviceGetTotalEnergyConsumption(board))
    assert readings == sorted(readings) and readings[-1] > readings[0]


def test_the_flush_is_larger_than_the_cache():
    flush = cuda.l2_flush("cuda")
    flush.buffer.fill_(1)
    flush()
    torch.cuda.synchronize()
    assert flush.l2_bytes > 0 and flush.buffer.numel() >= 2 * flush.l2_bytes and not flush.buffer.any()


def test_a_graph_answers_as_the_forward_does():
    from tests.gpu.models import Small

    cuda.select("cuda")
    net, x = Small().cuda().eval(), torch.randn(2, 3, 32, 32, device="cuda")
    with torch.inference_mode():
        graph = cuda.captured(lambda: net(x))
        torch.testing.assert_close(graph(), net(x))
        x.copy_(torch.randn_like(x))  # the inputs stay where they are and may hold other values
        torch.testing.assert_close(graph(), net(x))


# --- whole sweeps ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    before = settings()
    records, code = run(folder)
    return folder, records, code, before


def test_a_sweep_on_a_gpu_fills_every_row(done):
    _, records, code, _ = done
    assert code == 0 and len(records) == 2
    for record in records.values():
        assert record["status"] in ("ok", "contaminated"), record["error"]
        assert record["environment"]["gpus"] and record["environment"]["gpu_driver"]["nvidia"]
        for metric in ("latency_ms", "throughput_per_s", "macs", "peak_memory_bytes", "peak_reserved_bytes"):
            assert value(record, metric)["value"] > 0, metric
    assert value(records["small", "same"], "speedup")["value"] > 0


def test_both_clocks_and_the_boards_clocks_are_kept(done):
    folder, records, _, _ = done
    record = records["small", "none"]
    line = record["timing"]["invocations"][0]
    assert 0 < line["device_median_ms"] <= 1.05 * line["median_ms"]
    assert line["gpu"]["n"] > 0 and line["l2"] is None
    raw = raw_samples(folder, record)
    samples = raw["cases"][record["case_key"]]
    assert len(samples["device_ms"]) == len(samples["latency_ms"])
    assert len(raw["gpu"]["sm_mhz"]) == len(raw["gpu"]["round"]) <= raw["gpu"]["rounds"]


def test_a_sweep_leaves_the_card_as_it_was(done):
    *_, before = done
    assert settings() == before


def test_a_cold_cache_is_in_the_row_and_makes_another_case(done, tmp_path):
    _, records, _, _ = done
    cold, _ = run(tmp_path, "protocol.latency.l2=cold")
    record = cold["small", "none"]
    assert "flushed" in value(record, "latency_ms")["method_note"]
    assert record["timing"]["invocations"][0]["l2"]["flushed_bytes"] > 0
    assert record["protocol"]["hash"] != records["small", "none"]["protocol"]["hash"]
    assert record["case_key"] != records["small", "none"]["case_key"]


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_case_has_its_compile_time_apart(tmp_path, mode, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    records, _ = run(tmp_path, f"device.compile={mode}", methods=())
    record = records["small", "none"]
    assert record["status"] in ("ok", "contaminated"), record["error"]
    assert value(record, "compile_ms")["value"] > 0
    line = record["timing"]["invocations"][0]
    assert line["compile_ms"] > 0 and line["compiled"]["graphs"] >= 1
    assert not any(flag["code"] == "changing_output" for flag in record["flags"])


@pytest.mark.parametrize("compile_", ["off", "default"])
def test_a_captured_case_is_timed_and_one_that_cannot_be_is_a_row_with_the_reason(tmp_path, compile_):
    if compile_ != "off":
        pytest.importorskip("triton")
    records, code = run(
        tmp_path, "device.cuda_graphs=true", f"device.compile={compile_}", models=["small", "waiting"], methods=[]
    )
    good, bad = records["small", "none"], records["waiting", "none"]
    assert good["status"] in ("ok", "contaminated"), good["error"]
    assert good["timing"]["invocations"][0]["capture_ms"] > 0
    assert not any(flag["code"] == "graph_output" for flag in good["flags"])
    if compile_ == "off":  # a compiler may find a way around the wait
        assert (bad["status"], bad["error"]["type"], code) == ("unsupported", "CaptureFailed", 3)
        assert "device.cuda_graphs=false" in bad["error"]["message"]


@pytest.mark.parametrize("dtype", ["tf32", "fp16", "bf16"])
def test_dtype_and_memory_format_are_axes(tmp_path, dtype):
    records, _ = run(tmp_path, f"suite.dtypes=[{dtype}]", "device.memory_format=channels_last", methods=())
    record = records["small", "none"]
    assert record["status"] in ("ok", "contaminated"), record["error"]
    assert (record["case"]["dtype"], record["case"]["memory_format"]) == (dtype, "channels_last")


def test_a_full_device_is_a_row_wherever_it_happens_and_spares_the_rest(tmp_path):
    records, code = run(tmp_path, models=["filling_at_build", "filling", "small"], methods=["filling_later"])
    assert code == 3 and records["small", "none"]["status"] in ("ok", "contaminated")
    phases = {
        ("filling_at_build", "none"): "load",
        ("filling", "none"): "warmup",
        ("small", "filling_later"): "measure",
    }
    for name, phase in phases.items():
        error = records[name]["error"]
        assert (records[name]["status"], error["type"]) == ("oom", "DeviceOutOfMemory"), error
        assert error["phase"] in (phase, "warmup")
