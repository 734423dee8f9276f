"""Forms of one network are one function, identity settings give the plain layer, and parts do by hand what they say."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.errors import UsageError
from suites.common.deformable import deform_conv2d
from suites.common.folding import fold_batch_norms, fold_sequences
from suites.common.tasks import waves
from suites.convnets import hyperzzw, lsnet, skipnet_m, unireplknet, xshift
from suites.convnets.apriori import RankConv
from suites.convnets.ccnext import RowExchange, window_mask
from suites.convnets.cfsr import EdgeDepthwise
from suites.convnets.dcls import constructed
from suites.convnets.deh4r import deh4r
from suites.convnets.fdconv import FrequencyDynamic
from suites.convnets.hornet import RecursiveGate
from suites.convnets.p3d import Block
from suites.convnets.rcnet import ChannelShift, Fusion
from suites.convnets.shallow import shallow
from suites.convnets.simplenet_ad import Discriminator, margin_loss, patches
from tests.suites.convnets.building import made, stirred


def close(one, other, tolerance=1e-5):
    scale = other.detach().abs().max().item()
    assert (one - other).detach().abs().max().item() <= tolerance * max(scale, 1e-12)


def run(module, *inputs):
    with torch.no_grad():
        return module.eval()(*inputs)


# -- forms -----------------------------------------------------------------------------------------------------------


def test_merged_unireplknet_is_the_trained_one():
    train = stirred(made("unireplknet_a(width=8, depths=[1, 1, 2, 1], classes=7, form='train')", 64)).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = run(train, x)
    unireplknet.merge(train)
    close(run(train, x), before, 1e-10)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in train.modules())


def test_fused_lsnet_is_the_trained_one():
    train = stirred(made("lsnet_t(dims=[16, 32, 32, 48], depths=[1, 2, 2, 2], classes=7)", 64)).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = run(train, x)
    lsnet.fuse(train)
    close(run(train, x), before, 1e-10)


def test_merged_edges_are_the_four_filters():
    layer = EdgeDepthwise(5)
    layer.strengths.data.normal_()
    x = torch.randn(2, 5, 7, 7)
    close(run(layer.merged(), x), run(layer, x))


def test_forms_of_a_row_attend_alike():
    full, banded = RowExchange(4), RowExchange(4, form="banded")
    stirred(full)
    banded.load_state_dict(full.state_dict())
    views = torch.randn(2, 4, 3, 13), torch.randn(2, 4, 3, 13)
    for one, other in zip(run(full, *views), run(banded, *views), strict=True):
        close(one, other)


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_loop_and_wide_are_one_function(depth):
    loop, wide = (shallow(form=form, depth=depth, width=4, resolution=6) for form in ("loop", "wide"))
    wide.load_state_dict(loop.state_dict())
    x = torch.randn(3, 1, 6, 6)
    close(run(wide, x), run(loop, x))


def test_one_layer_is_the_same_in_every_form_and_none_is_the_identity():
    single = {form: shallow(form=form, depth=1, width=4, resolution=6) for form in ("sequential", "loop", "wide")}
    x = torch.randn(3, 1, 6, 6)
    for network in single.values():
        network.load_state_dict(single["loop"].state_dict())
        close(run(network, x), run(single["loop"], x))
    for network in single.values():
        network.layers.weight.data.zero_()
        network.layers.bias.data.zero_()
        close(run(network, x), network.head(network.stem(x).mean((2, 3))).detach())


def test_a_stack_is_another_function_than_its_parallel_form():
    chain, wide = (shallow(form=form, depth=4, width=4, resolution=6) for form in ("sequential", "wide"))
    wide.load_state_dict(chain.state_dict())
    x = torch.randn(3, 1, 6, 6)
    assert float((run(chain, x) - run(wide, x)).abs().max()) > 1e-3


@pytest.mark.usefixtures("timm")
def test_vertices_one_by_one_are_vertices_at_once():
    batched, one_by_one = (deh4r(form=form, vertices=5, rounds=2, resolution=64) for form in ("batched", "sequential"))
    one_by_one.load_state_dict(batched.state_dict())
    x = torch.randn(2, 3, 64, 64)
    close(run(one_by_one, x), run(batched, x))


# -- folding ---------------------------------------------------------------------------------------------------------


class _Shared(nn.Module):
    """A layer whose output is used twice: its norm may not be folded."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


