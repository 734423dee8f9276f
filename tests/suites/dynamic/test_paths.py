"""Early exits, cascades and memories: executions agree, laws hold against measured batches, only what runs is paid."""

import random

import pytest
import torch

from suites.common.digits_cnn import digits_cnn
from suites.common.digits_vit import digits_vit
from suites.dynamic import laws
from suites.dynamic.dual_cnn import certainty, complementarity, dual_cnn
from suites.dynamic.jei_dnn import (
    _losses,
    _targets,
    conformal_sets,
    exit_probabilities,
    jei_dnn,
    uncertainty,
)  # fmt: skip
from suites.dynamic.lenet import b_lenet, lenet
from suites.dynamic.memory import Memory, dhash, moments

from . import counting


@pytest.fixture
def exits():
    """Exits of a small random ViT whose gates spread the inputs over all of them."""
    network = jei_dnn(digits_vit(width=16, heads=2, depth=4, resolution=16), threshold=0.5)
    with torch.no_grad():
        state, here = network.start(torch.randn(64, 3, 16, 16)), torch.ones(64, dtype=torch.bool)
        for place, gate in enumerate(network.gates):
            state, answer = network.stage(place, state)
            surest = answer.softmax(-1).amax(-1)
            border = surest[here].quantile(0.6)  # of those who got there two in five leave
            gate.linear.weight.copy_(torch.tensor([[1e5, 0.0, 0.0, 0.0]]))
            gate.linear.bias.copy_(-1e5 * border.reshape(1))
            here &= surest < border
    return network


@torch.no_grad()
def test_every_execution_gives_the_same_answers_and_pays_for_what_it_runs(exits):
    images = torch.randn(64, 3, 16, 16)
    answers, costs = {}, {}
    for execution in ("compact", "masked", "until_empty", "sorted"):
        exits.running = execution
        if execution == "sorted":
            exits.learn_paths(OneBatch(images))
        answers[execution], costs[execution] = exits(images), counting.of(exits, (images,))[0]
        paths = exits.paths
    for answer in answers.values():
        torch.testing.assert_close(answer, answers["compact"], rtol=1e-5, atol=1e-6)
    shares = (torch.bincount(paths, minlength=4) / 64).tolist()
    assert min(shares) > 0
    by_exit = [counting.of(fixed(exits, exit), (images[:1],))[0] for exit in (1, 2, 3, 4)]
    wanted = 64 * sum(share * cost for share, cost in zip(shares, by_exit, strict=True))
    assert costs["compact"] == costs["sorted"] == pytest.approx(wanted)
    assert costs["masked"] == 64 * by_exit[-1]


class OneBatch:
    """A task whose held-out inputs are these."""

    def __init__(self, images):
        self.images = images

    def batches(self, size):
        yield self.images, None


def fixed(network, exit):
    """The network with every sample leaving at an exit."""
    import copy

    twin = copy.copy(network)
    twin.exit = exit
    return twin


@torch.no_grad()
def test_batches_that_run_until_empty_are_as_deep_as_the_law_says(exits):
    images = torch.randn(600, 3, 16, 16)
    exits.running = "until_empty"
    exits(images)
    shares = (torch.bincount(exits.paths, minlength=4) / 600).tolist()
    paths, rng = exits.paths.tolist(), random.Random(0)
    costs = [counting.of(fixed(exits, exit), (images[:1],))[0] for exit in (1, 2, 3, 4)]
    for batch in (1, 2, 8):
        depths = []
        for _ in range(60):
            pick = rng.choices(range(600), k=batch)
            exits(images[pick])
            assert max(exits.paths) == max(paths[p] for p in pick)
            depths.append(int(exits.paths.max()) + 1)
        law = laws.expected_depth(shares, batch)
        spread = (sum((d - law) ** 2 for d in depths) / 60) ** 0.5 / 60**0.5
        assert abs(sum(depths) / 60 - law) < 4 * spread + 1e-9
    pick = rng.choices(range(600), k=8)
    deepest = max(paths[p] for p in pick)
    assert counting.of(exits, (images[pick],))[0] == 8 * costs[deepest]


