"""The library: published counts, any module, a table with units and provenance, and nothing left changed."""

import pytest
import torch
from torch import nn

import bench
from bench.errors import BenchError, UsageError
from bench.meters import handed_over
from bench.plan.case import Case
from bench.plan.recipe import Recipe
from bench.reading import COLUMNS
from bench.worker import subject
from tests.sweeping import QUICK
from tests.synthetic import store

pytestmark = pytest.mark.usefixtures("shared_server")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x, scale=None):
        y = self.second(torch.relu(self.first(x)))
        return y if scale is None else y * scale


def value(frame, metric):
    return frame.set_index("metric").loc[metric, "value"]


@pytest.mark.parametrize(
    ("model", "method", "settings", "gmacs"),
    [
        ("deit_tiny", "none", {}, 1.2537),
        ("deit_small", "none", {}, 4.5989),
        ("deit_small", "tome", {"r": 13}, 2.7027),
        ("deit_small", "evit", {"keep_rate": 0.7}, 3.0293),
    ],
)
def test_published_counts_to_a_tenth_of_a_percent(model, method, settings, gmacs):
    module, inputs = bench.build(model, method, resolution=224, **settings)
    assert inputs[0].shape == (1, 3, 224, 224)
    frame = bench.measure(module, inputs, metrics=["macs"])
    assert value(frame, "macs") / 1e9 == pytest.approx(gmacs, rel=1e-3)


def test_a_methods_own_matching_is_a_row_of_its_own():
    frame = bench.measure(*bench.build("deit_small", "tome", r=13), metrics=["macs"])
    matching = value(frame, "macs_method")
    assert matching / 1e9 == pytest.approx(0.0034, rel=0.01)
    layer_norms = 5 * 384 * (sum(197 - 13 * i for i in range(12)) + sum(184 - 13 * i for i in range(12)) + 41)
    assert value(frame, "macs_fvcore") == value(frame, "macs") + matching + layer_norms


def test_counts_are_per_sample_whatever_the_batch():
    one, four = (bench.measure(*bench.build("deit_tiny", batch=batch), metrics=["macs"]) for batch in (1, 4))
    assert value(one, "macs") == value(four, "macs")


def test_any_module_gives_the_tidy_table_with_other_conventions_as_rows():
    frame = bench.measure(Net(), torch.randn(3, 8), metrics=["macs", "params"])
    assert list(frame.long.columns)[: len(COLUMNS)] == list(COLUMNS)
    assert value(frame, "macs") == 8 * 16 + 16 * 4
    assert value(frame, "params") == 8 * 16 + 16 + 16 * 4 + 4
    assert {"macs", "macs_fvcore"} <= set(frame["metric"])
    assert set(frame["unit"][frame["metric"] == "macs"]) == {"MAC"}
    assert set(frame["provenance"]) <= {"counted", "measured", "unavailable"}


def test_keyword_inputs_and_single_metrics():
    inputs = {"x": torch.randn(2, 8), "scale": torch.ones(1)}
    frame = bench.measure(Net(), inputs, metrics=["macs_fvcore"])
    assert list(frame["metric"]) == ["macs_fvcore"]


@pytest.mark.slow
def test_timing_a_local_class_in_fresh_processes_against_a_baseline():
    class Local(Net):
        pass

    from bench.config.protocol import Protocol

    frame = bench.measure(
        Local(), (torch.randn(2, 8),), metrics=["latency", "memory"], protocol=Protocol(**QUICK), baseline=Net()
    )
    own = frame.long[frame.long["method"] == "Local"].set_index("metric")
    assert own.loc["latency_ms", "n"] == 2 and own.loc["latency_ms", "value"] > 0
    assert own.loc["speedup", "value"] > 0
    assert own.loc["peak_memory_bytes", "value"] > 0