def test_a_norm_is_folded_only_where_its_layer_feeds_nothing_else():
    network = stirred(_Shared().eval())
    assert fold_batch_norms(network) == 0
    plain = stirred(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)).eval()
    )
    x = torch.randn(2, 3, 4, 4)
    before = run(plain, x)
    assert fold_sequences(copy.deepcopy(plain)) == fold_batch_norms(plain) == 1
    close(run(plain, x), before)


@pytest.mark.parametrize("name, form", [("resnet18", "folded"), ("mobilenetv2_035", "folded"), ("repvgg_a0", "deploy"),
                                        ("test_byobnet", "folded")])  # fmt: skip
def test_folded_networks_of_timm_are_the_same_function(timm, name, form):
    network = stirred(timm.create_model(name).eval()).double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before = run(network, x)
    if form == "deploy":
        network = timm.utils.model.reparameterize_model(network)
    assert fold_batch_norms(network) >= (0 if form == "deploy" else 1)
    close(run(network, x), before, 1e-9)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())


@pytest.mark.usefixtures("timm")
def test_a_network_without_norms_to_fold_says_so():
    with pytest.raises(UsageError, match="no branches to merge"):
        made("timm:convnext_atto(form='folded')")


# -- identity settings and closed forms ------------------------------------------------------------------------------


def test_weights_at_whole_places_are_scattered_taps():
    weight, places = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[[-2.0, 0.0, 1.0]], [[0.0, 1.0, -1.0]]])
    kernel = constructed(weight, places, 5)[0, 0]
    expected = torch.zeros(5, 5)
    expected[0, 2], expected[2, 3], expected[3, 1] = 1.0, 2.0, 4.0
    assert torch.equal(kernel, expected)


def test_weights_on_a_regular_grid_are_a_dilated_convolution():
    weight = torch.randn(3, 9)
    line = torch.tensor([-2.0, 0.0, 2.0])
    places = torch.stack(torch.meshgrid(line, line, indexing="ij")).view(2, 1, 9).expand(2, 3, 9)
    x = torch.randn(1, 3, 8, 8)
    dilated = F.conv2d(x, weight.view(3, 1, 3, 3), padding=2, dilation=2, groups=3)
    close(F.conv2d(x, constructed(weight, places, 5), padding=2, groups=3), dilated)


