"""The operator bench: every operator is what it says, trials catch what is wrong, means are geometric."""

import math

import pytest
import torch
import torch.nn.functional as F

from suites.ops.bench_operators import CATEGORIES, NO_GRADIENT, OPERATORS, bench_operator, geometric_means
from suites.ops.trials import forbidden_calls, run_trials
from tests.suites.ops.agree import apart


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_agrees_with_itself_in_double(name):
    operator = bench_operator(name=name)
    assert apart(operator, checked=True) <= operator.tolerance


def test_categories_are_those_of_the_original_and_each_has_members():
    assert sum(CATEGORIES.values()) == 285
    assert {entry.category for entry in OPERATORS.values()} == set(CATEGORIES) and len(OPERATORS) >= 60


def test_inputs_are_never_constant_and_follow_the_seed():
    for name in ("relu", "where", "int8", "embedding"):
        one, other = (bench_operator(name=name).check_args(seed) for seed in (0, 1))
        assert all((x != x.flatten()[0]).any() for x in one)
        assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_gradients_are_taken_where_there_are_some():
    for name in ("layer_norm", "conv2d", "resnet_block", "cross_entropy"):
        assert apart(bench_operator(name=name, backward=True), checked=True) < 1e-4
    for name in NO_GRADIENT:
        with pytest.raises(ValueError, match="backward=False"):
            bench_operator(name=name, backward=True)


def relu_of(x):
    return x.clamp(min=0)


def test_trials_pass_what_is_right_and_say_what_is_wrong():
    def inputs(seed):
        return (torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)),)

    assert [trial.reason for trial in run_trials(relu_of, F.relu, inputs)] == [""] * 5
    assert all("shapes" in trial.reason for trial in run_trials(lambda x: F.relu(x)[:4], F.relu, inputs))
    assert all("off" in trial.reason for trial in run_trials(lambda x: F.relu(x) + 1e-2, F.relu, inputs))
    constant = run_trials(lambda x: torch.full_like(x, 0.4), F.relu, inputs)  # the right mean, and wrong
    assert all(trial.reason for trial in constant)
    assert all(trial.reason == "" for trial in run_trials(lambda x: x.clamp_(min=0), F.relu, inputs))  # its own copies


def test_a_candidate_that_calls_what_it_replaces_is_found():
    assert forbidden_calls(relu_of, ["relu", "clamp"]) == ["clamp"]
    with pytest.raises(ValueError, match="cannot be read"):
        forbidden_calls(math.sqrt, ["relu"])


def test_means_are_geometric_and_by_category():
    found = geometric_means([("relu", 2.0), ("gelu", 8.0), ("square", 1.0)])
    assert found == {"activation": pytest.approx(4.0), "matmul": pytest.approx(1.0)}
    with pytest.raises(ValueError, match="above 0"):
        geometric_means([("relu", 0.0)])
