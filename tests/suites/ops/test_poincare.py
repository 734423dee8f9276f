"""Means and norms of the ball: the check case, geodesic middles, limits, rotations, another library, and gradients."""

from importlib.util import find_spec

import pytest
import torch

from suites.ops import poincare, poincare_gradients
from suites.ops.poincare_net import poincare_net
from suites.ops.poincare_norm import BallNorm, poincare_map, poincare_mean, poincare_norm
from tests.suites.ops.agree import apart

TWO = torch.tensor([[0.5, 0.0], [-0.1, 0.3]], dtype=torch.float64)
THREE = torch.cat([TWO, torch.tensor([[0.2, -0.7]], dtype=torch.float64)])


def points(count=9, width=4, c=1.0):
    drawn = torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (
        0.7
        * drawn
        / drawn.norm(dim=-1, keepdim=True)
        * torch.linspace(0.2, 1, count, dtype=torch.float64)[:, None]
        / c**0.5
    )


def test_the_check_case():
    middle = torch.tensor([0.203096, 0.121857], dtype=torch.float64)
    for found in (poincare.midpoint(TWO, 1.0), poincare.klein(TWO, 1.0), poincare.frechet(TWO, 1.0, 1e-12)[0]):
        torch.testing.assert_close(found, middle, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        poincare.midpoint(THREE, 1.0), torch.tensor([0.170803, -0.201259], dtype=torch.float64), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        poincare.frechet(THREE, 1.0, 1e-12)[0],
        torch.tensor([0.178458, -0.176984], dtype=torch.float64),
        rtol=0,
        atol=1e-6,
    )


def test_both_means_of_three_points_are_as_far_apart_as_the_page_of_findings_says():
    """|x - y|^2 = 6.479e-4 over (1 - 0.0697) (1 - 0.0632): 2 arsinh(sqrt(7.434e-4)) = 0.0545."""
    apart = poincare.distance(poincare.midpoint(THREE, 1.0), poincare.frechet(THREE, 1.0, 1e-12)[0], 1.0)
    assert float(apart) == pytest.approx(0.0545, abs=5e-5)


@pytest.mark.parametrize("c", [0.3, 1.0, 2.5])
def test_two_points_have_one_middle_one_point_is_its_mean_and_klein_agrees(c):
    x = points(c=c)
    torch.testing.assert_close(poincare.midpoint(x[:2], c), poincare.frechet(x[:2], c, 1e-13)[0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(poincare.midpoint(x[:1], c), x[0])
    torch.testing.assert_close(poincare.frechet(x[:1], c)[0], x[0])
    torch.testing.assert_close(poincare.klein(x, c), poincare.midpoint(x, c))


def test_in_a_flat_ball_it_is_the_arithmetic_mean():
    x = points(c=1.0)
    for mean in (poincare.midpoint(x, 1e-9), poincare.frechet(x, 1e-9, 1e-12)[0]):
        torch.testing.assert_close(mean, x.mean(0), rtol=1e-6, atol=1e-8)


def test_a_mean_turns_with_its_points_and_the_origin_is_no_hole():
    x, (turn, _) = (
        points(),
        torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))),
    )
    for mean in (lambda x: poincare.midpoint(x, 1.0), lambda x: poincare.frechet(x, 1.0, 1e-13)[0]):
        torch.testing.assert_close(mean(x @ turn), mean(x) @ turn, rtol=1e-8, atol=1e-10)
    opposite = torch.tensor([[0.3, 0.0], [-0.3, 0.0]], dtype=torch.float64)
    assert poincare.frechet(opposite, 1.0)[0].abs().max() < 1e-6


def test_the_frechet_mean_is_where_the_squared_distances_are_least():
    x = points()
    best = poincare.frechet(x, 1.0, 1e-12)[0]
    least = poincare.distance(x, best, 1.0).square().sum()
    for direction in torch.eye(4, dtype=torch.float64):
        for step in (1e-3, -1e-3):
            assert poincare.distance(x, best + step * direction, 1.0).square().sum() > least
    assert poincare.distance(x, poincare.midpoint(x, 1.0), 1.0).square().sum() > least  # the midpoint is another point


