"""Simulated machines: what a sum finds, what a constant mends, and what nothing mends; leaks; splits."""

import dataclasses

import pytest

from bench.errors import UsageError
from bench.meters.quality import Run
from suites.predict import simulated, splits
from suites.predict.costs import MeasuredCosts
from suites.predict.lessons import sound, taught
from suites.predict.measured import Cost, Measured, Measurements
from suites.predict.networks import named
from suites.predict.predictor import Knowledge
from suites.predict.predictors import table_predictor, wa_mlp


def judged(tmp_path, build=table_predictor, **settings):
    task, module = MeasuredCosts(tmp_path, 0, results=str(tmp_path / "none")), build(**settings)
    task.load(module, "predictor")
    return task.evaluation(module), task.score(Run(module)), module


def test_a_sum_has_no_error_on_an_additive_machine(tmp_path):
    for split in ("a", "b"):
        found, score, _ = judged(tmp_path, machine="additive", split=split)
        assert score.value < 1e-9 and found.simulated and not found.unpredicted
        assert max(abs(p / y - 1) for y, p in zip(found.measured, found.predicted, strict=True)) < 1e-12


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_a_constant_for_each_operator_is_recovered(tmp_path, kind):
    plain, _, _ = judged(tmp_path, machine="constant")
    found, score, module = judged(tmp_path, machine="constant", kind=kind)
    assert float(module.weights[1]) == pytest.approx(simulated.LAUNCH_MS, rel=0.01)
    assert score.value < 0.01 and len(plain.names) == len(found.names) > 10
    assert all(p < y for y, p in zip(plain.measured, plain.predicted, strict=True))  # the sum alone is low


def test_a_cache_is_not_recovered_by_any_constant(tmp_path):
    _, score, _ = judged(tmp_path, machine="cached")
    _, mended, _ = judged(tmp_path, machine="cached", kind="linear")
    assert score.value > 5 and mended.value > 0.5


def test_products_alone_and_the_roofline_are_further_off_than_the_table(tmp_path):
    _, bar, _ = judged(tmp_path, machine="additive", kind="macs")
    assert bar.value > 1
    _, line, _ = judged(tmp_path, machine="additive", kind="roofline")
    assert line.value < 1e-3  # the additive machine is a roofline


def test_trees_say_something_of_rows_that_were_never_measured(tmp_path):
    found, score, _ = judged(tmp_path, machine="additive", kind="trees", split="c")
    assert {"mobilenetv2", "dense", "conv", "exemplars"} == set(found.families) and not found.unpredicted
    assert score.value < 200


def test_trees_of_a_family_without_rows_learn_from_its_networks(tmp_path):
    found, score, module = judged(tmp_path, machine="additive", kind="trees", family="dense")
    assert not module.by_row and module.learns and set(found.families) == {"dense"}
    _, bar, _ = judged(tmp_path, machine="additive", kind="macs", family="dense")
    assert score.value < 100 and bar.value < 100 and found.budget is not None


def test_the_table_says_nothing_of_families_without_rows_and_says_so(tmp_path):
    here = simulated.measurements("additive")
    table = {key: cost for key, cost in here.rows["plain", "warm"].items() if not key.startswith("dense")}
    module = table_predictor(split="c")
    lesson = taught(dataclasses.replace(here, rows={("plain", "warm"): table}), None, module)
    module.fit(lesson.known)
    assert "is not in the table" in module.lacks(named("jet_tagging")) and not module.lacks(named("mobilenetv2_50"))


def test_entries_that_do_not_repeat_are_refused_with_the_networks_that_need_them():
    rows = {"one": Cost((1.0, 1.05)), "two": Cost((1.0, 1.2)), "three": Cost((1.0,))}
    usable, refused = sound(rows)
    assert list(usable) == ["one", "three"] and "13 %" in refused["two"]
    network = named("jet_tagging")
    keys = {row.key: Cost((0.1, 0.1)) for row in network.rows}
    bad = network.rows[1].key
    module = table_predictor()
    module.fit(Knowledge((), {k: v for k, v in keys.items() if k != bad}, refused={bad: "it differs by 30 %"}))
    assert module.lacks(network) == "it differs by 30 %"


def test_what_is_judged_on_is_refused_in_training_so_that_adding_it_changes_nothing(tmp_path):
    here = simulated.measurements("constant")
    halves = splits.split(here, ("plain", "warm"), "fbnet", "a")
    leaky = splits.halves([*halves.training, *halves.held_out[:5]], halves.held_out)
    assert leaky.training == halves.training and len(leaky.refused) == 5
    renamed = Measured(dataclasses.replace(halves.held_out[0].network, name="another"), halves.held_out[0].cost)
    assert splits.halves([renamed], halves.held_out).training == ()  # by what it computes, not by its name
    scores = []
    for each in (halves, leaky):
        module = table_predictor(kind="constant")
        module.fit(Knowledge(each.training, here.rows["plain", "warm"]))
        scores.append(module.predict([item.network for item in halves.held_out]))
    assert scores[0] == scores[1]


def test_splits_are_what_they_say():
    here = simulated.measurements("additive")
    way = ("plain", "warm")
    for how in ("a", "b", "c"):
        halves = splits.split(here, way, "dense", how)
        keys = [{item.network.key for item in side} for side in (halves.training, halves.held_out)]
        assert keys[0] and keys[1] and not keys[0] & keys[1]
    larger = splits.split(here, way, "dense", "b")
    depth = max(item.network.depth for item in larger.training)
    width = max(item.network.width for item in larger.training)
    assert all(item.network.depth > depth or item.network.width > width for item in larger.held_out)
    assert {item.network.family for item in splits.split(here, way, "dense", "c").held_out} == {
        "fbnet", "mobilenetv2", "conv", "exemplars",
    }  # fmt: skip
    elsewhere = splits.split(here, way, "fbnet", "d", here)
    assert len(elsewhere.training) == len(elsewhere.held_out)
    assert splits.split(here, way, "fbnet", "d").training == ()


def test_too_little_to_learn_from_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(UsageError, match="suite=predict"):
        table_predictor(kind="linear").fit(Knowledge((), {"row": Cost((1.0,))}))
    with pytest.raises(UsageError, match="no table"):
        table_predictor().fit(Knowledge(()))
    with pytest.raises(UsageError, match="calibrate"):
        table_predictor(kind="roofline").fit(Knowledge(()))
    with pytest.raises(UsageError, match="nothing was measured"):
        judged(tmp_path)


def test_a_small_surrogate_learns_an_additive_machine_and_is_kept(tmp_path):
    small = {"width": 64, "steps": 150, "machine": "additive"}
    found, score, _ = judged(tmp_path, wa_mlp, **small)
    assert score.value < 60 and len(found.names) > 20  # chance, the median cost for all, is above 200 %
    files = list((tmp_path / "measured_costs").glob("*.safetensors"))
    _, again, _ = judged(tmp_path, wa_mlp, **small)
    assert again == score and list((tmp_path / "measured_costs").glob("*.safetensors")) == files


def test_measurements_without_networks_hold_out_nothing():
    assert splits.split(Measurements(), ("plain", "warm"), "fbnet", "b").held_out == ()
