"""A plan says which rows cannot be built or run before anything is measured, and why, in the user's own terms."""

import pytest

from bench.api import protocol_named
from bench.app import counted_before, forecast
from bench.app.jobs import plan as plan_job
from bench.canonical import OWN_NETWORKS
from bench.config import catalogue
from bench.plan import plan
from tests.sweeping import HEALTHY, configuration, sweep

BROKEN = """
import torch


def fine(width=4):
    return torch.nn.Linear(width, width), (torch.randn(1, width),)


def broken():
    raise RuntimeError("my own bug")


class NoImages(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(256, 8)

    def forward(self, x):
        return self.layer(x)


def gives_nothing(model):
    return None


class ByValue(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


def by_value():
    return ByValue(), (torch.randn(1, 4),)
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_rows_that_cannot_be_run_are_told_with_the_line_of_the_users_code(nets, capsys):
    models = [f"own_nets:{name}" for name in ("fine", "broken", "NoImages", "by_value")]
    config = configuration(nets, models, ["none", "own_nets:gives_nothing"])
    assert plan_job.run(config) == 0
    told = capsys.readouterr().out
    assert "RuntimeError: my own bug (" in told and "own_nets.py, line 10, in broken" in told
    assert "own_nets:fine · own_nets:gives_nothing · batch 1 and 2 more: " in told
    assert "returned None: end it with `return model`" in told
    assert "was given a batch of images (1x3x224x224)" in told
    assert "2 to measure" in told  # what reads values cannot be counted on shapes, and is run for real instead
    assert not (nets / "results").exists()


def test_what_was_counted_for_a_plan_is_not_counted_again_for_the_run(tmp_path, monkeypatch, shared_server):
    config = configuration(tmp_path, [HEALTHY])
    made = plan.make(config, catalogue.load())
    first = forecast.group_seconds(config, made)
    monkeypatch.setattr(forecast, "Workers", Unasked)
    assert forecast.group_seconds(config, made) == first
    kept = tmp_path / "cache" / counted_before.FILE
    for broken in ("{", "[]", '{"version": "0.0", "cases": {}}'):
        kept.write_text(broken)
        assert counted_before.read(kept.parent) == {}


def never(*_):
    raise AssertionError("a process was started")


class Unasked:
    """Workers that nobody may ask."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    run = never


def test_a_network_that_was_named_by_a_path_has_a_suite_of_its_own(nets):
    asked = configuration(nets, ["own_nets:fine"], model="own_nets:fine")
    made = plan.make(asked, catalogue.load())
    assert {case.suite for case in made.cases} == {made.suite.name} == {OWN_NETWORKS}
    lent = plan.make(configuration(nets, ["own_nets:fine"]), catalogue.load())
    assert lent.suite.name == "tiny" and [case.key for case in lent.cases] == [case.key for case in made.cases]


def test_nothing_is_counted_or_tried_where_everything_is_measured(nets, monkeypatch, capsys):
    config = configuration(nets, ["own_nets:fine"])
    sweep(config)

    monkeypatch.setattr(forecast, "Workers", never)
    made = plan.make(config, catalogue.load())
    assert forecast.unfinished_groups(config, made) == []
    assert forecast.group_seconds(config, made, []) == {}
    assert plan_job.run(config) == 0
    assert "nothing to measure" in capsys.readouterr().out


@pytest.mark.parametrize(("state", "said"), [("contaminated", "1 disturbed by other work"), ("crashed", "1 failed")])
def test_what_measures_rows_again_is_told_with_the_time_that_it_takes(nets, monkeypatch, capsys, state, said):
    def expected(config, made, groups, workers):
        return forecast.Forecast({group.key: 300.0 for group in groups})

    monkeypatch.setattr(plan_job, "forecast", expected)
    monkeypatch.setattr(plan_job, "_state", lambda *_: state)
    assert plan_job.run(configuration(nets, ["own_nets:fine"])) == 0
    told = capsys.readouterr().out
    assert "nothing to measure" in told
    assert f"{said}: retry={said.split()[1]} measures it again, about 5 min" in told


def test_a_method_that_does_not_fit_the_catalogue_network_it_was_given_to_is_told(tmp_path, capsys):
    grid = {"models": ["deit_tiny"], "methods": ["evit(keep_rate=0.7)"]}
    suite = {"name": "tiny", "grids": {"default": [grid]}}
    picked = {**suite, "models": ["mobilenet_v2"], "methods": ["tome(r=8)"]}
    config = configuration(tmp_path, [], suite=picked, protocol=protocol_named("counts").model_dump(exclude_unset=True))
    assert plan_job.run(config) == 0
    told = capsys.readouterr().out
    assert "1 cannot be run; 1 to measure" in told and "cannot be run: mobilenet_v2 · tome(r=8) · " in told

    def suspects(**given):
        config = configuration(tmp_path, [], suite={**suite, **given})
        made = plan.make(config, catalogue.load())
        states = dict.fromkeys((case.key for case in made.cases), plan_job.TO_MEASURE)
        return [case.label for case in plan_job._suspects(config, made, states, forecast.Forecast({}))]

    assert suspects() == suspects(models=["deit_tiny"]) == []  # the suite has put these together itself
    assert len(suspects(resolutions=[192])) == 2


def test_a_task_that_scores_no_model_of_the_plan_is_told_and_not_dropped_in_silence(nets):
    config = configuration(nets, ["own_nets:fine"], task={"name": "digits"})
    made = plan.make(config, catalogue.load())
    assert made.unscored.startswith("task=digits has no weights for own_nets:fine: their cost is measured")
    assert plan.make(configuration(nets, ["own_nets:fine"]), catalogue.load()).unscored == ""
