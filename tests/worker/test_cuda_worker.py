"""What a worker does on CUDA, as far as it can be tried without: captures, flushes, full devices, compilers."""

import dataclasses
import functools
import inspect
import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.errors import UsageError
from bench.meters import memory
from bench.metrics import METRICS
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.store.journal import Journal
from bench.worker import cuda, global_state, probe, ready
from bench.worker.child import Phase, classify, describe
from bench.worker.invocation import reference_gemm
from bench.worker.outputs import check_output
from bench.worker.ready import Ready, compile_time
from bench.worker.subject import Subject, build, timed_build
from bench.workloads.workload import Part
from tests.sweeping import QUICK, configuration, sweep
from tests.workers import Sharing

ANNOUNCED = "CUDA out of memory. Tried to allocate 20.00 GiB"


@pytest.fixture(scope="module")
def workers():
    with Sharing(dict.fromkeys(("start", "load", "compile", "warmup", "measure"), 60.0)) as made:
        yield made


def probe_of(model):
    recipe = Recipe(Case(suite="t", model=model), f"tests.faults.models:{model}")
    return {"recipe": recipe.as_dict(), "protocol": QUICK, "meters": ["params"], "no_quality": ""}


# --- a full device ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(ANNOUNCED),
        torch.cuda.OutOfMemoryError(ANNOUNCED),
        RuntimeError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: out of memory")
        if hasattr(torch, "AcceleratorError")
        else RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_full_device_is_told_apart_from_a_full_host(error):
    assert classify(error) == "oom"
    assert describe(error)["type"] == "DeviceOutOfMemory" and "device" in describe(error)["message"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_full_host_keeps_its_own_name(error):
    assert classify(error) == "oom" and describe(error)["type"] == type(error).__name__


@pytest.mark.parametrize(("model", "phase"), [("device_full_at_build", "load"), ("device_full_at_forward", "warmup")])
def test_a_device_that_fills_up_is_a_typed_outcome_and_not_tried_again(workers, tmp_path, model, phase):
    outcome = workers.run("probe", probe_of(model), log=tmp_path / "log")
    assert (outcome.status, outcome.error["type"]) == ("oom", "DeviceOutOfMemory")
    assert outcome.error["phase"] == phase and ANNOUNCED in outcome.error["message"]
    assert not outcome.worth_retrying


def test_a_device_that_fills_up_while_a_group_is_timed_costs_the_one_case_that_filled_it(tmp_path):
    methods = ["none", "tests.faults.methods:device_full_later"]
    config = configuration(tmp_path, ["tests.faults.models:healthy"], methods, executor={"retries": 1})
    records = {record["case"]["method"].rpartition(":")[2]: record for record in sweep(config).records}
    assert (records["none"]["status"], records["device_full_later"]["status"]) == ("ok", "oom")
    failed = records["device_full_later"]
    assert (failed["error"]["type"], failed["error"]["phase"]) == ("DeviceOutOfMemory", "measure")
    assert failed["readings"] and all(row["value"] is not None or row["method_note"] for row in failed["readings"])
    events = [entry["event"] for entry in Journal(tmp_path / "results" / "journal.jsonl").read().entries]
    assert "lost" not in events  # an exception would only recur


# --- graphs ----------------------------------------------------------------------------------------------------------


class Device:
    """As much of `torch.cuda` as a capture uses; ending a broken capture raises an error of its own, as CUDA does."""

    def __init__(self, breaks_at=None):
        self.steps, self.breaks_at, self.capturing, self.waited = 0, breaks_at, False, []

    def Stream(self):
        return SimpleNamespace(wait_stream=lambda other: self.waited.append("side waits"))

    def current_stream(self):
        return SimpleNamespace(wait_stream=lambda other: self.waited.append("main waits"))

    def stream(self, stream):
        return nullcontext()

    def CUDAGraph(self):
        return SimpleNamespace(replay=lambda: None)

    @contextmanager
    def graph(self, graph):
        self.capturing = True
        try:
            yield
        finally:
            if self.breaks_at:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def step(self):
        self.steps += 1
        if self.capturing and self.breaks_at:
            raise self.breaks_at
        return self.steps


@pytest.fixture
def device(monkeypatch):
    def put(**rest):
        made = Device(**rest)
        for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(made, name))
        return made

    return put


