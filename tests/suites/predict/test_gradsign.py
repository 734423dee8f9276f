"""GradSign: the sum of signs by hand, scores of named networks, and ranks without costs."""

import pytest
import torch
from torch import nn

from bench.meters.quality import QualityError
from suites.predict.gradsign import agreement, score_of
from suites.predict.measured import Cost, Measured, Measurements
from suites.predict.networks import of_layers
from suites.predict.predictors import gradsign
from tests.suites.predict.test_measured import Folder


def test_the_score_is_the_sum_of_absolute_sums_of_signs():
    module = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        module.weight.zero_()
    inputs, labels = torch.tensor([[1.0, -1.0], [1.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 0, 1])
    # at zero weights the gradient of logit k is (1/2 - [k is the label]) x: signs -, -, + times the signs of x
    first = torch.sign(-inputs[0]) + torch.sign(-inputs[1]) + torch.sign(inputs[2])
    assert agreement(module, inputs, labels) == float(2 * first.abs().sum())


def test_scores_are_of_the_named_network_and_seeded():
    small, wide = (score_of(f"digits_cnn(width={width}) @16", 4, 0) for width in (2, 8))
    assert wide > small > 0 and score_of("digits_cnn(width=2) @16", 4, 0) == small
    assert score_of("digits_cnn(width=2) @16", 4, 1) != small


def test_it_ranks_and_predicts_no_cost(tmp_path):
    layers = [{"macs": 100.0, "op": "Conv2d", "weight_bytes": 8, "activation_bytes": 8}]
    items = [
        Measured(
            of_layers(f"digits_cnn(width={width}) @16", "digits", [{**layers[0], "macs": width}]), Cost((9.0 / width,))
        )
        for width in (2, 4, 8)
    ]

    class Trained(Folder):
        def here(self, question):
            return Measurements(networks={("plain", "warm"): items}, unit_ms=False)

    for by in ("signs", "macs"):
        task, module = Trained(tmp_path, 0), gradsign(by=by, samples=2)
        task.load(module, "gradsign")
        found = task.evaluation(module)
        order = sorted(range(3), key=lambda place: found.predicted[place])
        assert found.ranks_only and order == [2, 1, 0] and found.facts["training_networks"] == 0
        with pytest.raises(QualityError, match="ranks"):
            task.score(type("Run", (), {"module": module}))
