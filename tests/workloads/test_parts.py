"""Parts of every workload: each has its own time, runs repeat bit for bit, counts and bytes are known ones."""

import pytest
import torch

import bench
from bench.meters import macs
from bench.workloads import WORKLOADS, module_of
from bench.workloads.counting import count_part
from tests.workloads.subjects import (
    Causal,
    Chain,
    Denoiser,
    Doubling,
    FakeBuilt,
    Halves,
    Learner,
    Weighing,
    Writer,
    parts_of,
    subject_of,
    timed,
)


def learner():
    return subject_of(Learner, torch.randn(8, 4, generator=torch.Generator().manual_seed(3)))


def halves():
    return subject_of(Halves, torch.randn(2, 4, generator=torch.Generator().manual_seed(3)))


CASES = {
    "generate": (lambda: subject_of(Writer), {"context": 6, "new_tokens": 4}),
    "sample": (lambda: subject_of(Denoiser), {"steps": 4, "batch": 2}),
    "stream": (lambda: subject_of(Causal), {"batch": 3}),
    "training_step": (learner, {"batch": 8}),
    "pipeline": (lambda: subject_of(Chain), {}),
    "split": (halves, {"batch": 2}),
    "operator": (lambda: subject_of(Doubling), {}),
    "prediction": (lambda: subject_of(Weighing, torch.ones(2, 3)), {"batch": 2}),
}

#: Milliseconds of every part, by hand: generate is 5 + 3 x 2; the image 3 + (1 + 2 + 3 + 4) + 4 and its middle step 2
#: is 3; a period of the stream is a step of 1 and one of 3; a training step is one forward of 2 and nothing else known.
DURATIONS = {
    "generate": {"request": 11, "prefill": 5, "decode": 2},
    "sample": {"image": 17, "step": 3},
    "stream": {"step": 4, "clip": 7},
    "training_step": {"step": 2, "forward": 2, "backward": 0, "optimizer": 0},
    "pipeline": {"request": 7, "decode": 1, "infer": 4, "post": 2},
    "split": {"request": 10, "head": 1, "encode": 2, "decode": 3, "tail": 4},
    "operator": {"call": 6},
    "prediction": {"predict": 3},
}

#: MACs of every part, by hand: the head of the writer is 2 x 11, once per token; a step of the denoiser 2 images x 16
#: per evaluation, 1 + 2 + 1 + 2 of them, its middle step has one; the mixing of the stream 3 streams x 6 x 4 once a
#: period, and of its window of 6 steps the outputs at steps 3 and 5; the learner 8 x (4 x 6 + 6 x 3), and backward the
#: same without the first layer's input gradient for the inputs, and again for the weights.
MACS = {
    "generate": {"request": 4 * 22, "prefill": 22, "decode": 22},
    "sample": {"image": 6 * 32, "step": 32},
    "stream": {"step": 72, "clip": 2 * 72},
    "training_step": {"step": 8 * 42 * 3 - 8 * 24, "forward": 8 * 42, "backward": 8 * 42 * 2 - 8 * 24, "optimizer": 0},
    "pipeline": {"request": 8, "decode": 0, "infer": 8, "post": 0},
    "split": {"request": 2 * 8 + 2 * 6, "head": 16, "encode": 0, "decode": 0, "tail": 12},
    "operator": {"call": 60},
    "prediction": {"predict": 2 * 3},
}


