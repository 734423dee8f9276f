"""Prior-data fitted networks and what they replace: forms that agree, check cases, exact posteriors."""

import math

import pytest
import torch

from bench.analysis.amortised import answers_until_it_pays
from bench.meters import macs
from suites.common import gaussian_process as gp
from suites.common.tasks.prior_tasks import PriorTasks
from suites.distill import pfn as networks
from suites.distill.pfn import pfn
from suites.distill.posteriors import bnn_hmc, gp_exact, gp_sampled

SMALL = {"features": 2, "width": 8, "heads": 2, "depth": 2, "hidden": 6, "bins": 7, "points": 5, "queries": 4}


def shaken(**settings):
    """A small network whose last projections are not zero, so that tokens do look at each other."""
    torch.manual_seed(0)
    net = pfn(**{**SMALL, **settings})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def test_the_check_cases():
    """Brief, Additions: 5 features, 1000 bins, n = q = 100."""
    with torch.device("meta"):
        net, masked = pfn(), pfn(form="masked")
        given = net.example_inputs(1)
    assert sum(p.numel() for p in net.parameters()) == 14_171_112
    assert macs.count(net, given).executed_macs == 2_795_468_800
    assert macs.count(masked, given).executed_macs == 2_917_734_400
    assert networks.macs(5, 512, 6, 1024, 1000, 100, 100) == 2_795_468_800
    assert networks.macs(5, 512, 6, 1024, 1000, 100, 100, "masked") == 2_917_734_400


@pytest.mark.parametrize("form", ["masked", "released"])
@pytest.mark.parametrize("points", [0, 1, 5])
def test_cross_attention_is_the_masked_form(form, points):
    cross, other = shaken(points=points), shaken(form=form, points=points)
    given = cross.example_inputs(3)
    torch.testing.assert_close(other(*given), cross(*given), rtol=1e-5, atol=1e-5)


