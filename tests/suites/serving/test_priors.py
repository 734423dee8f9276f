"""Learned densities and their strings: what is decoded is the rounded latent, and strings are as long as their bits."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.serving import range_coding
from suites.serving.factorised_prior import FactorisedPrior
from suites.serving.gdn import Gdn
from suites.serving.hyper_prior import HyperPrior, likelihood

pytest.importorskip("constriction")


def prior(channels=3, seed=0, scale=1.0):
    torch.manual_seed(seed)
    found = FactorisedPrior(channels)
    for factor in found.factors:
        torch.nn.init.normal_(factor, std=0.5)
    for matrix in found.matrices[:1]:
        matrix.data += scale
    found.update()
    return found.requires_grad_(False)


def drawn(found, shape, seed=0):
    """A latent from the densities themselves."""
    generator = np.random.default_rng(seed)
    reach = range_coding.REACH
    tables = found.tables.numpy() / found.tables.numpy().sum(1, keepdims=True)
    rows = [generator.choice(2 * reach + 1, size=(shape[0], *shape[2:]), p=row) - reach for row in tables]
    return torch.from_numpy(np.stack(rows, 1)).float()


def test_a_density_sums_to_one_over_the_whole_numbers():
    found = prior(channels=4).double()
    numbers = torch.arange(-60_000, 60_001, dtype=torch.float64).expand(1, 4, -1)
    edges = torch.cat([numbers - 0.5, numbers[..., -1:] + 0.5], -1).transpose(0, 1)
    mass = found.logits(edges).sigmoid().diff(dim=-1).sum(-1)
    assert torch.allclose(mass, torch.ones_like(mass), atol=1e-9)
    assert torch.allclose(found.tables.sum(1), torch.ones(4, dtype=torch.float64), atol=1e-12)


def test_a_channel_has_58_parameters_and_three_quantiles():
    found = prior(channels=5)
    assert sum(p.numel() for p in found.parameters()) == 61 * 5 and found.quantiles.numel() == 15
    low, middle, high = (found.logits(found.quantiles[..., i : i + 1]).sigmoid() for i in range(3))
    assert torch.allclose(middle, torch.full_like(middle, 0.5), atol=1e-4)
    assert (low < 1e-7).all() and (high > 1 - 1e-7).all()


def test_the_distribution_is_monotone():
    found = prior()
    values = found.logits(torch.linspace(-50, 50, 401).expand(3, 1, -1))
    assert (values.diff(dim=-1) > 0).all()


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000), st.floats(0.1, 200))
@settings(max_examples=30, deadline=None)
def test_whatever_is_encoded_is_decoded_as_its_rounding(batch, channels, side, seed, spread):
    found = prior(channels=channels, seed=seed)
    latent = spread * torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(found.decode(found.encode(latent)), latent.round())


def test_numbers_far_beyond_the_table_come_back():
    found = prior()
    latent = torch.tensor([255.0, -255.0, 256.0, -70_000.0, 1e6, 0.0]).reshape(1, 3, 2)
    assert torch.equal(found.decode(found.encode(latent)), latent)


def test_a_number_that_four_bytes_do_not_hold_is_refused():
    found = prior()
    largest = torch.full((1, 3, 1), 2147483520.0)  # the largest float below 2^31
    assert torch.equal(found.decode(found.encode(largest)), largest)
    with pytest.raises(ValueError, match="four bytes"):
        found.encode(torch.full((1, 3, 1), 2.0**31))


def test_a_string_is_as_long_as_its_bits():
    found = prior(channels=6)
    for side in (3, 20, 60):
        latent = drawn(found, (1, 6, side, side))
        bits = float(found.bits(latent))
        string = len(found.encode(latent)) - 9  # the shape
        assert abs(string - bits / 8) <= 0.02 * bits / 8 + 32, side


def test_nothing_is_encoded_before_the_tables_are_made():
    fresh = FactorisedPrior(2)
    with pytest.raises(ValueError, match="call update"):
        fresh.encode(torch.zeros(1, 2, 3))


def test_tables_made_again_are_used():
    found = prior()
    latent = torch.ones(1, 3, 4)
    before = found.encode(latent)
    found.biases[0].data += 3.0
    found.update()
    assert found.encode(latent) != before and torch.equal(found.decode(found.encode(latent)), latent)


def test_a_prior_travels_to_another_process_with_its_tables():
    found = prior()
    latent = drawn(found, (2, 3, 5, 5))
    payload = found.encode(latent)
    assert torch.equal(pickle.loads(pickle.dumps(found)).decode(payload), latent)


@given(st.integers(0, 2**40))
def test_lengths_come_back(number):
    found, rest = range_coding.read_varint(memoryview(range_coding.varint(number) + b"x"))
    assert found == number and bytes(rest) == b"x"


# ---------------------------------------------------------------- hyper-prior
def hyper(seed=0):
    torch.manual_seed(seed)
    found = HyperPrior(4, 6)
    found.update()
    return found.requires_grad_(False)


@pytest.mark.parametrize("side", [7, 55])
def test_a_hyper_prior_gives_the_rounded_latent_back(side):
    found = hyper()
    latent = 3 * torch.randn(2, 4, side, side)
    assert torch.equal(found.decode(found.encode(latent)), latent.round())


def test_its_strings_are_as_long_as_their_bits():
    found = hyper()
    latent = 2 * torch.randn(1, 4, 55, 55)
    bits = float(found.bits(latent.round(), noise=False))
    length = len(found.encode(latent))
    assert abs(length - bits / 8) <= 0.02 * bits / 8 + 32 + 2 * 9


def test_gaussians_sum_to_one_over_the_whole_numbers():
    numbers = torch.arange(-200, 201, dtype=torch.float64)
    for mean, deviation in ((0.3, 0.11), (-4.2, 7.0)):
        mass = likelihood(numbers, torch.tensor(mean), torch.tensor(deviation)).sum()
        assert float(mass) == pytest.approx(1.0, abs=1e-6)


def test_a_latent_whose_sides_do_not_come_back_is_refused():
    with pytest.raises(ValueError, match="comes back as"):
        hyper().encode(torch.zeros(1, 4, 8, 8))


# ---------------------------------------------------------------- divisive normalisation
def slow_gdn(x, beta, gamma, inverse):
    found = torch.empty_like(x)
    for i in range(x.shape[1]):
        size = beta[i] + sum(gamma[i, j] * x[:, j].abs() for j in range(x.shape[1]))
        found[:, i] = x[:, i] * size if inverse else x[:, i] / size
    return found


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_is_its_definition(inverse):
    torch.manual_seed(0)
    layer = Gdn(5, inverse).double()
    torch.nn.init.normal_(layer.gamma_root, std=0.4)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    assert torch.allclose(layer(x), slow_gdn(x, layer.beta, layer.gamma, inverse))


def test_gdn_begins_as_one_over_one_and_a_tenth_of_the_magnitude():
    x = torch.full((1, 3, 1, 1), 2.0)
    assert torch.allclose(Gdn(3)(x), x / 1.2, atol=1e-4)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_is_that_of_compressai(inverse):
    layers = pytest.importorskip("compressai.layers", reason="compressai is not installed")
    torch.manual_seed(0)
    theirs, ours = layers.GDN1(6, inverse=inverse), Gdn(6, inverse)
    theirs.gamma.data = theirs.gamma_reparam.init(torch.rand(6, 6))
    ours.gamma_root.data = (theirs.gamma_reparam(theirs.gamma) + 2.0**-36).sqrt()
    x = torch.randn(2, 6, 5, 5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_the_density_is_that_of_compressai():
    models = pytest.importorskip("compressai.entropy_models", reason="compressai is not installed")
    torch.manual_seed(0)
    theirs, ours = models.EntropyBottleneck(4), prior(channels=4)
    for place in range(5):
        getattr(theirs, "matrices", None)[place].data = ours.matrices[place].data.clone()
        theirs.biases[place].data = ours.biases[place].data.clone()
        if place < 4:
            theirs.factors[place].data = ours.factors[place].data.clone()
    latent = 3 * torch.randn(2, 4, 5, 5)
    _, wanted = theirs.eval()(latent, training=False)
    rounded = theirs.quantize(latent, "dequantize", theirs._get_medians())
    assert torch.allclose(ours.likelihood(rounded), wanted, atol=1e-6)
