"""CLAN: check cases, scores by a centre and by neighbours, what the loss pulls and pushes."""

import pytest
import torch
import torch.nn.functional as F

from bench.meters import macs
from suites.common.tasks.digit_strangers import DigitStrangers
from suites.distill.clan import MARGIN, apart, augmented, clan, clan_loss, contrastive, contrastive_loss


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_the_check_cases():
    """Brief, Additions: parameters with a probe of 12, products of an embedding, a centre and a bank."""
    for bank, times in ((1, 1), (100_000, 2.9), (500_000, 10.5)):
        with torch.device("meta"):
            net = clan(scoring="centroid" if bank == 1 else "neighbours", bank=bank, probe=12)
            given = net.example_inputs(1)
        assert parameters(net) == 3_376_204
        found = macs.count(net, given).executed_macs
        assert found == 3_358_720 + 64 * bank and found / (3_358_720 + 64) == pytest.approx(times, rel=0.01)
        assert net.known.numel() * 4 == 256 * bank


def test_the_nearest_of_one_is_the_centre_of_one():
    near, centre = (clan(features=6, width=8, embedding=4, scoring=how, bank=1) for how in ("neighbours", "centroid"))
    centre.load_state_dict(near.state_dict())
    x = near.example_inputs(5)
    torch.testing.assert_close(near(*x), centre(*x))


def test_a_centre_says_what_the_mean_of_the_bank_says():
    net, bank = clan(features=6, width=8, embedding=4, bank=9), torch.randn(9, 4)
    net.known.copy_(net.summary(bank))
    (x,) = net.example_inputs(5)
    z = F.normalize(net.encoder(x), dim=1)
    torch.testing.assert_close(1 - net(x), (z @ bank.T).mean(1) / bank.mean(0).norm(), rtol=1e-5, atol=1e-6)


def test_neighbours_are_those_of_a_search_one_by_one():
    net = clan(features=6, width=8, embedding=4, bank=9, scoring="neighbours")
    (x,) = net.example_inputs(5)
    with torch.no_grad():
        embeddings, scores = net.encoder(x), net(x)
    for embedding, score in zip(embeddings, scores, strict=True):
        nearest = max(float(F.cosine_similarity(embedding, known, dim=0)) for known in net.known)
        assert float(score) == pytest.approx(1 - nearest, abs=1e-5)


def test_the_loss_is_nothing_where_benign_flows_are_one_and_augmented_ones_are_far():
    one = torch.tensor([[1.0, 0]]).expand(3, 2)
    assert clan_loss(one, -one) < 1e-6
    assert clan_loss(one, one) == pytest.approx(0.5 * MARGIN)
    half = torch.tensor([[0.0, 1]]).expand(3, 2)
    assert apart(one, half).unique().item() == pytest.approx(0.5) and clan_loss(one, half) < 1e-6


def test_the_contrastive_loss_is_least_where_each_flow_is_near_its_own_augmentation():
    flows = torch.eye(4)
    assert contrastive_loss(flows, flows) < contrastive_loss(flows, flows.roll(1, 0))


def test_augmentations_replace_a_tenth_of_the_features_within_the_limit():
    flows, generator = torch.full((2000, 10), 9.0), torch.Generator().manual_seed(0)
    changed = augmented(flows, generator)
    other = changed[changed != 9]
    assert float(len(other) / changed.numel()) == pytest.approx(0.1, abs=0.01)
    assert other.abs().max() <= 1.7 and abs(float(other.mean())) < 0.1


def test_a_probe_is_no_part_of_a_forward():
    plain, probed = clan(features=6, width=8, embedding=4), clan(features=6, width=8, embedding=4, probe=3)
    inputs = plain.example_inputs(2)
    assert macs.count(plain, inputs).executed_macs == macs.count(probed, inputs).executed_macs


def test_detectors_tell_strangers_from_digits_that_they_learned(tmp_path):
    task, small = DigitStrangers(tmp_path, 0), {"features": 64, "width": 64, "training_steps": 40}
    for name, make in {"clan": clan, "contrastive": contrastive}.items():
        torch.manual_seed(0)
        assert task.prepare(name, lambda make=make: make(**small))["test_auroc"] > 75
    with pytest.raises(Exception, match="set features=64"):
        task.fits(clan(), "x")
    with pytest.raises(Exception, match="no detector"):
        task.fits(torch.nn.Linear(1, 1), "x")
