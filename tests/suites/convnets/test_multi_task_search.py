"""The small FBNetV5: what is cut out computes what the supernet does with those gates, costs what the table says."""

import pytest
import torch

from bench.errors import UsageError
from bench.meters import macs
from suites.common.tasks.digit_canvas import DigitCanvas, Training, canvases
from suites.convnets.fbnetv5 import fbnetv5_supernet
from suites.convnets.fbnetv5_search import TARGETS, Gates, fbnetv5_search, importance, log_probability, search


def supernet(target="class", **sizes):
    torch.manual_seed(0)
    return fbnetv5_supernet(target=target, **{"width": 8, "stages": 2, "depth": 1, **sizes})


def some(network, share=0.6, seed=3):
    draw = torch.rand(len(network.gates()), generator=torch.Generator().manual_seed(seed)) < share
    return frozenset(gate for gate, bit in zip(network.gates(), draw.tolist(), strict=True) if bit)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_network_that_is_cut_out_gives_what_the_supernet_gives_and_costs_what_the_table_says(target, share):
    whole, part = supernet(target), supernet(target)
    gates = some(whole, share)
    table = Gates(whole)
    x = torch.randn(2, 1, 32, 32)
    part.cut(gates)
    with torch.no_grad():
        assert torch.allclose(part(x), whole.answers(x, gates)[target], atol=1e-6)
        counted = macs.count(part, (x[:1],), {}, second_count=False).macs
    assert counted == table.macs(gates, target)
    assert len(part.heads) == 1
    assert sum(p.numel() for p in part.parameters()) < sum(p.numel() for p in whole.parameters())


def test_without_gates_nothing_but_the_entry_and_the_head_is_left():
    part = supernet("ink").cut(frozenset())
    assert not part.gates()
    assert len(part.enter) == 1  # the finest scale alone
    # 3 x 3 x 1 x 8 weights at 16 x 16 places, and a 1 x 1 head to four pixels a place
    assert Gates(part).macs(frozenset(), "ink") == 16 * 16 * (9 * 8 + 8 * 4)


def test_a_gate_that_feeds_no_head_is_dead():
    network = supernet("ink", stages=1)
    into_coarse, into_fine = ("link", 0, 0, 3), ("link", 0, 3, 0)
    kept, entered = network.live(frozenset({into_coarse, ("block", 0, 3, 0)}), ("ink",))
    assert kept == frozenset() and entered == {0}
    kept, entered = network.live(frozenset({into_fine, ("block", 0, 3, 0)}), ("ink",))
    assert kept == frozenset({into_fine, ("block", 0, 3, 0)}) and entered == {0, 1, 2, 3}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("budget", [0.2, 0.5, 1.0])
def test_a_budget_is_kept(target, budget):
    table = Gates(supernet(target))
    found = table.within(list(range(len(table.gates))), target, budget)
    assert table.macs(found, target) <= budget * table.whole(target)
    if budget == 1.0:
        assert found == table.network.live(frozenset(table.gates), (target,))[0]


def test_importance_is_the_ratio_of_probabilities_and_one_for_equal_tasks():
    logits, draw = torch.randn(3, 7), torch.tensor([1.0, 0, 1, 1, 0, 0, 1])
    by_hand = torch.stack([torch.where(draw > 0, row.sigmoid(), 1 - row.sigmoid()).prod() for row in logits])
    assert torch.allclose(torch.exp(log_probability(logits[1], draw)), by_hand[1])
    assert torch.allclose(importance(logits, draw), by_hand / by_hand.mean(), rtol=1e-5)
    assert torch.allclose(importance(logits[:1].expand(3, -1), draw), torch.ones(3))


def test_importance_weights_average_to_one_under_the_mixture():
    logits = torch.randn(3, 3)
    total = torch.zeros(3)
    for number in range(8):
        draw = torch.tensor([float(number >> place & 1) for place in range(3)])
        mixture = torch.stack([torch.exp(log_probability(row, draw)) for row in logits]).mean()
        total += mixture * importance(logits, draw)
    assert torch.allclose(total, torch.ones(3), rtol=1e-5)


def test_a_search_closes_gates_that_only_cost():
    """The supernet's blocks and links are made to give zeros, so that every open gate costs and helps nobody."""
    network = supernet(stages=1)
    for layer in [*network.blocks.values(), *network.links.values()]:
        for parameter in layer.parameters():
            parameter.data.zero_()
    given = canvases(torch.arange(2), 5)
    logits = search(network, iter([given] * 200), budget=0.0, steps=200, seed=0)
    live = {target: network.live(frozenset(network.gates()), (target,))[0] for target in TARGETS}
    for row, target in zip(logits, TARGETS, strict=True):
        open_gates = torch.tensor([gate in live[target] for gate in network.gates()])
        assert row[open_gates].mean() < 0


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder, network = tmp_path_factory.mktemp("canvas"), supernet()
    task = DigitCanvas(folder, 0, training=Training(steps=3, batch=4))
    task.prepare("supernet", supernet)
    task.load(network, "supernet")
    return task


def fresh(task):
    network = supernet()
    task.load(network, "supernet")
    return network


def test_the_method_gives_a_smaller_network_again_and_says_what_it_cost(loaded):
    first, again = (fbnetv5_search(fresh(loaded), budget=0.5, steps=4, training_steps=2) for _ in range(2))
    chance = fbnetv5_search(fresh(loaded), budget=0.5, how="random", training_steps=0)
    table = Gates(supernet())
    for network in (first, chance):
        assert table.macs(frozenset(network.gates()), "class") <= 0.5 * table.whole("class")
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(first.eval()(x), again.eval()(x))
    assert first.method_cost["seconds"] > 0


def test_one_training_serves_all_targets(tmp_path):
    tasks = [DigitCanvas(tmp_path, 0, target=target, training=Training(steps=2, batch=2)) for target in TARGETS]
    for task in tasks:
        task.prepare("supernet", lambda target=task.target: supernet(target))
    assert len(list((tmp_path / "digit_canvas").glob("*.safetensors"))) == 1


def test_what_is_no_supernet_or_no_width_is_refused():
    with pytest.raises(ValueError, match="fbnetv5_supernet"):
        fbnetv5_search(torch.nn.Linear(2, 2))
    with pytest.raises(UsageError, match="multiple"):
        fbnetv5_supernet(width=12)
    with pytest.raises(ValueError, match="task"):
        fbnetv5_search(supernet())
