"""Products of a step, GreenTrainer's choice against exhaustive search, and what selecting leaves as it was."""

import copy
import random

import pytest
import torch

from suites.common.checkpointing import checkpoint
from suites.common.gpt import gpt
from suites.training import costs
from suites.training.greentrainer import apply, budget_of, costs_of, greentrainer, importance, select_by
from suites.training.plain import frozen
from suites.training.selection import backward_budget, chosen, cost_of, exhaustive
from suites.training.step_forms import partial

SMALL = (4, 512, 12, 768, 50_272)
LARGE = (4, 512, 32, 2560, 50_272)
DY, DW, WORTH = [0, 2, 1, 4, 0, 3, 2, 5], [5, 1, 7, 3, 1, 6, 2, 4], [1, 3, 10, 5, 3, 8, 2, 9]


def test_products_are_those_of_the_check_cases():
    assert costs.forward_macs(*SMALL) == 272_344_547_328
    assert costs.input_gradient_macs(*SMALL) == 291_671_900_160
    assert costs.weight_gradient_macs(*SMALL) == 253_017_194_496
    assert costs.step_macs(*LARGE) == 16_767_988_531_200
    assert costs.last_blocks_macs(*LARGE, 8) == 8_739_084_042_240
    assert costs.lora_step_macs(*LARGE) / costs.step_macs(*LARGE) == pytest.approx(0.677, abs=5e-4)
    assert 2490 * costs.step_macs(*LARGE) == pytest.approx(41.75e15, rel=1e-3)


@pytest.mark.parametrize(
    "budget, own, worth, places",
    [(16, False, 18, (1, 2, 3)), (16, True, 16, (1, 2, 4)), (24, False, 26, None), (24, True, 22, None),
     (36, False, 40, None), (36, True, 33, None)],
)  # fmt: skip
def test_the_choice_is_that_of_the_check_cases(budget, own, worth, places):
    found = chosen(DY, DW, WORTH, budget, charge_own=own)
    assert found.importance == worth == exhaustive(DY, DW, WORTH, budget, own).importance
    assert found.cost == cost_of(found.places, DY, DW, own) <= budget
    assert places is None or found.places == places


@pytest.mark.parametrize("own", [False, True])
def test_dynamic_programming_equals_trying_every_set(own):
    draw = random.Random(0)
    for trial in range(40):
        size = draw.randint(1, 9)
        cost, budget = [(lambda: draw.randint(0, 9), draw.randint(0, 40)), (draw.random, draw.uniform(0, 5)),
                        (lambda: draw.randint(0, 10**7), draw.randint(0, 4 * 10**7))][trial % 3]  # fmt: skip
        dy, dw = ([cost() for _ in range(size)] for _ in range(2))
        worth = [draw.uniform(-3, 9) for _ in range(size)]
        found = chosen(dy, dw, worth, budget, charge_own=own)
        assert found.importance == pytest.approx(exhaustive(dy, dw, worth, budget, own).importance)
        assert found.cost <= budget


def test_a_rounded_choice_never_exceeds_the_budget_and_misses_little():
    draw = random.Random(1)
    dy, dw = ([draw.uniform(0, 1e9) for _ in range(10)] for _ in range(2))
    worth = [draw.uniform(0, 1) for _ in range(10)]
    for share in (0.2, 0.5, 0.8):
        budget = share * (sum(dy) + sum(dw))
        found, best = chosen(dy, dw, worth, budget, resolution=1000), exhaustive(dy, dw, worth, budget)
        assert found.cost <= budget
        assert found.importance >= 0.95 * best.importance
    with pytest.raises(ValueError, match="resolution=0"):
        chosen(dy, dw, worth, 1.0, resolution=0)
    many = chosen([1.0] * 40, [0.7] * 40, [1.0] * 40, 10.0)  # more than are taken as they are: steps of 0.01
    assert many.cost <= 10 and many.importance == 6


def test_a_share_of_one_is_the_whole_backward_and_below_a_third_there_is_none():
    assert backward_budget(1.0, 1, 2) == 1.0
    assert backward_budget(0.6, 1, 2) == pytest.approx(0.4)
    assert backward_budget(0.3, 1, 2) == 0.05


@pytest.fixture
def model():
    return gpt(width=16, layers=3, heads=2, hidden=64, vocabulary=31, positions="learned", fused=True, context=12)


