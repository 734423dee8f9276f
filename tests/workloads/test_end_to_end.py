"""Every workload with a subject of known cost, from command line and library: MACs, bytes, joules, durations."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import bench
from bench.canonical import settings_text
from bench.config.protocol import Protocol
from bench.meters.energy import meter
from bench.plan.case import Case
from bench.plan.estimate import parts_ms
from bench.plan.recipe import Recipe
from bench.store.record_parts import reading_of
from bench.worker import estimate
from bench.worker.parts import as_step, prepared_share
from bench.workloads import WORKLOADS, find, module_of
from tests.sweeping import QUICK
from tests.workloads.subjects import Learner, Writer, parts_of, subject_of
from tests.workloads.test_parts import CASES, DURATIONS, MACS

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests.workloads.subjects"

#: Of `forward`, which the tables of parts leave out: the learner's two products, 2 ms.
MILLISECONDS = {"forward": {"forward": 2}, **DURATIONS}
PRODUCTS = {"forward": {"forward": 8 * 42}, **MACS}
SUBJECTS = {"forward": (lambda: subject_of(Learner, torch.randn(8, 4)), {"batch": 8}), **CASES}
#: Builder of each, as a suite names it.
BUILDERS = {
    "forward": "learner",
    "generate": "writer",
    "sample": "denoiser",
    "stream": "causal",
    "training_step": "learner",
    "pipeline": "chain",
    "split": "halves",
    "operator": "doubling",
    "prediction": "weighing",
}
#: Samples of a run, by which MACs are divided; a pipeline and an operator count one.
SAMPLES = {name: shape.get("batch", 1) for name, (_, shape) in SUBJECTS.items()}
#: What is counted besides, by hand, where there are shapes only: (metric, part) -> value.
BESIDES = {
    "forward": {("params", ""): 24 + 6 + 12 + 18 + 3},
    "generate": {("cache_bytes", "request"): 9 * 8, ("cache_bytes_per_token", "request"): 8, ("params", ""): 44},
    "sample": {("macs_decoder", "image"): 20, ("macs_conditioner", "image"): 12, ("network_evaluations", "image"): 6},
    "stream": {("state_bytes", "step"): 3 * 24, ("macs_per_step", "step"): 12, ("state_traffic_bytes", "step"): 156},
    "training_step": {
        ("macs_backward", "step"): 60,
        ("macs_recomputed", "step"): 0,
        ("gradient_bytes", "step"): 4 * 63,
        ("optimizer_bytes", "step"): 8 * 63 + 4 * 6,
    },
    "pipeline": {("params", ""): 8},
    "split": {("params", ""): 14},
    "operator": {("io_bytes", "call"): 188, ("params", ""): 0},
    "prediction": {("params", ""): 3},
}


def test_all_workloads_are_here():
    assert set(SUBJECTS) == set(BUILDERS) == set(BESIDES) == set(PRODUCTS) == set(WORKLOADS)


def suite_folder(folder, **protocol):
    """A suite of one's own with one block a workload, and its protocol."""
    blocks = [
        {
            "models": [f"{HERE}:{BUILDERS[name]}"],
            "workload": name,
            "shapes": {axis: [value] for axis, value in SUBJECTS[name][1].items()} or {"batch": [1]},
        }
        for name in WORKLOADS
    ]
    place = folder / "known"
    place.mkdir()
    (place / "suite.yaml").write_text(yaml.safe_dump({"name": "known", "grids": {"default": blocks}}))
    return folder