def test_training_points_come_in_any_order():
    net = shaken()
    x, y, asked = net.example_inputs(2)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(net(x[:, order], y[:, order], asked), net(x, y, asked), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(net(x, y[:, order], asked), net(x, y, asked), atol=1e-4)


def test_a_query_is_answered_whatever_else_is_asked():
    net = shaken()
    x, y, asked = net.example_inputs(2)
    torch.testing.assert_close(net(x, y, asked[:, :1]), net(x, y, asked)[:, :1], rtol=1e-5, atol=1e-5)


def test_a_block_begins_as_its_norms_alone():
    layer = networks.Layer(8, 2, 6)
    x = torch.randn(1, 4, 8)
    torch.testing.assert_close(layer(x, 2, None), layer.norm2(layer.norm1(x)))


def test_bins_have_equal_prior_mass_and_a_density_that_sums_to_one():
    bars = networks.Bars(50)
    draws = torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * 2
    bars.fit_to(draws)
    inside = torch.histc(torch.bucketize(draws, bars.borders[1:-1]).float(), bins=50) / len(draws)
    assert (inside - 0.02).abs().max() < 1e-3
    line = torch.linspace(-40, 40, 400_001)
    even = bars.log_density(torch.zeros(len(line), 50), line).exp()
    assert torch.trapezoid(even, line) == pytest.approx(1.0, abs=2e-3)
    normal = torch.distributions.Normal(0, 2).log_prob(draws[:2000])
    found = bars.log_density(torch.zeros(2000, 50), draws[:2000])
    assert (found - normal).abs().mean() < 0.15  # even bins of equal mass are the prior


def test_the_exact_posterior_is_the_conditional_of_a_joint_normal():
    generator = torch.Generator().manual_seed(0)
    x, asked = torch.rand(4, 1, generator=generator).double(), torch.rand(3, 1, generator=generator).double()
    y, parameters = torch.randn(4, generator=generator).double(), torch.tensor(gp.CENTRE).double()
    noise = math.exp(2 * gp.CENTRE[2]) + 1e-6
    whole = gp.kernel(torch.cat([x, asked]), torch.cat([x, asked]), parameters) + noise * torch.eye(7).double()
    weights = whole[4:, :4] @ torch.linalg.inv(whole[:4, :4])
    found = gp.posterior(x, y, asked, parameters)
    torch.testing.assert_close(found[:, 0], weights @ y)
    torch.testing.assert_close(found[:, 1], (whole[4:, 4:] - weights @ whole[:4, 4:]).diagonal())
    joint = torch.distributions.MultivariateNormal(torch.zeros(4).double(), whole[:4, :4])
    torch.testing.assert_close(gp.log_evidence(x, y, parameters), joint.log_prob(y))


def test_without_training_points_the_exact_posterior_is_the_prior():
    net = gp_exact()
    asked = torch.rand(2, 3, 1)
    mean, variance = net(torch.zeros(2, 0, 1), torch.zeros(2, 0), asked).unbind(-1)
    assert not mean.any() and (variance - 1.01).abs().max() < 1e-4


def test_a_mixture_of_one_is_a_normal():
    answer = torch.tensor([[[[0.5, 4.0]]]])
    wanted = torch.distributions.Normal(0.5, 2.0).log_prob(torch.tensor(1.0))
    torch.testing.assert_close(gp.mixture_density(answer, torch.tensor([[1.0]]))[0, 0], wanted)


def test_a_chain_finds_the_kernel_that_made_the_observations():
    """Noise of 0.02 instead of 0.1: the chain's mean has to leave the prior's centre for it."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(4, 40, 1, generator=generator)
    told = torch.tensor([math.log(0.2), 0.0, math.log(0.02)]).expand(4, 3)
    y = (gp.factor(x.double(), told.double()) @ torch.randn(4, 40, 1, generator=generator).double())[..., 0].float()
    chain = gp_sampled(steps=200).chain(x, y)
    assert chain[100:, :, 2].mean() < math.log(0.1) - 0.5
    assert 0.1 < (chain.diff(dim=0).abs().sum(-1) > 0).float().mean() < 0.9  # steps that were taken


def test_hamiltonian_dynamics_keep_their_energy_and_fit_the_observations():
    net = bnn_hmc(burn=30, kept=20)
    x = torch.linspace(0, 1, 20)[None, :, None]
    y = (4 * x[..., 0]).sin()
    found = net(x, y, x)
    assert (found[..., 0].mean(1) - y).abs().mean() < 0.1
    at = net.begin.expand(1, -1)
    slope, reach = net.slope(at, x, y), 1e-3
    for place in (0, 25, 60):
        step = torch.zeros_like(at)
        step[0, place] = reach
        wanted = (net.potential(at + step, x, y) - net.potential(at - step, x, y)) / (2 * reach)
        assert float(slope[0, place]) == pytest.approx(float(wanted), rel=0.02, abs=0.5)


def test_a_short_training_brings_the_network_towards_the_exact_posterior(tmp_path):
    task = PriorTasks(tmp_path, 0)
    small = {"features": 1, "width": 32, "heads": 2, "depth": 2, "hidden": 32, "bins": 50, "training_steps": 150}
    torch.manual_seed(0)
    learned = task.prepare("small", lambda: pfn(**small))["test_nll"]
    exact = task.prepare("exact", gp_exact)["test_nll"]
    assert exact < learned < 1.38  # of the prior alone it is 1.42


@pytest.mark.slow
def test_without_training_points_a_trained_network_gives_the_prior(tmp_path):
    task, net = (
        PriorTasks(tmp_path, 0),
        pfn(features=1, width=32, heads=2, depth=2, hidden=32, bins=20, training_steps=300),
    )
    task.prepare("small", lambda: net)
    shares = net(torch.zeros(1, 0, 1), torch.zeros(1, 0), torch.rand(1, 5, 1)).softmax(-1)
    assert (shares - 0.05).abs().max() < 0.02


def test_training_pays_after_as_many_answers_as_it_saved_time():
    assert answers_until_it_pays(100, 60, 10) == 2000
    assert answers_until_it_pays(100, 10, 60) == math.inf
    with pytest.raises(ValueError, match="below zero"):
        answers_until_it_pays(-1, 1, 1)


@pytest.mark.parametrize("call, message", [
    (lambda: pfn(heads=5), "do not divide"), (lambda: gp_sampled(kept=101), "second half"),
    (lambda: PriorTasks("none", 0).fits(pfn(**SMALL), "x"), "2 features"),
    (lambda: PriorTasks("none", 0).fits(torch.nn.Linear(1, 1), "x"), "no densities"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_words(call, message):
    with pytest.raises(Exception, match=message):
        call()