def test_a_capture_warms_up_on_the_side_and_keeps_its_output(device):
    made = device()
    graph = cuda.captured(made.step)
    assert made.steps == cuda.CAPTURE_WARMUP + 1 and made.waited == ["side waits", "main waits"]
    assert graph() == cuda.CAPTURE_WARMUP + 1 and made.steps == cuda.CAPTURE_WARMUP + 1  # replayed, not run again


def test_a_forward_that_cannot_be_captured_is_unsupported_and_says_what_came_first(device):
    made = device(breaks_at=RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore"))
    with pytest.raises(
        cuda.CaptureFailed, match=r"not permitted when stream is capturing.*device.cuda_graphs=false"
    ) as e:
        cuda.captured(made.step)
    assert "previous error" not in str(e.value) and classify(e.value) == "unsupported"


@pytest.mark.parametrize(
    ("axes", "replays"),
    [
        ({}, False),
        ({"compile": "default"}, False),
        ({"compile": "reduce-overhead"}, False),
        ({"device": "cuda"}, False),
        ({"device": "cuda", "cuda_graphs": True}, True),
        ({"device": "cuda", "compile": "max-autotune"}, True),
    ],
)
def test_memory_is_taken_of_the_step_that_is_timed_and_knows_where_it_replays(monkeypatch, axes, replays):
    asked = []
    found = SimpleNamespace(readings=list, as_dict=dict)
    monkeypatch.setattr(memory, "measure", lambda *args, **rest: asked.append(rest) or found)
    case = Case(suite="t", model="m", **axes)
    recipe = Recipe(case, "tests.faults.models:healthy").as_dict()
    made = probe.Probe({"recipe": recipe, "meters": ["memory"]}, Phase(Path("unused")))
    part = Part("forward", lambda: None)
    made.memory(Subject(case, torch.nn.Identity(), (), {}, {}), Ready((part,), 0.0), part)
    assert asked == [{"step": part.call, "captured": replays, "reset": None}]


# --- the cache -------------------------------------------------------------------------------------------------------


def test_a_flush_writes_twice_the_cache(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(L2_cache_size=50 << 10))
    flush = cuda.l2_flush("cpu")
    flush.buffer.fill_(1)
    flush()
    assert not flush.buffer.any()
    assert flush.as_dict() == {"setting": "cold", "l2_bytes": 50 << 10, "flushed_bytes": 100 << 10}


def test_a_device_that_tells_no_cache_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace())
    with pytest.raises(UsageError, match=r"l2=cold clashes with device cuda.*l2=warm"):
        cuda.l2_flush("cuda")


# --- compilers -------------------------------------------------------------------------------------------------------


def test_a_cached_compilation_is_no_compile_time():
    counts = {"graphs": 1, "graph_breaks": 0, "cache_hits": 0, "cache_misses": 1}
    assert compile_time(Ready(print, 1.0, 2500.0, counts)) == (2500.0, "")
    value, why = compile_time(Ready(print, 1.0, 40.0, {**counts, "cache_hits": 1}))
    assert value is None and "cache" in why and "TORCHINDUCTOR_CACHE_DIR" in why
    assert compile_time(Ready(print, 1.0))[0] is None
    assert METRICS["compile_ms"].unit == "ms"


