"""STU-Net and Stormer: printed counts, what commutes and what may be left out, roll-outs, and their made tasks."""

import pytest
import torch
import torch.nn.functional as F

from bench.meters.quality import Run
from suites.common.task import TaskError
from suites.common.tasks import advection, volumes
from suites.scaling import closed_forms
from suites.scaling.stormer import VariableEmbedding, rollouts, stormer, training_macs
from suites.scaling.stunet import SIZES, stunet
from tests.suites.scaling.counting import counted

TINY = {"size": "own", "widths": [4, 6, 8], "depth": 2, "classes": 3, "side": 8}
PAPER = {"variables": 69, "high": 128, "wide": 256, "width": 1024, "depth": 24, "heads": 16}


# ---------------------------------------------------------------- STU-Net
@pytest.mark.parametrize("size, params", [("S", 14_596_941), ("L", 440_302_605)])
def test_counts_of_the_check_cases(size, params):
    found = counted(lambda: stunet(size=size, side=128, heads="all"))
    assert found[0] == params
    assert found[1] == closed_forms.stunet({"size": size, "side": 128, "heads": "all"}, {})
    if size == "S":
        assert found[1] == 129_377_107_968


def test_twice_the_width_is_four_times_the_parameters():
    small, large = (counted(lambda size=size: stunet(size=size, side=64))[0] for size in ("S", "B"))
    assert large / small == pytest.approx(4, rel=0.01) and SIZES["B"][0] == tuple(2 * w for w in SIZES["S"][0])


def test_leaving_heads_out_changes_nothing_of_the_last():
    everything, last = stunet(**TINY, heads="all"), stunet(**TINY, heads="last")
    last.load_state_dict(everything.state_dict())
    (x,) = everything.example_inputs(1)
    outputs = everything(x)
    assert [list(o.shape[2:]) for o in outputs] == [[8] * 3, [4] * 3]
    torch.testing.assert_close(last(x), outputs[0])


def test_growing_and_a_pointwise_convolution_commute_at_an_eighth_of_the_products():
    released, cheaper = stunet(**TINY), stunet(**TINY, up="conv_first")
    cheaper.load_state_dict(released.state_dict())
    (x,) = released.example_inputs(1)
    torch.testing.assert_close(cheaper(x), released(x), rtol=1e-4, atol=1e-5)
    one, other = (counted(lambda up=up: stunet(**TINY, up=up))[1] for up in ("nearest_first", "conv_first"))
    assert one - other == 7 * (8 * 6 * 2**3 + 6 * 4 * 4**3)


def test_deep_supervision_weighs_finer_heads_more():
    model = stunet(**TINY, heads="all").train()
    (x,) = model.example_inputs(2)
    targets = model.example_targets(2, 0)
    outputs = model(x)
    coarse = F.cross_entropy(outputs[1], targets[:, ::2, ::2, ::2])
    expected = (F.cross_entropy(outputs[0], targets) + coarse / 2) / 1.5
    torch.testing.assert_close(model.loss(outputs, targets), expected)


def test_sides_and_stages_that_do_not_go_are_refused():
    with pytest.raises(ValueError, match="halved"):
        stunet(side=48)
    with pytest.raises(ValueError, match="two stages"):
        stunet(size="own", widths=[8])
    # six stages halve 32 five times: one voxel, whose deviation an instance norm cannot take
    with pytest.raises(ValueError, match="side=64 or more"):
        stunet(size="S", side=32)
    small = stunet(size="own", widths=[2, 2], classes=2, side=4)
    assert small(*small.example_inputs(1)).shape == (1, 2, 4, 4, 4)


# ---------------------------------------------------------------- Stormer
def test_counts_of_the_paper():
    assert counted(lambda: stormer(**PAPER))[:2] == (468_751_636, 6_980_968_121_344)
    assert closed_forms.stormer(PAPER, {}) == 6_980_968_121_344
    patches = 8192 * 69 * 4 * 1024
    with_variables, plain = (closed_forms.stormer({**PAPER, "embedding": e}, {}) for e in ("variable", "plain"))
    assert with_variables - plain == 1_203_748_470_784  # the aggregation; both embed every patch of every variable
    assert with_variables - plain + patches == 1_206_063_726_592
    assert training_macs(10.0, samples=3, epochs=2) == 180


def test_one_projection_of_the_query_gives_what_one_at_every_place_gives():
    released, once = stormer(query="everywhere", depth=1), stormer(query="once", depth=1)
    once.load_state_dict(released.state_dict())
    args = released.example_inputs(2)
    torch.testing.assert_close(once(*args), released(*args), rtol=1e-4, atol=1e-5)
    assert (
        closed_forms.stormer({"depth": 1}, {}) - closed_forms.stormer({"depth": 1, "query": "once"}, {}) == 127 * 128**2
    )