def test_the_law_of_depth_is_the_mean_for_one_and_the_deepest_path_for_many():
    shares = [0.5, 0.25, 0.25]
    assert laws.expected_depth(shares, 1) == pytest.approx(1 * 0.5 + 2 * 0.25 + 3 * 0.25)
    assert laws.expected_depth(shares, 2) == pytest.approx(1 + (1 - 0.25) + (1 - 0.75**2))
    assert laws.expected_depth(shares, 10_000) == pytest.approx(3)
    assert laws.expected_macs(shares, [10, 20, 40], 1) == pytest.approx(20)
    assert laws.expected_macs(shares, [10, 20, 40], 2) == pytest.approx(0.25 * 10 + (0.5625 - 0.25) * 20 + 0.4375 * 40)
    assert laws.random_routing([0.5, 0.5], [0.6, 0.9]) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="sum"):
        laws.expected_depth([0.5, 0.6], 4)
    with pytest.raises(ValueError, match="batch"):
        laws.expected_depth(shares, 0)


def test_exit_probabilities_are_those_of_the_paper_and_gates_use_them(exits):
    assert laws.exit_probabilities([0.3, 0.5, 0.6]) == pytest.approx([0.3, 0.5, 0.2, 0.0])
    gates = torch.rand(50, 3)
    found = exit_probabilities(gates)
    for row, g in zip(found.tolist(), gates.tolist(), strict=True):
        assert row == pytest.approx(laws.exit_probabilities(g), abs=1e-6)
    # leaving by the definition: the first exit with P_l / prod (1 - a_j) >= 0.5
    with torch.no_grad():
        images = torch.randn(40, 3, 16, 16)
        state, g = exits.start(images), []
        for place in range(3):
            state, answer = exits.stage(place, state)
            g.append(exits.gates[place](answer))
        exits.running = "compact"
        exits(images)
    for probabilities, path in zip(exit_probabilities(torch.stack(g, 1)).tolist(), exits.paths.tolist(), strict=True):
        rest, leaves = 1.0, 3
        for place, p in enumerate(probabilities[:3]):
            activation = min(1.0, max(0.0, p / rest)) if rest > 0 else 0.0
            if activation >= 0.5:
                leaves = place
                break
            rest *= 1 - activation
        assert path == leaves


def test_gates_read_the_four_numbers_of_the_softmax():
    p = torch.tensor([[0.7, 0.2, 0.1]])
    sharp = p.square() / p.square().sum()
    entropy = [-(q * q.log()).sum().item() for q in (p, sharp)]
    assert uncertainty(p.log())[0].tolist() == pytest.approx([0.7, entropy[0], 0.5, entropy[1]], abs=1e-5)


def test_a_higher_price_moves_targets_to_earlier_exits():
    losses, costs = torch.tensor([[1.0, 0.8, 0.5]]), torch.tensor([0.2, 0.6, 1.0])
    assert _targets(losses, costs, 0.1).tolist() == [[0, 0]]
    assert _targets(losses, costs, 5.0).tolist() == [[1, 1]]


def test_conformal_sets_hold_the_truth_as_often_as_they_promise():
    torch.manual_seed(0)
    logits, truth = torch.randn(4000, 5), torch.randint(5, (4000,))
    logits[torch.arange(4000), truth] += 1.5
    sets = conformal_sets(logits[:2000], truth[:2000], logits[2000:], miss=0.2)
    covered = sets[torch.arange(2000), truth[2000:]].float().mean()
    assert 0.76 < covered < 0.84


def test_losses_of_exits_are_cross_entropies_of_heads(exits):
    features, final, labels = torch.randn(4, 3, 16), torch.randn(4, 10), torch.arange(4)
    answers, losses = _losses(exits, features, final, labels)
    wanted = -answers[1].log_softmax(-1)[torch.arange(4), labels]
    torch.testing.assert_close(losses[:, 1], wanted)
    assert losses.shape == (4, 4) and answers[3] is final