def test_compile_time_stands_apart_from_the_first_inference(monkeypatch):
    """With a backend that only takes time: the forward that compiles is one thing, the next one the first inference."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    case = Case(suite="t", model="m", compile="default")
    layer = torch.nn.Linear(4, 4).eval()
    subject = Subject(case, torch.compile(layer, backend=backend), (torch.zeros(1, 4),), {}, {}, eager=layer)
    with torch.inference_mode():
        made = ready.make_ready(subject)
    assert len(compiled) == 1 and made.compiled["graphs"] == 1 and made.compiled["graph_breaks"] == 0
    assert made.compile_ms > 0 and made.first_inference_ms > 0 and made.capture_ms is None
    assert set(made.facts()) == {"first_inference_ms", "compile_ms", "compiled", "capture_ms"}


def test_members_of_a_group_that_share_their_source_are_compiled_apart(monkeypatch):
    """More variants than the compiler takes of one source before it gives up and runs the rest uncompiled."""
    if "isolate_recompiles" not in inspect.signature(torch.compile).parameters:
        pytest.skip("this torch cannot keep what it compiles apart")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    made = []
    with torch.inference_mode():
        for width in range(2, 2 + torch._dynamo.config.recompile_limit + 3):
            case = Case(suite="t", model="m", compile="default")
            subject = build(Recipe(case, "tests.faults.models:healthy", {"width": width}))
            made.append(ready.make_ready(subject))
    assert [item.compiled["graphs"] for item in made] == [1] * len(made)
    assert all(item.compile_ms for item in made)


def test_energy_of_a_compiled_case_is_that_of_the_graph_that_is_timed(monkeypatch, tmp_path):
    """Quality runs batches of other sizes, for which the compiler makes further graphs."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    for pin in ("pin_allocator_for_memory", "pin_allocator_for_timing"):
        monkeypatch.setattr(probe, pin, lambda: None)
    graphs = {}

    def count(meter):
        graphs[meter] = torch._dynamo.utils.counters["stats"]["unique_graphs"]

    def quality(self, subject, ready, part):
        for batch in (3, 5):
            subject.module(torch.zeros(batch, 3, 32, 32))
        count("quality")
        return [], {}

    def energy(self, subject, ready, part):
        ready.step()
        count("energy")
        return [], {}

    monkeypatch.setattr(probe.Probe, "quality", quality)
    monkeypatch.setattr(probe.Probe, "energy", energy)
    monkeypatch.setattr(probe, "source_map", lambda subject: None)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    recipe = Recipe(Case(suite="t", model="m", compile="default"), "tests.gpu.models:small")
    spec = {"recipe": recipe.as_dict(), "protocol": QUICK, "meters": ["quality", "energy"]}
    state = global_state.read()
    try:
        probe.run(spec, Phase(tmp_path / "phase"))
    finally:
        global_state.put_back(state)
    assert graphs["energy"] == before + 1 < graphs["quality"]


def test_a_compiled_subject_is_counted_as_the_eager_module():
    subject = build(Recipe(Case(suite="t", model="m", compile="reduce-overhead"), "tests.faults.models:healthy"))
    assert subject.counted is subject.eager and subject.module is not subject.eager
    assert subject.module._orig_mod is subject.eager


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("c++") is None, reason="the compiler needs a C++ compiler")
def test_a_compiled_case_is_a_row_with_its_compile_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    config = configuration(tmp_path, ["tests.faults.models:healthy"], device={"compile": "default"})
    (record,) = sweep(config).records
    assert record["status"] == "ok", record["error"]
    compile_ms = next(row for row in record["readings"] if row["metric"] == "compile_ms")
    assert compile_ms["value"] > 0 and compile_ms["n"] == 1
    for line in record["timing"]["invocations"]:
        assert line["compiled"]["graphs"] == 1 and line["compiled"]["cache_hits"] > 0  # the probe filled the cache
    assert "no layer times" in record["layers_info"]["reason"]


# --- outputs ---------------------------------------------------------------------------------------------------------


def test_outputs_that_are_written_over_are_compared_as_they_were():
    """A module that replays graphs puts every output in the same place."""
    place, calls = torch.zeros(3), []

    def forward():
        calls.append(1)
        return place.copy_(torch.full((3,), float(len(calls))))

    assert [flag["code"] for flag in check_output(forward)] == ["changing_output"]


def test_a_graph_that_answers_otherwise_is_flagged_and_so_is_nan():
    assert check_output(lambda: torch.ones(2), lambda: torch.ones(2)) == []
    assert [f["code"] for f in check_output(lambda: torch.ones(2), lambda: torch.zeros(2))] == ["graph_output"]
    assert [f["code"] for f in check_output(lambda: torch.tensor(float("nan")))] == ["not_finite"]


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["allow_tf32", "fp32_precision", "benchmark"])
def test_precision_and_autotuning_are_put_back_by_either_of_torchs_names(spoil):
    before = global_state.read()
    try:
        if spoil == "allow_tf32":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        elif spoil == "benchmark":
            torch.backends.cudnn.benchmark = True
        elif not hasattr(torch.backends, "fp32_precision"):
            pytest.skip("this torch has the older names only")
        else:
            torch.backends.fp32_precision = "tf32"
            torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "tf32"
        words = " ".join(global_state.put_back(before))
        assert ("cudnn benchmark" if spoil == "benchmark" else "tf32") in words
    finally:
        global_state.put_back(before)
    assert global_state.read() == before


