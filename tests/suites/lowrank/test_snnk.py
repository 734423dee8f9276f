"""Random features against the functions that they stand for, bundling, and the regression in closed form."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from suites.common.bert import bert
from suites.common.mlp import digits_mlp
from suites.lowrank.random_features import (
    Features,
    arc_cosine,
    break_even_m,
    orthogonal_rows,
    snnk_macs,
    snnk_parameters,
)  # fmt: skip
from suites.lowrank.snnk import ridge_regression, snnk
from suites.lowrank.snnk_layer import snnk_from, snnk_layer

FUNCTIONS = {
    "relu": lambda x, w: arc_cosine(x[:, None], w[None]),
    "cos": lambda x, w: torch.cos(x @ w.mT),
    "sin": lambda x, w: torch.sin(x @ w.mT),
    "gauss": lambda x, w: torch.exp(-((x @ w.mT) ** 2) / 2),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_the_error_falls_with_the_root_of_the_number_of_features(kind):
    x, w = (F.normalize(torch.randn(n, 6, dtype=torch.double), dim=1) for n in (8, 8))
    errors = []
    for m in (500, 200_000):
        features = Features(6, m, kind).double()
        found = features.of_inputs(x) @ features.of_weights(w).mT
        errors.append(float((found - FUNCTIONS[kind](x, w)).square().mean().sqrt()))
    assert errors[1] < 0.02
    assert errors[0] / errors[1] > 6  # 20 in the mean


def test_the_arc_cosine_kernel_is_a_half_at_one_unit_vector_and_its_opposite_sees_nothing():
    x = F.normalize(torch.randn(3, 5, dtype=torch.double), dim=1)
    assert torch.allclose(arc_cosine(x, x), torch.full((3,), 0.5, dtype=torch.double), atol=1e-6)
    assert torch.allclose(arc_cosine(x, -x), torch.zeros(3, dtype=torch.double), atol=1e-6)


def test_orthogonal_rows_are_orthogonal_in_blocks():
    rows = F.normalize(orthogonal_rows(9, 6), dim=1)
    for block in rows.split(6):
        torch.testing.assert_close(block @ block.mT, torch.eye(len(block)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_layer_bundled_with_the_map_behind_it_gives_the_same(kind):
    layer, after = snnk_from(nn.Linear(7, 9), 11, kind, False), nn.Linear(9, 4)
    nn.init.normal_(layer.bias)
    x = torch.randn(5, 7)
    with torch.no_grad():
        torch.testing.assert_close(layer.bundled(after)(x), after(layer(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_the_operator_is_the_formula(kind):
    operator = snnk_layer(width=12, outputs=7, m=16, features=kind, length=5)
    (x,) = operator.example_inputs(2)
    with torch.no_grad():
        torch.testing.assert_close(operator(x), operator.reference(x), rtol=1e-4, atol=1e-5)


def test_the_closed_form_regression_is_scikit_learns():
    from sklearn.linear_model import Ridge

    phi, wanted = torch.randn(60, 9, dtype=torch.double), torch.randn(60, 3, dtype=torch.double)
    weight, bias = ridge_regression(phi, wanted, 2.5)
    theirs = Ridge(alpha=2.5).fit(phi.numpy(), wanted.numpy())
    torch.testing.assert_close(weight, torch.as_tensor(theirs.coef_), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(bias, torch.as_tensor(theirs.intercept_), rtol=1e-8, atol=1e-10)


def test_counts_of_a_layer():
    assert snnk_macs(768, 768, 128) == 196_608
    found = snnk_parameters(768, 768, 128)
    assert found == {"trainable": 99_072, "stored": 99_072 + 98_304, "dense": 590_592}
    assert (break_even_m(768, 768), break_even_m(768, 3072)) == (384, 614.4)


@pytest.mark.parametrize("features", ["relu", "sin"])
def test_the_trace_and_the_parameters_agree_with_the_closed_forms(features):
    from bench.meters.macs import count

    operator = snnk_layer(width=12, outputs=7, m=16, features=features, length=1)
    assert count(operator, operator.example_inputs(1)).macs == snnk_macs(12, 7, 16, features)
    trained = sum(p.numel() for p in operator.parameters() if p.requires_grad)
    assert trained == snnk_parameters(12, 7, 16, features)["trainable"]


def test_a_bundled_perceptron_costs_one_projection_less():
    from bench.meters.macs import count

    plain = snnk(digits_mlp(widths=[20, 20], resolution=8), m=6)
    bundled = snnk(digits_mlp(widths=[20, 20], resolution=8), m=6, bundled="last")
    x = plain.example_inputs(1)
    assert count(plain, x).macs == 6 * 64 + 6 * 20 + 6 * 20 + 6 * 20 + 20 * 10
    assert count(bundled, x).macs == 6 * 64 + 6 * 20 + 6 * 20 + 6 * 10


def test_a_pooler_of_features_trains_a_sixth_of_the_dense_ones_parameters():
    model = snnk(bert(layers=1, vocabulary=9), m=128, where="pooler")
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 99_072
    assert model.pooler.features.projection.numel() == 128 * 768


def test_adapters_of_features_leave_the_network_as_it_is_and_train_less_than_dense_ones():
    plain = bert(width=16, layers=2, size=8, vocabulary=11, length=6, pooler=False)
    ids = plain.example_inputs(2)[0]
    with torch.no_grad():
        wanted = plain(ids)
        changed = snnk(plain, m=4, where="adapters", bottleneck=6)
        assert torch.equal(changed(ids), wanted)  # up starts at zero
    # four adapters: psi [6, 4] and bias 6 instead of [6, 16] and 6, and 6 -> 16 with its bias
    assert sum(p.numel() for p in changed.parameters() if p.requires_grad) == 4 * (6 * 4 + 6 + 6 * 16 + 16)