def numbers(value):
    """A result as plain numbers, exactly."""
    if isinstance(value, torch.Tensor):
        return value.detach().double().tolist()
    if isinstance(value, dict):
        return {name: numbers(item) for name, item in value.items()}
    return [numbers(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.fixture(params=sorted(CASES))
def workload(request):
    return request.param


def test_every_workload_of_the_room_is_tested_here():
    assert set(CASES) == set(WORKLOADS) - {"forward"}


def test_parts_are_the_workload_s_own_and_the_first_is_the_whole(workload):
    make, shape = CASES[workload]
    parts, whole = parts_of(workload, make(), **shape)
    declared = module_of(workload).WORKLOAD.parts
    assert tuple(parts)[: len(declared)] == declared
    axes = [axis for axis in module_of(workload).WORKLOAD.axes if not axis.late or axis.name in shape]
    assert set(whole) == {axis.name for axis in axes}


def test_the_time_of_each_part_is_its_own_and_the_same_every_time(workload):
    make, shape = CASES[workload]
    subject = make()
    parts, _ = parts_of(workload, subject, **shape)
    for _ in range(3):
        for name, part in parts.items():
            grad = module_of(workload).WORKLOAD.grad
            with torch.enable_grad() if grad else torch.inference_mode():
                assert timed(part, subject.clock) == pytest.approx(DURATIONS[workload][name]), name


def test_runs_in_any_order_give_the_same_outputs_bit_for_bit(workload):
    make, shape = CASES[workload]
    subject = make()
    parts, _ = parts_of(workload, subject, **shape)
    cycle = {"pipeline": Chain.requests, "stream": 8}.get(workload, 1)
    with torch.no_grad():
        first = {name: [numbers(part.run()) for _ in range(cycle)] for name, part in parts.items()}
        for name, part in reversed(parts.items()):
            assert [numbers(part.run()) for _ in range(cycle)] == first[name], name


def test_a_part_timed_in_inference_mode_can_be_counted_and_timed_again(workload):
    make, shape = CASES[workload]
    subject = make()
    parts, _ = parts_of(workload, subject, **shape)
    for part in parts.values():
        for context in (torch.inference_mode(), torch.no_grad(), torch.inference_mode()):
            with context:
                part.run()


def test_each_part_has_its_own_known_count(workload):
    make, shape = CASES[workload]
    subject = make()
    parts, _ = parts_of(workload, subject, **shape)
    found = {name: count_part(subject.module, part, macs.count) for name, part in parts.items()}
    assert {name: count.executed_macs for name, count in found.items()} == MACS[workload]
    assert {name for name, count in found.items() if count.at_least} == set()


def test_counting_leaves_the_subject_as_it_was(workload):
    make, shape = CASES[workload]
    subject = make()
    before = {name: value.clone() for name, value in subject.module.state_dict().items()}
    parts, _ = parts_of(workload, subject, **shape)
    for part in parts.values():
        count_part(subject.module, part, macs.count)
    assert all(torch.equal(before[name], value) for name, value in subject.module.state_dict().items())
    assert not any(module.training for module in subject.module.modules())
    assert all(parameter.grad is None for parameter in subject.module.parameters())


def test_operators_of_a_part_have_the_module_paths_of_the_subject():
    subject = subject_of(Writer)
    parts, _ = parts_of("generate", subject, context=6)
    count = count_part(subject.module, parts["decode"], macs.count)
    assert {record.path for record in count.records if record.macs} == {"head"}
    assert {"head", "embed"} <= set(count.visits)


def test_parts_are_counted_alike_where_there_are_shapes_only(workload):
    make, shape = CASES[workload]
    real = make()
    with torch.device("meta"):
        module = type(real.module)().eval()
    subject = FakeBuilt(module, tuple(arg.to("meta") for arg in real.args), device="meta")
    parts, _ = parts_of(workload, subject, **shape)
    found = {name: count_part(module, part, macs.count).executed_macs for name, part in parts.items()}
    skipped = {"encode", "decode"} if workload == "split" else set()
    assert found == {name: count for name, count in MACS[workload].items() if name not in skipped}


def test_inputs_that_a_workload_makes_have_the_dtype_of_the_case():
    for workload in ("sample", "stream", "operator"):
        make, shape = CASES[workload]
        subject = make()
        subject.module.double()
        subject.dtype = torch.float64
        parts, _ = parts_of(workload, subject, **shape)
        assert all(part.run() is not None for part in parts.values())


def test_a_workload_from_outside_the_package_is_found_by_its_dotted_path():
    found = module_of("tests.workloads.own_workload")
    shape = found.WORKLOAD.shape({"turns": 3})
    subject = subject_of(Chain)
    parts = found.make_parts(subject, shape)
    assert [part.name for part in parts] == ["turns"]
    assert timed(parts[0], subject.clock) == pytest.approx(12)


def test_stages_never_take_longer_than_the_whole():
    subject = subject_of(Chain)
    parts, _ = parts_of("pipeline", subject)
    whole = timed(parts["request"], subject.clock)
    assert sum(timed(part, subject.clock) for name, part in parts.items() if name != "request") <= whole
    assert {name: sum(times) for name, times in parts["request"].spans().items()} == {
        "decode": 1,
        "infer": 4,
        "post": 2,
    }


def test_the_library_gives_the_layers_of_a_part():
    shape = {"batch": 2, "context": 6, "new_tokens": 4}
    frame = bench.layers(Writer(), workload="generate", shape=shape, part="decode", repeats=2)
    assert dict(zip(frame["module_path"], frame["macs"], strict=True)) == {"embed": 0, "": 0, "head": 2 * 22}
    whole = bench.layers(Writer(), workload="generate", shape=shape, repeats=2)
    assert whole["macs"].sum() == 4 * 2 * 22