def command_line(folder, *overrides):
    """The records of `python -m bench suite=known`, by workload."""
    told = subprocess.run(
        [sys.executable, "-m", "bench", "suite=known", "tracking.enabled=false", "report.enabled=false", *overrides],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BENCH_SUITES": str(folder / "known")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-2000:]
    records = [json.loads(path.read_text()) for path in (folder / "results" / "records").glob("*.json")]
    return {record["case"]["workload"]: record for record in records}


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    return command_line(suite_folder(tmp_path_factory.mktemp("known")), "protocol=counts")


def value(record, metric, part):
    found = reading_of(record, metric, part)
    return None if found is None else found["value"]


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_the_command_line_counts_every_part_and_times_none(counted, workload):
    record = counted[workload]
    assert record["status"] == "ok", record["error"]
    skipped = {"encode", "decode"} if workload == "split" else set()  # there is nothing to encode on shapes
    for part, count in PRODUCTS[workload].items():
        expected = None if part in skipped else count / SAMPLES[workload]
        assert value(record, "macs", part) == expected, part
    assert {key: value(record, *key) for key in BESIDES[workload]} == BESIDES[workload]
    taken = {row["metric"] for row in record["readings"] if row["value"] is not None}
    assert not taken & {"latency_ms", "throughput_per_s", "energy_j", "peak_memory_bytes"}


def test_the_plan_knows_the_products_of_every_part_before_anything_is_built():
    shapes = {name: find(name).shape(SUBJECTS[name][1]) for name in WORKLOADS}
    for shape in shapes.values():
        shape.pop("batch")
        shape.pop("resolution", None)
    recipes = {
        name: Recipe(
            Case(
                suite="known",
                model=BUILDERS[name],
                workload=name,
                batch=SUBJECTS[name][1].get("batch", 1),
                shape=settings_text(shapes[name]),
            ),
            model_path=f"{HERE}:{BUILDERS[name]}",
        )
        for name in WORKLOADS
    }
    phases = SimpleNamespace(enter=lambda *_: None)
    found = estimate.run({"recipes": [recipe.as_dict() for recipe in recipes.values()]}, phases)["macs"]
    told = {name: found[recipe.case.key] for name, recipe in recipes.items()}
    assert {name: answer["why"] for name, answer in told.items()} == dict.fromkeys(WORKLOADS, "")
    for name, answer in told.items():
        skipped = {"encode", "decode"} if name == "split" else set()
        known = {part: count for part, count in PRODUCTS[name].items() if part not in skipped}
        if name == "sample":
            known["image"] += 2 * (12 + 20)  # a run has its conditioner and its decoder, which are counted apart
        assert answer["macs"] == known, name


class Searching(Writer):
    """Writes by the values that it finds, and has a parameter that goes into its layer as it is."""

    def __init__(self):
        super().__init__()
        self.begin = torch.nn.Parameter(torch.ones(1, 2))

    def prefill(self, ids):
        self.head(self.begin.expand(len(ids), -1))
        return super().prefill(ids)

    def write(self, ids, new):
        return ids[:, :1].expand(-1, new)


def searching():
    return Searching()


def test_a_part_that_goes_by_values_leaves_the_products_of_the_others_known():
    case = Case(suite="known", model="searching", workload="generate", batch=1, shape="context=4, new_tokens=2")
    recipe = Recipe(case, model_path=f"{__name__}:searching")
    found = estimate.run({"recipes": [recipe.as_dict()]}, SimpleNamespace(enter=lambda *_: None))["macs"][case.key]
    assert found["macs"]["request"] is None and found["macs"]["prefill"] == 2 * 2 * 11 and "values" in found["why"]
    times = dict(zip(found["macs"], parts_ms(found["macs"], case, None, 1), strict=True))
    assert times["request"] == parts_ms(None, case, None, 1)[0] > times["prefill"]


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_the_library_gives_the_layers_of_every_part(workload):
    make, shape = SUBJECTS[workload]
    subject = make()
    for part, count in PRODUCTS[workload].items():
        frame = bench.layers(subject.module, subject.args or None, workload=workload, shape=shape, part=part, repeats=1)
        assert frame["macs"].sum() == count, part


#: Milliseconds of what is made before a run: the calls that give it its input. A window of energy holds them.
#: What stands before a stage of a pipeline is made once and kept.
PREPARED = {
    ("split", "encode"): 1,
    ("split", "decode"): 3,
    ("split", "tail"): 6,
    ("training_step", "backward"): 2,
    ("training_step", "optimizer"): 2,
}


class Joules:
    """A counter of joules that follows the subject's own clock: 10 W while it runs, and as much when it does not."""

    name, scope, provenance, sampled, has_idle, method_note = "simulated", "package", "measured", False, False, ""
    check = None

    def __init__(self, clock):
        self.clock = clock

    def start(self):
        pass

    def stop(self):
        pass

    def poll(self):
        pass

    def raw(self):
        return None

    def conditions(self):
        return {}

    def shared_with(self):
        return None

    def mark(self):
        return self.clock.now

    def joules(self, begin, end):
        return 10.0 * (end - begin) / 1e9


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_every_part_has_the_joules_of_its_own_run(workload):
    make, shape = SUBJECTS[workload]
    subject = make()
    parts, _ = parts_of(workload, subject, **shape) if workload != "forward" else (forward_parts(subject), None)
    mode = torch.enable_grad if find(workload).grad else torch.inference_mode
    for name, milliseconds in MILLISECONDS[workload].items():
        with mode():
            parts[name].run()  # the first makes what later ones find
            found = meter.measure(
                as_step(parts[name]),
                SAMPLES[workload],
                Joules(subject.clock),
                windows=2,
                min_window_s=0.05,
                clock=lambda: subject.clock.now / 1e9,
                sleep=lambda seconds: subject.clock.pass_ms(1e3 * seconds),
            )
            share = prepared_share(parts[name], lambda: None, subject.clock)
        (gross,) = [row.value for row in found.readings() if row.metric == "energy_j"]
        whole = milliseconds + PREPARED.get((workload, name), 0)
        assert gross == pytest.approx(whole * 10e-3 / SAMPLES[workload]), name
        assert share == pytest.approx(1 - milliseconds / whole), name


def forward_parts(subject):
    return {part.name: part for part in module_of("forward").make_parts(subject, {"batch": 8, "resolution": None})}


class Sleeping:
    """A clock that passes the time for real."""

    def pass_ms(self, milliseconds):
        time.sleep(milliseconds / 1e3)


@pytest.mark.slow
@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_the_library_measures_every_part(workload):
    make, shape = SUBJECTS[workload]
    subject = make()
    subject.module.clock = Sleeping()
    for branch in subject.module.modules():
        if hasattr(branch, "clock"):
            branch.clock = Sleeping()
    protocol = Protocol(**{**QUICK, "energy": {"backend": "estimate", "watts": 10.0, "windows": 2, "window_s": 0.05}})
    frame = bench.measure(
        subject.module,
        subject.args or None,
        ["latency_ms", "macs", "peak_memory_bytes", "energy_j", "params"],
        protocol,
        workload=workload,
        shape={axis: given for axis, given in shape.items() if axis != "batch"},
        batch=shape.get("batch"),
    )
    found = frame.set_index(["metric", "part"])["value"]
    for part, milliseconds in MILLISECONDS[workload].items():
        assert milliseconds <= found["latency_ms", part] <= 20 * milliseconds + 50, part
        assert found["macs", part] == PRODUCTS[workload][part] / SAMPLES[workload]
        assert found["peak_memory_bytes", part] > 0 and found["energy_j", part] > 0


@pytest.mark.slow
def test_the_command_line_measures_every_workload(tmp_path):
    records = command_line(
        suite_folder(tmp_path),
        "protocol=quick",
        "protocol.latency.invocations=2",
        "protocol.latency.max_invocations=2",
        "protocol.latency.case_seconds=0.2",
        "protocol.latency.samples=12",
        "protocol.latency.min_samples=10",
        "protocol.latency.warmup_s=0",
        "protocol.latency.quiet_wait_s=0",
        "protocol.energy.backend=estimate",
        "protocol.energy.watts=10",
        "protocol.energy.windows=2",
        "protocol.energy.window_s=0.05",
        "counts=false",
    )
    assert set(records) == set(WORKLOADS)
    for workload, record in records.items():
        assert record["status"] in ("ok", "contaminated"), (workload, record["error"])
        for part, count in PRODUCTS[workload].items():
            assert value(record, "latency_ms", part) > 0, (workload, part)
            assert value(record, "macs", part) == pytest.approx(count / SAMPLES[workload])
            assert value(record, "energy_j", part) > 0 and value(record, "peak_memory_bytes", part) > 0
