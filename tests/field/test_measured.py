"""What breaks measurements in fresh processes in the field: state, gradients, settings, import paths, errors."""

import sys

import pytest
import torch
from torch import nn

import bench
from bench.errors import BenchError, UsageError
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.worker import subject
from bench.worker.parts import parts_of
from bench.worker.settle import settle
from tests.field import modules


def taken(module, inputs=None, metrics=("macs", "memory")):
    frame = bench.measure(module, torch.rand(4, 16) if inputs is None else inputs, metrics)
    values = dict(zip(frame["metric"], frame["value"], strict=True))
    return values, {flag["code"] for flag in frame.attrs["flags"]}


@pytest.mark.parametrize(
    ("made", "macs", "flag"),
    [
        (modules.Masked, 128, "not_finite"),
        (modules.Draws, 128, "changing_output"),
        (modules.Forces, 1088, "takes_gradients"),
        (modules.Cache, 256, "changes_state"),
        (modules.InPlace, 128, "changes_state"),
    ],
)
def test_modules_that_need_more_than_a_call_lose_nothing(made, macs, flag):
    values, flags = taken(made())
    assert values["macs"] == macs
    assert values["peak_memory_bytes"] > 0
    assert flag in flags


@pytest.mark.parametrize("made", [lambda m: torch.export.export(m, (torch.rand(4, 16),)).module(), torch.jit.script])
def test_exported_and_scripted_modules_travel(made):
    values, _ = taken(made(nn.Linear(16, 8, bias=False)))
    assert (values["macs"], values["peak_memory_bytes"] > 0) == (128, True)


def test_settings_of_the_callers_process_reach_the_worker():
    try:
        torch.set_default_dtype(torch.float64)
        values, _ = taken(modules.MakesTensors(), torch.rand(4, 16))
    finally:
        torch.set_default_dtype(torch.float32)
    assert values["peak_memory_bytes"] > 0


def test_the_import_path_of_the_callers_process_reaches_the_worker(tmp_path, monkeypatch):
    (tmp_path / "a_net_beside.py").write_text(
        "from torch import nn\n\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(16, 8, "
        "bias=False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    values, _ = taken(__import__("a_net_beside").Net())
    assert values["macs"] == 128
    sys.modules.pop("a_net_beside")


def test_an_error_in_a_worker_shows_the_users_own_lines():
    with pytest.raises(BenchError, match=r"modules\.py, line") as told:
        taken(modules.Fails(), metrics=["memory"])
    assert "bench/worker" not in str(told.value)


def recipe(builder, batch=1):
    case = Case(suite="t", model=builder, batch=batch)
    return Recipe(case, f"tests.field.modules:{builder}")


def test_inputs_of_a_builder_are_read_as_those_of_measure():
    made = subject.build(recipe("builds_keywords", batch=3))
    assert made.module(*made.args, **made.kwargs).shape == (3, 8)


def test_a_builder_whose_inputs_hold_another_batch_than_the_row_is_refused():
    with pytest.raises(UsageError, match="4 samples"):
        subject.build(recipe("builds_four"))
    assert subject.build(recipe("builds_four", batch=4)).args[0].shape == (4, 16)


def test_a_model_of_text_that_gets_an_image_is_told_how_to_get_its_own_input():
    made = subject.build(recipe("takes_text"))
    with pytest.raises(Exception, match="") as told:
        settle(made, parts_of(made)[0], lambda run: run() and 0.0)
    assert "example_inputs" in told.value.__notes__[0]


@pytest.mark.parametrize("made", [modules.Cache, modules.InPlace])
def test_every_run_of_a_settled_part_is_of_the_same_state(made):
    module, x = made(), torch.rand(4, 16)
    given = x.clone()
    built = subject.Subject(Case(suite="t", model="m", batch=4), module, (x,), {}, {"kind": "given"})
    with torch.inference_mode():
        settled = settle(built, parts_of(built)[0], lambda run: 0.0 * bool(run() is None))
        outputs = [settled.part.run().clone() for _ in range(5)]
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert torch.equal(x, given)


def test_what_a_first_forward_makes_once_is_no_state():
    class Lazy(modules.Base):
        def forward(self, x):
            if not hasattr(self, "table"):
                self.table = torch.ones(16)
            self.noted = [x.shape[0]]
            return self.a(x * self.table)

    built = subject.Subject(Case(suite="t", model="m", batch=4), Lazy(), (torch.rand(4, 16),), {}, {"kind": "given"})
    settled = settle(built, parts_of(built)[0], lambda run: 0.0 * bool(run() is None))
    assert (settled.part.reset, settled.flags) == (None, ())