@pytest.mark.slow
def test_a_module_of_half_precision_is_measured_and_recorded_as_one():
    from bench.config.protocol import Protocol

    module, x = Net().to(torch.bfloat16), torch.randn(2, 8, dtype=torch.bfloat16)
    frame = bench.measure(
        module, x, metrics=["latency"], protocol=Protocol(**QUICK), baseline=Net().to(torch.bfloat16)
    ).long
    assert set(frame["dtype"]) == {"bf16"} and frame["case_key"].nunique() == 2
    assert frame["baseline_key"].nunique() == 1 and frame[frame["metric"] == "latency_ms"]["value"].gt(0).all()
    assert set(bench.measure(module, x, metrics=["macs"]).long["dtype"]) == {"bf16"}
    assert set(bench.measure(nn.Identity(), x, metrics=["params"]).long["dtype"]) == {"fp32"}


def test_inputs_that_were_handed_over_are_never_cast(tmp_path):
    given = (
        torch.zeros(2, dtype=torch.float64),
        {"x": torch.zeros(2, 3, 4, 4, dtype=torch.float16)},
        torch.tensor([1]),
    )
    path = tmp_path / "given.pickle"
    handed_over.write(path, Net(), given, {"scale": torch.ones(1, dtype=torch.bfloat16)})
    made = subject.build(Recipe(Case(suite="t", model="m"), pickle=str(path)))
    assert [made.args[0].dtype, made.args[1]["x"].dtype, made.args[2].dtype] == [
        torch.float64,
        torch.float16,
        torch.int64,
    ]
    assert made.kwargs["scale"].dtype == torch.bfloat16


def test_measuring_leaves_the_module_as_it_was():
    module = Net().train()
    module.second.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    bench.measure(module, torch.randn(1, 8), metrics=["macs", "params"])
    bench.layers(module, torch.randn(1, 8), repeats=2)
    assert module.training and module.first.training and not module.second.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_layers_is_a_frame_whose_totals_are_the_whole():
    frame = bench.layers(Net(), torch.randn(3, 8), repeats=3)
    assert frame["macs"].sum() == 3 * (8 * 16 + 16 * 4)
    assert {"module_path", "op", "read_bytes", "write_bytes", "time_ms", "share", "intensity"} <= set(frame.columns)
    assert frame.attrs["info"]["end_to_end_ms"] > 0
    shown = frame.shown()
    assert list(shown.columns) == ["layer", "kind", "MACs", "moved", "time", "share"] and len(shown) == len(frame)
    assert "the whole run takes" in repr(frame) and "second" in frame._repr_html_()


def test_a_module_that_fails_is_told_with_its_phase():
    from bench.config.protocol import Protocol
    from tests.faults.models import wrong_value

    with pytest.raises(BenchError, match="does not take"):
        bench.measure(wrong_value(), torch.randn(1, 3, 8, 8), metrics=["latency"], protocol=Protocol(**QUICK))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bench.build("deit_smal"), 'did you mean "deit_small"'),
        (lambda: bench.build("deit_small", "tom"), 'did you mean "tome"'),
        (lambda: bench.build("deit_small", "tome", rr=3), 'has the setting "rr"'),
        (lambda: bench.build("deit_small", "evit", keep_rate=3.0), "keep_rate=3.0 is not valid"),
        (lambda: bench.build("deit_small", checkpoint="/no/such.pth"), "no file /no/such.pth"),
        (lambda: bench.measure(Net(), torch.randn(1, 8), metrics=["mac"]), 'did you mean "macs"'),
        (lambda: bench.measure(Net(), torch.randn(1, 8), metrics=["latency"], protocol="fast"), "does not exist"),
        (lambda: bench.measure(Net(), torch.randn(1, 8), metrics=["macs"], protocol="fast"), "does not exist"),
        (lambda: bench.layers(Net()), "no inputs were given"),
    ],
)
def test_wrong_calls_name_the_right_one(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_the_same_seed_builds_the_same_weights():
    (a, x), (b, y) = bench.build("deit_tiny", seed=3), bench.build("deit_tiny", seed=3)
    assert torch.equal(x[0], y[0])
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_load_gives_the_tidy_table_of_a_results_folder(tmp_path):
    store(tmp_path)
    frame = bench.load(tmp_path)
    assert list(frame.columns)[: len(COLUMNS)] == list(COLUMNS) and len(frame) > 50