@pytest.mark.skipif(find_spec("geoopt") is None, reason="geoopt is not installed")
def test_maps_are_those_of_geoopt():
    from geoopt.manifolds.stereographic import math as other

    x, y, k = points(), points().flip(0), torch.tensor(-1.3, dtype=torch.float64)
    v = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(poincare.distance(x, y, 1.3), other.dist(x, y, k=k))
    torch.testing.assert_close(poincare.exp_at(x, v, 1.3), other.expmap(x, v, k=k))
    torch.testing.assert_close(poincare.log_at(x, y, 1.3), other.logmap(x, y, k=k))
    torch.testing.assert_close(poincare.transported(v, x, y, 1.3), other.parallel_transport(x, y, v, k=k))
    torch.testing.assert_close(poincare.mobius_add(x, y, 1.3), other.mobius_add(x, y, k=k))
    torch.testing.assert_close(poincare.midpoint(x, 1.3), other.weighted_midpoint(x, k=k, reducedim=[0]))


def test_gradients_that_are_written_out_are_autograds():
    x, y = points().requires_grad_(), points().roll(1, 0).contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: poincare_gradients.Distance.apply(a, b, 1.3), (x, y))
    assert torch.autograd.gradcheck(lambda a: poincare_gradients.ExpZero.apply(a, 1.3), (x,))
    assert torch.autograd.gradcheck(lambda a, b: poincare_gradients.MobiusAdd.apply(a, b, 1.3), (x, y))
    mean = (0.5 * x[0].detach()).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: poincare_gradients.Distance.apply(a, b, 1.3), (x, mean)
    )  # one mean, many points


@pytest.mark.parametrize("backward", [False, True])
def test_operators_are_their_definitions(backward):
    for form in ("midpoint", "klein", "frechet", "euclidean"):
        assert apart(poincare_mean(form=form, length=30, width=5, curvature=0.7, backward=backward)) < 1e-5
    for form, gradients in (
        ("midpoint", "autograd"),
        ("midpoint", "manual"),
        ("klein", "autograd"),
        ("frechet", "manual"),
        ("euclidean", "autograd"),
    ):
        operator = poincare_norm(form=form, gradients=gradients, length=30, width=5, curvature=0.7, backward=backward)
        assert apart(operator) < 1e-4
    for of in ("distance", "exponential"):
        for gradients in ("autograd", "manual"):
            assert apart(poincare_map(of=of, gradients=gradients, length=30, width=5, backward=backward)) < 1e-5


def test_iterations_are_told_and_written_out_gradients_keep_less():
    x = (torch.randn(64, 8) * 0.1,)
    assert poincare_mean(form="frechet").declares(*x)["iterations"] >= 2
    assert isinstance(poincare_mean().declares(*x)["iterations"], str)
    kept = {
        g: poincare_map(gradients=g, length=64, width=8).declares(*x, *x)["saved_activation_bytes"]
        for g in ("autograd", "manual")
    }
    assert kept["manual"] < kept["autograd"]


def test_a_norm_centres_and_scales_and_uses_running_statistics_in_evaluation():
    norm = BallNorm(4, 1.0, "frechet").double().train()
    made = norm(points(40))
    assert poincare.frechet(made, 1.0, 1e-12)[0].norm() < 1e-4
    assert float(norm.spread(made, torch.zeros(4, dtype=torch.float64))) == pytest.approx(1.0, rel=1e-3)
    assert float(norm.running_variance) != 1.0
    before = norm.running_mean.clone()
    norm.eval()(points(40))
    torch.testing.assert_close(norm.running_mean, before)


def test_the_network_answers_with_every_norm():
    for norm in ("midpoint", "frechet", "euclidean"):
        net = poincare_net(norm=norm, width=4)
        assert net(*net.example_inputs(2)).shape == (2, 10)