def test_variables_are_joined_place_by_place():
    torch.manual_seed(0)
    embed = VariableEmbedding(3, 8, 2, 2, 4, 6, "everywhere").double()
    x = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    made, place = embed(x), 0
    for i in range(2):
        for j in range(3):
            tokens = []
            for v in range(3):
                weight, bias = embed.patches.weight[8 * v : 8 * v + 8, 0], embed.patches.bias[8 * v : 8 * v + 8]
                patch = x[0, v, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                tokens.append(
                    (weight * patch).sum((1, 2)) + bias + embed.variable[0, v, 0] + embed.position[0, 0, place]
                )
            q, k, values = embed.q(embed.query[0, 0]), embed.k(torch.stack(tokens)), embed.v(torch.stack(tokens))
            heads = [
                ((k[:, h] @ q[h] / 2).softmax(0) @ values[:, h]) for h in (slice(0, 4), slice(4, 8))
            ]  # heads of 4 numbers: the square root is 2
            torch.testing.assert_close(made[0, place], embed.out(torch.cat(heads)))
            place += 1


def test_a_patch_goes_back_to_its_place():
    model = stormer(variables=2, high=4, wide=6, width=8, depth=1, heads=2)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.arange(8.0))  # row, column, variable of a patch
    made = model(*model.example_inputs(1))
    assert made[0, :, :2, :2].tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]
    torch.testing.assert_close(made[0, :, 2:, 4:], made[0, :, :2, :2])


def test_roll_outs_add_differences():
    def model(fields, lead):
        return lead[:, None, None, None] * torch.ones_like(fields)

    found = rollouts(model, torch.zeros(1, 1, 2, 2))
    assert {step: float(value.mean()) for step, value in found.items()} == pytest.approx({6: 2.4, 12: 2.4, 24: 2.4})


# ---------------------------------------------------------------- tasks
def test_dice_by_hand():
    found = torch.tensor([[[[1, 1], [0, 0]]], [[[0, 0], [0, 0]]]])
    wanted = torch.tensor([[[[1, 0], [0, 0]]], [[[0, 0], [0, 0]]]])
    assert volumes.dice(found, wanted) == [pytest.approx(2 / 3), 1.0]


def test_volumes_follow_their_seed_and_hold_something():
    one, mask = volumes.volumes(3, 16, 5)
    torch.testing.assert_close(one[1:], volumes.volumes(2, 16, 6)[0])
    assert 0 < float(mask.float().mean()) < 0.6 and one.shape == (3, 1, 16, 16, 16)


class Knows(torch.nn.Module):
    """A segmenter that looks the answer up, or answers the background."""

    channels, classes, side = 1, 2, 16

    def __init__(self, right):
        super().__init__()
        self.right, self.given = right, {}

    def forward(self, x):
        mask = torch.stack([self.given[float(v.sum())] for v in x]) if self.right else torch.zeros(len(x), 16, 16, 16)
        return [torch.stack([-mask.float(), mask.float() - 0.5], 1), None]


def test_volumes_score_what_is_right(tmp_path):
    task = volumes.Volumes(tmp_path, 0)
    for right, expected in ((True, 1.0), (False, 0.0)):
        model = Knows(right)
        task.fits(model, "knows")
        for given, wanted in task.batches(8):
            model.given |= {float(v.sum()): m for v, m in zip(given, wanted, strict=True)}
        assert task.score(Run(model)).value == pytest.approx(expected)
    with pytest.raises(TaskError, match="classes=2"):
        task.fits(stunet(**TINY), "three")


def test_the_flow_carries_rows_along_and_leaves_the_poles():
    start = advection.fields(1, 2, 8, 16, 0)
    assert start.mean((-2, -1)).abs().max() < 1e-5 and start.std((-2, -1)).sub(1).abs().max() < 1e-3
    hours = torch.tensor([24.0])
    there = advection.carried(start, hours)
    torch.testing.assert_close(advection.carried(there, -hours), start, rtol=1e-3, atol=1e-3)
    halves = advection.carried(advection.carried(start, hours / 2), hours / 2)
    torch.testing.assert_close(halves, there, rtol=1e-3, atol=1e-3)
    ramp = torch.arange(16.0).mul(torch.pi / 8).sin().expand(1, 2, 8, 16)
    moved = advection.carried(ramp, hours)
    latitude = torch.tensor((3 + 0.5) / 8 * torch.pi - torch.pi / 2)
    shift = advection.SPEED * 24 * latitude.cos()
    torch.testing.assert_close(
        moved[0, 0, 3], (torch.arange(16.0) - shift).mul(torch.pi / 8).sin(), rtol=1e-3, atol=1e-3
    )


class Flow(torch.nn.Module):
    """A forecaster that knows the flow, or forecasts no change."""

    variables, high, wide = 2, 8, 16

    def __init__(self, knows):
        super().__init__()
        self.knows = knows

    def forward(self, fields, lead):
        return advection.carried(fields, lead * 10) - fields if self.knows else torch.zeros_like(fields)


@pytest.mark.parametrize("step", [6, 12, 24])
def test_forecasts_are_judged_by_their_error_over_that_of_none(tmp_path, step):
    task = advection.Advection(tmp_path, 0, step=step)
    for knows, expected in ((True, 0.0), (False, 1.0)):
        task.fits(Flow(knows), "flow")
        assert task.score(Run(Flow(knows))).value == pytest.approx(expected, abs=1e-3)
    with pytest.raises(TaskError, match="6, 12"):
        advection.Advection(tmp_path, 0, step=7)