def test_gradients_of_places_are_finite_differences():
    weight = torch.randn(2, 3, dtype=torch.float64)
    places = (torch.rand(2, 2, 3, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: constructed(weight, p, 5).square().sum(), (places,))


def test_fixed_gates_leave_the_plain_convolution():
    plain = nn.Conv2d(20, 24, 3, padding=1)
    layer = FrequencyDynamic(plain).eval()
    for part in (*layer.gates.modules(), *layer.local.modules()):
        if isinstance(part, nn.Linear | nn.Conv1d):
            part.weight.data.zero_()
            if part.bias is not None:
                part.bias.data.zero_()
    layer.bands = None
    x = torch.randn(2, 20, 6, 6)
    close(run(layer, x), run(plain, x), 1e-4)


def test_features_of_all_bands_are_the_features():
    layer = FrequencyDynamic(nn.Conv2d(20, 24, 3, padding=1)).eval()
    for weights in layer.bands.weights:
        weights.weight.data.zero_()
        weights.bias.data.zero_()
    x = torch.randn(2, 20, 9, 7)
    close(run(layer.bands, x), x)


@pytest.mark.parametrize("groups", [1, 4])
def test_zero_offsets_are_a_plain_convolution_and_whole_ones_shift_it(groups):
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(8, 4 // groups, 3, 3)
    offset = torch.zeros(2, 18, 6, 6)
    plain = F.conv2d(x, weight, padding=1, groups=groups)
    close(deform_conv2d(x, offset, weight, groups=groups, kernel=False), plain)
    offset[:, 0::2] = 1.0  # all taps one row down
    moved = F.pad(x, (0, 0, 0, 1))[:, :, 1:]
    inner = deform_conv2d(x, offset, weight, groups=groups, kernel=False)[:, :, 1:-2, 1:-1]
    close(inner, F.conv2d(moved, weight, padding=1, groups=groups)[:, :, 1:-2, 1:-1])


def test_groups_of_offsets_and_masks_move_their_own_channels():
    x, weight = torch.randn(1, 4, 5, 5), torch.randn(3, 4, 3, 3)
    offset, mask = torch.zeros(1, 36, 5, 5), torch.ones(1, 18, 5, 5)
    close(deform_conv2d(x, offset, weight, mask=mask, kernel=False), F.conv2d(x, weight, padding=1))
    mask[:, 9:] = 0  # the second run of channels is silent
    silent = torch.cat((x[:, :2], torch.zeros_like(x[:, 2:])), 1)
    close(deform_conv2d(x, offset, weight, mask=mask, kernel=False), F.conv2d(silent, weight, padding=1))


@pytest.mark.parametrize("size, rank", [(3, 1), (3, 4), (5, 2)])
def test_factors_and_kernel_agree(size, rank):
    factors = RankConv(5, 6, size, rank, "factors")
    kernel = RankConv(5, 6, size, rank, "kernel")
    kernel.load_state_dict(factors.state_dict())
    x = torch.randn(2, 5, 8, 8)
    close(run(factors, x), run(kernel, x))
    assert sum(p.numel() for p in factors.parameters()) == rank * (5 + 2 * size) * 6 + 6


def test_every_arrangement_with_the_identity_over_time_is_frame_by_frame():
    flat = stirred(Block(8, 4, "2d", 1)).eval()
    x = torch.randn(1, 8, 4, 5, 5)
    block = Block(8, 4, "A", 1).eval()
    block.load_state_dict(flat.state_dict(), strict=False)
    conv, norm = block.time[0], block.time[1]
    conv.weight.data.zero_()
    conv.weight.data[range(4), range(4), 1] = 1.0
    norm.running_var.fill_(1 - norm.eps)
    close(run(block, x), run(flat, x))


def test_a_shift_takes_the_next_and_the_last_frame():
    clip = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 8, 1, 1)
    moved = xshift.shifted(clip, 3, 1 / 4)[:, :, 0, 0]
    assert moved[:, 0].tolist() == moved[:, 1].tolist() == [1, 2, 0]
    assert moved[:, 2].tolist() == [0, 0, 1]
    assert moved[:, 4].tolist() == [0, 1, 2]


def test_window_masks_hold_as_many_places_as_the_closed_form():
    width, m = 80, int(0.26 * 80)
    assert int(window_mask(80).sum()) == width * (2 * m - 1) - m * (m - 1) == 2740


def test_an_exchange_begins_as_the_identity_and_swaps_with_its_views():
    layer = RowExchange(4)
    left, right = torch.randn(1, 4, 2, 9), torch.randn(1, 4, 2, 9)
    for given, got in zip((left, right), run(layer, left, right), strict=True):
        assert torch.equal(given, got)
    stirred(layer)
    one, other = run(layer, left, right)
    again, first = run(layer, right, left)
    close(one, first)
    close(other, again)


def test_a_fusion_begins_as_the_mean_and_a_shift_keeps_all_values():
    fusion = Fusion(8, True, "dcn").eval()
    a, b = torch.randn(2, 8, 6, 6), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        close(fusion.fused(a, b), (a + b) / 2)
    levels = [torch.full((1, 32, 2, 2), float(number)) for number in range(5)]
    moved = ChannelShift.shifted(levels)
    assert moved[1][0, :, 0, 0].tolist() == [1.0] * 32 + [2.0] * 2 + [0.0] * 2 + [3.0] * 2 + [4.0] * 2


def test_gnconv_of_order_one_is_one_gate():
    gate = RecursiveGate(4, 1)
    x = torch.randn(1, 4, 6, 6)
    p, q = gate.enter(x).split((4, 4), 1)
    close(run(gate, x), gate.leave(p * gate.spatial(q) / 3).detach())


def test_membership_sums_to_one_over_places():
    graph = made("hypergraph(width=32, edges=3)", 5).body
    member = graph.membership(torch.randn(2, 25, 32))
    close(member.sum(1), torch.ones(2, 3))


def test_the_global_product_by_hand():
    z, kernel = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    assert hyperzzw.global_product(z, kernel)[0, 0].tolist() == [[0.5, 8.0], [1.5, 16.0]]


def test_the_bias_loss_is_cross_entropy_where_nothing_varies_and_weighs_what_does():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    each = F.cross_entropy(logits, targets, reduction="none")
    flat = torch.ones(4, 2, 3, 3)
    close(skipnet_m.bias_loss(logits, targets, flat), 0.7 * each.mean())
    lively = flat.clone()
    lively[0] += torch.randn(2, 3, 3)
    weights = torch.tensor([float(torch.tensor(0.3).exp()) - 0.3, 0.7, 0.7, 0.7])
    close(skipnet_m.bias_loss(logits, targets, lively), (weights * each).mean())


def test_without_noise_the_loss_is_twice_the_margin():
    judge = Discriminator(6, 4).eval()
    judge.leave.weight.data.mul_(1e-3)  # so that no answer leaves the margin
    assert float(judge.loss(torch.randn(2, 5, 6), noise=0.0)) == pytest.approx(1.0)
    assert float(margin_loss(torch.tensor([1.0]), torch.tensor([-1.0]))) == 0


def test_pooled_neighbourhoods_are_a_fixed_averaging_matrix():
    fine, coarse = torch.zeros(1, 4, 4, 4), torch.zeros(1, 8, 2, 2)
    whole = patches(torch.ones_like(fine), torch.ones_like(coarse), 6)
    assert float(whole[0, 5, 0]) == pytest.approx(1.0)  # an inner place sees nine ones a channel
    fine[0, 2, 1, 1] = 1.0
    one = patches(fine, coarse, 6)
    assert float(one[0, 5].sum()) > 0
    assert float(one[0, 5].sum()) == pytest.approx(float(patches(2 * fine, coarse, 6)[0, 5].sum()) / 2)


def test_a_wave_steps_as_the_equation_says():
    now = torch.zeros(1, 5, 5)
    now[0, 2, 2] = 1.0
    after = waves.step(now, now)
    assert after[0, 2, 2].item() == pytest.approx(1 - 4 * waves.COURANT_SQUARED)
    assert after[0, 1, 2].item() == pytest.approx(waves.COURANT_SQUARED)
    inputs, targets = waves.pairs(6, 16, 0)
    close(waves.step(inputs[:, 0], inputs[:, 1]).unsqueeze(1), targets)


# -- refusals that name the remedy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec, resolution, wrong, word",
    [
        ("skipnet_m(classes=3)", None, 160, "only built for 224"),
        ("lsnet_t(dims=[16, 16, 32, 32], depths=[0, 1, 1, 2])", 64, 128, "build it for its input"),
        ("hornet_tiny_gf(base=16, depths=[1, 1, 1, 1])", 64, 96, "build the network for the resolution"),
        ("terminator(channels=[3, 12])", 16, 24, "build it for their resolution"),
        ("leyolo_n(classes=2)", 64, 60, "32 divides"),
        ("bevanet_s(planes=8, depth=1)", 128, 64, "128 or more"),
    ],
)
def test_networks_of_fixed_sizes_say_what_they_need(spec, resolution, wrong, word):
    with pytest.raises(UsageError, match=word):
        run(made(spec, resolution), torch.randn(1, 3, wrong, wrong))