def backward(model, batch=2):
    """MACs that autograd executes."""
    from torch.utils.flop_counter import FlopCounterMode

    (ids,) = model.example_inputs(batch)
    with FlopCounterMode(display=False) as forward:
        model(ids)
    model.train()
    with FlopCounterMode(display=False) as both:
        model(ids).square().mean().backward()
    return (both.get_total_flops() - forward.get_total_flops()) // 2


def test_predicted_and_executed_products_agree(model):
    parts = costs_of(model, 2)
    names = [part.name for part in parts]
    names = [name for name in names if not name.endswith(costs.SCORES)]
    draw = random.Random(0)
    for count in (1, 3, 8):
        picked = set(draw.sample(names, count))
        apply(model, picked)
        model.zero_grad()
        place = next(place for place, part in enumerate(parts) if part.name in picked)
        scores = sum(part.dy for part in parts[place + 1 :] if part.name.endswith(costs.SCORES))
        # the counter knows no gradient of fused attention on a CPU
        assert backward(model) == costs.backward_macs(parts, picked) - scores


def test_a_counted_step_is_the_closed_form(model):
    from suites.common.counted_run import executed

    (ids,) = model.example_inputs(2)
    forward = costs.forward_macs(2, 12, 3, 16, 31, 64)
    for last in (3, 1):
        part = frozen(copy.deepcopy(model), last=last) if last < 3 else model
        expected = partial({**part.settings}, {"last": last}, 2)["macs_backward"] * 2
        assert executed(part.train(), ids, ids) == forward + expected


def test_everything_that_promises_something_is_chosen_at_a_share_of_one(model):
    worth = {name: 1.0 for name, _ in model.named_parameters()}
    assert set(select_by(model, worth, 1.0, False, 2)) == set(worth)
    worth["blocks.1.network.fc1.weight"] = -1.0
    assert "blocks.1.network.fc1.weight" not in select_by(model, worth, 1.0, False, 2)


@pytest.mark.parametrize("other", [{"kv_heads": 1}, {"head": 4}, {"tied": False}, {"fused": False}])
def test_a_network_whose_products_are_not_booked_is_refused(other):
    """Of one key head of 8 the qkv map is 16 -> 32 and not 16 -> 48: its books would be half as much again."""
    settings = {"fused": True, "positions": "learned", **other}
    with pytest.raises(ValueError, match="one qkv map three times as wide"):
        greentrainer(gpt(width=16, layers=1, heads=2, hidden=64, vocabulary=31, context=12, **settings))


def test_a_tied_table_is_judged_by_the_gradient_that_it_trains_by(model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "suites.training.greentrainer.importance",
        lambda net, *_: seen.append(net.detach_lookup) or {name: 1.0 for name, _ in net.named_parameters()},
    )
    greentrainer(model, rho=0.6, batch=2)
    assert seen == [True]


def test_what_is_chosen_fits_into_the_budget(model):
    worth = {name: random.Random(name).random() for name, _ in model.named_parameters()}
    for rho in (0.4, 0.5, 0.7):
        found = set(select_by(model, worth, rho, False, 2))
        assert found
        assert costs.backward_macs(costs_of(model, 2), found) <= budget_of(model, rho, 2)


def test_a_budget_below_the_heads_own_gradient_is_refused():
    head, backward, forward = 512 * 768 * 50_272, 136_172_273_664, 68_086_136_832  # a sequence of OPT-125M
    assert (
        backward_budget(0.36, forward, backward) * backward < head < backward_budget(0.5, forward, backward) * backward
    )
    with pytest.raises(ValueError, match="nothing can train within the budget"):
        apply(gpt(width=16, layers=1, heads=2), set())


def test_the_trial_step_leaves_weights_and_state_bit_for_bit(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    (ids,) = model.example_inputs(2)
    model(ids).square().mean().backward()
    optimizer.step()
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    found = importance(model, optimizer, ids, ids.roll(-1, 1))
    assert max(abs(value) for value in found.values()) == 1.0
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])
    for number, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            assert torch.equal(value, state["state"][number][key])


def test_frozen_tensors_stay_bit_for_bit_and_get_no_gradient(model):
    before = copy.deepcopy(model.state_dict())
    frozen(model, last=1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    (ids,) = model.example_inputs(2)
    model(ids).square().mean().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("blocks.2.", "norm.", "head.", "embed.")) for name in changed)


def test_checkpoints_change_no_gradient(model):
    plain = copy.deepcopy(model)
    (ids,) = model.example_inputs(2)
    checkpointed = checkpoint(model, every=2).train()
    for net in (plain, checkpointed):
        net(ids).square().mean().backward()
    for (_, a), (_, b) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