@torch.no_grad()
def test_the_second_network_runs_only_for_those_that_the_first_is_unsure_about():
    network = dual_cnn(digits_cnn(width=4, resolution=16), second_width=2)
    images = torch.randn(10, 3, 16, 16)
    sure = certainty(network.networks[0](images), "difference")
    network.lam = float(sure.median()) + 1e-9
    answer = network(images)
    sent = int((sure < network.lam).sum())
    assert 0 < sent < 10 and int(network.paths.sum()) == sent
    one, two = (counting.of(net, (images[:1],))[0] for net in network.networks)
    assert counting.of(network, (images,))[0] == 10 * one + sent * two
    assert counting.of(network, (images,))[0] / 10 == pytest.approx(laws.cascade_macs(0, sent / 10, one, two))
    both = [net(images) for net in network.networks]
    scores = [certainty(y, "difference") for y in both]
    for place in range(10):
        second = scores[0][place] < network.lam and scores[1][place] >= scores[0][place]
        torch.testing.assert_close(answer[place], both[1 if second else 0][place], rtol=1e-4, atol=1e-5)


def test_scores_and_complementarity_by_hand():
    p = torch.tensor([[0.6, 0.3, 0.1]]).log()
    assert certainty(p, "maxp").item() == pytest.approx(0.6)
    assert certainty(p, "difference").item() == pytest.approx(0.3)
    assert 0 < certainty(p, "entropy").item() < 1
    assert certainty(torch.zeros(1, 3), "entropy").item() == pytest.approx(0, abs=1e-6)
    a, b = torch.tensor([1, 1, 0, 0, 1]).bool(), torch.tensor([1, 0, 1, 0, 0]).bool()
    assert complementarity(a, b, "released") == pytest.approx(3 / 5)
    assert complementarity(a, b) == pytest.approx((4 - 1 - 1) / 5)


@torch.no_grad()
def test_a_memory_answers_repeats_without_a_network_and_tells_false_hits_apart():
    network = dual_cnn(digits_cnn(width=4, resolution=16), second_width=2, lam=1.0, memory="dhash")
    images = torch.randn(6, 3, 16, 16)
    network.memory.fill(images[:2], torch.tensor([7, 3]))
    plain = counting.of(network.networks[0], (images[:1],))[0] + counting.of(network.networks[1], (images[:1],))[0]
    assert counting.of(network, (images,))[0] == 4 * plain
    assert network(images)[:2].argmax(1).tolist() == [7, 3]
    assert network.paths[:2].tolist() == [-1, -1]
    brighter = images[:1] * 0.5 + 3  # another image with the same key: a false hit is answered all the same
    assert dhash(brighter).equal(dhash(images[:1])) and network(brighter).argmax().item() == 7
    assert network.memory.bytes == 2 * 16


def test_keys_are_bits_of_brighter_neighbours_and_moments_do_not_see_turns():
    image = torch.zeros(1, 1, 8, 9)
    image[0, 0, 0, 1] = 1.0  # brighter than its left neighbour: the first bit
    assert dhash(image).item() == 1
    images = torch.rand(5, 1, 16, 16)
    assert moments(images).equal(moments(images.rot90(1, (-2, -1))))
    assert not dhash(images).equal(dhash(images.rot90(1, (-2, -1))))
    assert len(set(moments(images).tolist())) == 5
    memory = Memory("moments")
    memory.fill(images, torch.arange(5))
    known, classes = memory.look(images.rot90(2, (-2, -1)))
    assert known.all() and classes.tolist() == list(range(5))
    assert not memory.look(torch.rand(3, 1, 16, 16))[0].any()


@torch.no_grad()
def test_b_lenet_leaves_by_entropy_at_the_threshold():
    network = b_lenet(lenet(), threshold=2.2)
    images = 20 * torch.randn(30, 1, 28, 28)
    maps = network.main.front(images)
    p = network.branch(maps).softmax(-1)
    network.threshold = float((-(p * p.log()).sum(-1)).median())
    network(images)
    assert ((-(p * p.log()).sum(-1) < network.threshold) == (network.paths == 0)).all()
    gone = int((network.paths == 0).sum())
    assert 0 < gone < 30
    assert counting.of(network, (images,))[0] == 30 * 220_150 + (30 - gone) * 1_027_570


@torch.no_grad()
def test_rows_say_that_they_run_for_real(exits):
    from bench.labels import labels_of

    cascade = dual_cnn(digits_cnn(width=4, resolution=16), second_width=2)
    for network in (exits, cascade, b_lenet(lenet())):
        assert labels_of(network)["execution"] == "real"
        assert network.input_dependent
    assert not jei_dnn(digits_vit(width=16, heads=2, depth=2, resolution=16), exit=1).input_dependent