def _set(owner, name, value):
    return lambda: setattr(owner, name, value)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda: torch.backends.cuda.enable_flash_sdp(False), "flash attention from True to False"),
        (lambda: torch.backends.cuda.enable_mem_efficient_sdp(False), "memory efficient attention"),
        (lambda: torch.backends.cuda.enable_math_sdp(False), "math attention"),
        (lambda: torch.backends.cuda.enable_cudnn_sdp(False), "cudnn attention"),
        (lambda: torch.backends.mha.set_fastpath_enabled(False), "attention layer fast path"),
        (_set(torch.backends.cudnn, "deterministic", True), "cudnn deterministic from False to True"),
        (_set(torch.backends.cudnn, "enabled", False), "cudnn enabled"),
        (_set(torch.backends.mkldnn, "enabled", False), "mkldnn enabled"),
        (_set(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False), "bf16 reduced precision"),
        (_set(torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False), "fp16 reduced precision"),
        (
            lambda: torch.set_float32_matmul_precision("medium"),
            "mkldnn products" if hasattr(torch.backends, "fp32_precision") else "tf32 products",
        ),
    ],
)
def test_what_decides_for_all_which_kernel_runs_is_watched_and_put_back(spoil, words):
    before = global_state.read()
    try:
        spoil()
        changes = global_state.put_back(before)
        assert changes and words in " ".join(changes)
        assert global_state.read() == before
    finally:
        global_state.put_back(before)


def test_every_part_of_the_state_has_what_reads_and_what_sets_it():
    names = {item.name for item in dataclasses.fields(global_state.GlobalState)}
    assert names == {*global_state.ACCESS, "tf32_products", "tf32_convolutions"}
    get, _ = global_state.backend_setting("cuda.matmul.no_such_setting")
    assert get() is None and global_state.backend_setting("no.such")[0]() is None


def test_tf32_is_taken_where_the_dtype_says_so_and_nowhere_else():
    before = global_state.read()
    try:
        for dtype, taken in (("tf32", True), ("fp32", False)):
            recipe = Recipe(Case(suite="t", model="m", dtype=dtype), "tests.faults.models:healthy")
            subject, _ = timed_build(recipe)
            state = global_state.read()
            assert (state.tf32_products, state.tf32_convolutions) == (taken, taken)
            assert subject.state_changes == () and next(subject.module.parameters()).dtype == torch.float32
    finally:
        global_state.put_back(before)


def test_the_reference_product_is_fp32_whatever_is_timed_beside_it(monkeypatch):
    before, seen, product = global_state.read(), [], torch.mm

    def spy(*args, **rest):
        seen.append(global_state.read().tf32_products)
        return product(*args, **rest)

    monkeypatch.setattr(torch, "mm", spy)
    try:
        for dtype in ("tf32", "fp32"):
            global_state.set_tf32(dtype == "tf32", dtype == "tf32")
            state = global_state.read()
            reference_gemm("cpu", dtype).step()
            assert global_state.read() == state
    finally:
        global_state.put_back(before)
    assert seen == [False, False]


def test_memory_format_and_dtype_reach_module_and_inputs():
    case = Case(suite="t", model="m", dtype="bf16", memory_format="channels_last")
    subject = build(Recipe(case, "tests.faults.models:healthy"))
    weight, image = subject.module.layer.weight, subject.args[0]
    for tensor in (weight, image):
        assert tensor.dtype == torch.bfloat16 and tensor.is_contiguous(memory_format=torch.channels_last)


# --- the server ------------------------------------------------------------------------------------------------------


def test_the_server_touches_no_cuda_and_asks_only_nvml_whether_there_is_one(workers, tmp_path):
    assert workers.run("probe", probe_of("healthy"), log=tmp_path / "log").ok
    assert workers.ready["cuda"] is False
    environment = Path(f"/proc/{workers._server.pid}/environ").read_text().split("\0")
    assert "PYTORCH_NVML_BASED_CUDA_CHECK=1" in environment


def test_a_worker_on_a_device_that_torch_cannot_use_says_so():
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    with pytest.raises(UsageError, match="device cuda cannot be used by torch"):
        cuda.select("cuda")
    cuda.select("cpu")
