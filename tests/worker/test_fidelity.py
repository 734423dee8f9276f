"""A case without a score says how far its outputs are from the other side's, or why nobody can say."""

from dataclasses import replace

import pytest
import torch

from bench.meters.stated import STATED
from bench.meters.table import METERS
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker import global_state, other_side
from bench.worker.probe import Probe
from bench.worker.ready import make_ready
from bench.worker.subject import build

MODEL = {"width": 16, "heads": 2, "depth": 3, "patch": 8, "resolution": 32, "classes": 5}


class Phases:
    def enter(self, name, case=None):
        pass


def recipe(method="none", path=None, settings=None, **changes):
    case = replace(Case(suite="s", model="m", method=method, setting=repr(settings), batch=2, resolution=32), **changes)
    return Recipe(case, "suites.common.vit:vit", MODEL, path, settings or {})


TOME = "suites.vit_tokens.tome:tome"
PLAIN = recipe()


def found(member, other=PLAIN):
    spec = {"recipe": member.as_dict(), "meters": ["fidelity"], "protocol": {}}
    probe = Probe({**spec, "other_side": None if other is None else other.as_dict()}, Phases())
    with torch.inference_mode():
        subject = build(member)
        ready = make_ready(subject)
        readings, details = probe.fidelity(subject, ready, ready.whole)
    return {item.metric: item for item in readings}, details


def test_the_error_is_that_of_the_two_modules_side_by_side():
    member = recipe("tome", TOME, {"r": 4})
    readings, details = found(member)
    with torch.inference_mode():
        ours, theirs = (subject.module(*subject.args) for subject in (build(member), build(PLAIN)))
    wanted = float((ours - theirs).norm() / theirs.norm())
    assert readings["output_error"].value == pytest.approx(wanted, rel=1e-5) and wanted > 0
    assert readings["output_error"].provenance == readings["top1_agreement"].provenance == "measured"
    assert details["numbers"] == 10


def test_a_method_that_removes_nothing_has_no_error():
    readings, _ = found(recipe("tome", TOME, {"r": 0}))
    assert readings["output_error"].value == pytest.approx(0, abs=1e-6)
    assert readings["top1_agreement"].value == 100.0


def test_another_precision_is_compared_with_the_same_weights():
    readings, _ = found(recipe(dtype="bf16"))
    assert 0 < readings["output_error"].value < 0.1


def test_other_weights_or_inputs_say_nothing_of_each_other():
    readings, _ = found(recipe(model="n"))
    # what a subject states of itself is not of these
    assert set(readings) == {"output_error", "output_sqnr_db", "top1_agreement"}
    assert readings["output_error"].value is None
    assert "has other weights or inputs: the sides differ in model" in readings["output_error"].method_note
    assert "batch" in other_side.why_unlike(PLAIN.case, replace(PLAIN.case, batch=1, dtype="bf16"))


@pytest.mark.parametrize("meter", [meter.name for meter in METERS if meter.section])
def test_no_meter_that_fails_has_a_row_for_what_subjects_state_of_themselves(meter):
    probe = Probe({"recipe": PLAIN.as_dict(), "meters": [], "protocol": {}}, Phases())
    assert not set(probe._metrics(meter)) & set(STATED)


def test_weights_that_nobody_trained_have_no_fidelity():
    readings, _ = found(recipe("stvit", "suites.vit_tokens.stvit:stvit", {"tokens": 4}))
    assert "set training_steps" in readings["output_error"].method_note


def test_a_baseline_has_no_other_side():
    assert found(PLAIN, None) == ({}, {})


def test_the_other_side_leaves_torch_as_it_was():
    before = global_state.read()
    one, two = (other_side.outputs_of(replace(PLAIN, case=replace(PLAIN.case, dtype="tf32"))) for _ in range(2))
    assert torch.equal(one[0], two[0]) and global_state.read() == before


def test_the_other_side_may_be_converted_inside_inference_mode():
    """Meters of a running case work in inference mode, and a converter traces weights that must be ordinary ones."""
    pytest.importorskip("onnxruntime")
    with torch.inference_mode():
        (converted,) = other_side.outputs_of(recipe(backend="onnxruntime"))
        (eager,) = other_side.outputs_of(PLAIN)
    torch.testing.assert_close(converted, eager, atol=1e-5, rtol=1e-5)
