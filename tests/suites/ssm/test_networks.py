"""The networks are what the papers say: blocks by hand, identities, folds, streams that give what whole flows give."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.errors import UsageError
from bench.tensors import held_bytes
from suites.ssm.efficient_vmamba import efficient_vmamba
from suites.ssm.haar import analyse, haar_filters, synthesise
from suites.ssm.mixers import mixer_block
from suites.ssm.mobile_mamba import Mixer, mobile_mamba
from suites.ssm.netmamba import netmamba
from suites.ssm.pretraining import netmamba_pretraining
from suites.ssm.serpent import serpent
from suites.ssm.stream import ssm_stream

VMAMBA = {"dims": [8, 16, 24], "depths": [1, 1, 1], "patch": 2, "classes": 5}
MOBILE = {"dims": [16, 32, 48], "depth": [1, 1, 1], "stem_strides": [1, 2, 1, 2], "classes": 5}
SERPENT = {"size": "tiny", "width": 8, "blocks": [1, 1]}
FLOW = {"bytes": 36, "width": 16, "depth": 2, "state": 4, "classes": 5}


def same_weights(build, settings, *others):
    """The network, and others of it with further settings and the same weights, in float64."""
    torch.manual_seed(0)
    first = build(**settings).double()
    made = [build(**{**settings, **other}).double() for other in others]
    for network in made:
        network.load_state_dict(first.state_dict())
    return first, *made


def stirred(network):
    """Running statistics and affine weights that are not those of the start, so that a fold has something to do."""
    generator = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            for value in (part.running_mean, part.weight.data, part.bias.data):
                value.copy_(torch.randn(value.shape, generator=generator))
            part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
    return network


FORMS = [{"scan": "sequential"}, {"scan": "chunk=5"}, {"scan": "chunk=64"}]


@pytest.mark.parametrize(
    ("build", "settings", "shape"),
    [
        (efficient_vmamba, VMAMBA, (3, 18, 18)),
        (efficient_vmamba, {**VMAMBA, "step": 1}, (3, 14, 18)),
        (mobile_mamba, MOBILE, (3, 20, 20)),
        (serpent, SERPENT, (3, 12, 12)),
        (netmamba, FLOW, (36,)),
        (ssm_stream, {"width": 8, "side": 5}, (1, 5, 5)),
    ],
)
def test_every_form_of_the_scan_gives_the_network_the_same_answers(build, settings, shape):
    networks = same_weights(build, settings, *FORMS)
    x = torch.randn(2, *shape, dtype=torch.float64)
    for network in networks[1:]:
        assert torch.allclose(network(x), networks[0](x), atol=1e-9)


@pytest.mark.parametrize(
    ("build", "settings", "shape"),
    [
        (efficient_vmamba, VMAMBA, (3, 18, 18)),
        (mobile_mamba, MOBILE, (3, 20, 20)),
        (serpent, SERPENT, (3, 12, 12)),
        (netmamba, FLOW, (36,)),
    ],
)
def test_in_two_bytes_networks_answer_as_in_eight_up_to_rounding(build, settings, shape):
    (network,) = same_weights(build, settings)
    x = torch.randn(2, *shape, dtype=torch.float64)
    wanted = network(x)
    found = network.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert float((found.double() - wanted).abs().max() / wanted.abs().max()) < 0.1


def test_both_steps_hold_the_same_parameters_and_are_other_functions():
    atrous, dense = same_weights(efficient_vmamba, VMAMBA, {"step": 1})
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    assert atrous.state_dict().keys() == dense.state_dict().keys()
    assert not torch.allclose(atrous(x), dense(x))


def test_a_block_of_both_branches_is_x_plus_the_two_gated_branches():
    torch.manual_seed(0)
    block = efficient_vmamba(**VMAMBA).double().stages[0][0]
    x = torch.randn(2, 6, 6, 8, dtype=torch.float64)
    seen = F.layer_norm(x, (8,), block.norm.weight, block.norm.bias)
    wanted = x
    for branch in (block.ssm(seen), block.conv(seen)):
        hidden = F.gelu(block.gate.down(block.gate.norm(branch).mean((1, 2))))
        wanted = wanted + branch * torch.sigmoid(block.gate.up(hidden))[:, None, None]
    assert torch.allclose(block(x), wanted)


def test_the_control_in_raster_order_is_another_function_of_the_same_products():
    plain, straight = same_weights(efficient_vmamba, {**VMAMBA, "step": 1}, {"order": "raster4"})
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    assert not torch.allclose(plain(x), straight(x))


@pytest.mark.parametrize(
    ("build", "settings", "says"),
    [
        (efficient_vmamba, {**VMAMBA, "ssm_stages": "none", "scan": "fused"}, "unknown"),
        (efficient_vmamba, {**VMAMBA, "dims": [4, 16, 24]}, "less than 8"),
        (efficient_vmamba, {**VMAMBA, "patch": 8, "resolution": 7}, "less than one patch"),
        (mobile_mamba, {**MOBILE, "ssm": False, "scan": "chunk=0"}, "one token or more"),
        (mobile_mamba, {**MOBILE, "split": "all_global", "global_ratio": [0.5] * 3}, "ratios of its own"),
        (mobile_mamba, {**MOBILE, "split": "no_identity", "local_ratio": [0.1] * 3}, "ratios of its own"),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(build, settings, says):
    with pytest.raises(UsageError, match=says):
        build(**settings)


# -- MobileMamba -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (1, 1), (2, 7)])
def test_the_haar_pair_is_orthonormal_and_gives_its_input_back(size):
    filters = haar_filters().double()
    assert torch.allclose(filters.flatten(1) @ filters.flatten(1).T, torch.eye(4, dtype=torch.float64))
    assert torch.allclose(filters.abs(), torch.full_like(filters, 0.5))
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    stacked = filters.repeat(3, 1, 1)[:, None]
    made = analyse(x, stacked)
    assert made.shape == (2, 12, -(-size[0] // 2), -(-size[1] // 2))
    assert torch.allclose(synthesise(made, stacked, *size), x)
    assert torch.allclose(made.square().sum(), x.square().sum())


def test_one_level_of_haar_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert torch.allclose(analyse(x, haar_filters()[:, None]).flatten(), torch.tensor([5.0, -1.0, -2.0, 0.0]))


def test_folded_is_unfolded():
    torch.manual_seed(0)
    plain = stirred(mobile_mamba(**MOBILE)).double().eval()
    x = torch.randn(2, 3, 20, 20, dtype=torch.float64)
    wanted = plain(x)
    before = plain.params_fused
    folded = plain.fold()
    assert torch.allclose(folded(x), wanted, atol=1e-8)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert sum(p.numel() for p in folded.parameters()) == before


def test_with_both_scales_at_zero_the_global_channels_are_zero():
    kinds = {"ssm": True, "wavelet": True, "form": "parallel", "raster4": False}
    mixer = Mixer(32, 5, (0.7, 0.2), **kinds).eval()
    nn.init.zeros_(mixer.scan.scale)
    nn.init.zeros_(mixer.wavelet.scale)
    seen = []
    mixer.join.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(1, 32, 6, 6)
    mixer(x)
    wide, near, rest = mixer.parts
    assert (wide, near, rest) == (16, 6, 10)
    assert seen[0][:, :wide].abs().max() == 0
    assert torch.equal(seen[0][:, wide + near :], x[:, wide + near :])  # what is left alone


def test_all_global_is_the_ratio_of_one_and_zero():
    ratios = {"split": "paper", "global_ratio": [1.0] * 3, "local_ratio": [0.0] * 3}
    one, other = same_weights(mobile_mamba, {**MOBILE, "split": "all_global"}, ratios)
    x = torch.randn(1, 3, 20, 20, dtype=torch.float64)
    assert torch.equal(one(x), other(x))


def test_the_three_large_sizes_are_one_network():
    with torch.device("meta"):
        networks = [mobile_mamba(size=size) for size in ("B1", "B2", "B4")]
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
    assert [network.resolution for network in networks] == [256, 384, 512]
    assert shapes[0] == shapes[1] == shapes[2]


def test_global_channels_that_nothing_works_on_are_refused():
    with pytest.raises(UsageError, match="nothing works"):
        mobile_mamba(**MOBILE, ssm=False, wavelet=False)


# -- Serpent -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", ["scan", "long", "conv", "window", "global", "mdta"])
def test_with_a_zero_output_layer_the_network_gives_its_input(mixer):
    network = serpent(**SERPENT, mixer=mixer)
    for value in network.leave.parameters():
        nn.init.zeros_(value)
    x = torch.randn(1, 3, 14, 10)
    assert torch.equal(network(x), x)


def test_sides_that_do_not_divide_are_reflected_and_cropped():
    network = serpent(**SERPENT)
    x = torch.randn(1, 3, 12, 12)
    larger = F.pad(x[:, :, :10, :11], (0, 1, 0, 2), mode="reflect")
    found = network(x[:, :, :10, :11])
    assert found.shape == (1, 3, 10, 11)
    assert torch.allclose(found, network(larger)[:, :, :10, :11], atol=1e-6)


def test_pictures_smaller_than_what_is_added_are_mirrored_there_and_back():
    network = serpent(size="tiny", width=8, blocks=[1, 1, 1, 1])  # patches of 2, four levels: multiples of 16
    x = torch.randn(1, 3, 5, 1)
    rows = [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]
    larger = x[:, :, rows][:, :, :, [0] * 16]
    assert torch.allclose(network(x), network(larger)[:, :, :5, :1], atol=1e-6)


def test_windows_see_themselves_alone_and_channels_see_all_pixels():
    torch.manual_seed(0)
    x = torch.randn(1, 16, 16, 16, dtype=torch.float64)
    other = x.clone()
    other[:, 12, 12] = torch.randn(16, dtype=torch.float64)
    changed = {}
    for kind in ("window", "mdta", "global"):
        block = mixer_block(kind, 16).double()
        changed[kind] = (block(x) - block(other)).abs().sum(-1)[0] > 0
    assert changed["window"][8:, 8:].all() and not changed["window"][:8].any() and not changed["window"][:, :8].any()
    assert changed["global"].all() and changed["mdta"].float().mean() > 0.9


def test_attention_in_a_window_as_large_as_the_map_is_attention_over_all_tokens():
    torch.manual_seed(0)
    windows, everything = mixer_block("window", 16), mixer_block("global", 16)
    everything.load_state_dict(windows.state_dict())
    for side in (8, 5):
        x = torch.randn(2, side, side, 16)
        assert torch.allclose(windows(x), everything(x), atol=1e-5)


def test_other_mixers_come_within_a_third_of_the_parameters():
    with torch.device("meta"):
        mixers = ("scan", "long", "conv", "window", "global", "mdta")
        networks = {name: serpent(size="c48_p4", mixer=name) for name in mixers}
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert all(abs(size / sizes["scan"] - 1) < 1 / 3 for size in sizes.values()), sizes


# -- streams and flows -------------------------------------------------------------------------------------------------


def test_a_flow_taken_stride_by_stride_gives_what_the_whole_flow_gives():
    network = netmamba(**FLOW).double()
    clip = network.example_clip(2, 2 * network.period)
    state, answers = network.init(2), []
    for place in range(2 * network.period):
        answer, state = network.step(clip[:, 4 * place : 4 * place + 4], state)
        assert (answer is None) == ((place + 1) % network.period != 0)
        answers += [] if answer is None else [answer]
    assert torch.allclose(torch.stack(answers, 1), network.offline(clip), atol=1e-9)
    assert torch.allclose(answers[0], network(clip[:, : network.bytes]), atol=1e-9)


def test_the_state_of_a_stream_is_as_large_whatever_the_length():
    with torch.device("meta"):
        for length in (400, 1600):
            kept = netmamba(bytes=length).init(1)["blocks"]
            assert sum(part.ring.numel() + part.states.numel() for part in kept) == 40_960
        kept = ssm_stream(width=32, depth=2).init(1)
        assert [part.ring.numel() for part in kept] == [3 * 64] * 2 and kept[0].states.numel() == 64 * 16


def test_a_state_that_was_walked_to_holds_no_more_than_it_needs():
    # ssm_stream: D = 16 channels of 4 states and 3 inputs; netmamba: D = 32 of 4 states and 4 inputs; 2 layers, 4 bytes
    with torch.inference_mode():
        network = ssm_stream(width=8, depth=2, state=4)
        state = network.init(1)
        for x in network.example_clip(1, 6).unbind(1):
            _, state = network.step(x, state)
        assert held_bytes(state) == 2 * 16 * (4 + 3) * 4
        flows = netmamba(**FLOW)
        state = flows.init(1)
        for x in flows.example_clip(1, 3).split(4, 1):
            _, state = flows.step(x, state)
        assert held_bytes(state["blocks"]) == 2 * 32 * (4 + 4) * 4


def test_a_window_that_ends_within_a_flow_is_refused():
    network = netmamba(**FLOW)
    with pytest.raises(UsageError, match="whole flows of 10"):
        network.offline(network.example_clip(1, 7))


def test_a_later_byte_changes_no_earlier_token():
    network = netmamba(**FLOW).double()
    flow = network.example_inputs(1)[0].double()
    other = flow.clone()
    other[:, 20] += 0.5
    features = []
    for given in (flow, other):
        x = network.encoder(given)
        for block in network.blocks:
            x = block(x)
        features.append(x)
    same = (features[0] - features[1]).abs().amax(-1)[0]
    assert same[:5].max() == 0 and same[5:].min() > 0


def test_a_stream_agrees_with_the_whole_sequence_from_its_first_step():
    network = ssm_stream(width=8, depth=2, state=4).double()
    clip = network.example_clip(2, 9)
    state, answers = network.init(2), []
    for place in range(9):
        answer, state = network.step(clip[:, place], state)
        answers.append(answer)
    assert torch.allclose(torch.stack(answers, 1), network.offline(clip), atol=1e-10)


def test_without_masking_and_in_order_the_pretraining_encodes_as_the_plain_encoder():
    torch.manual_seed(0)
    network = netmamba_pretraining(bytes=40, masking=0.0, width=16, depth=2, state=4, decoder_width=8, decoder_depth=1)
    flow = network.example_inputs(2)[0]
    plain = netmamba(bytes=40, width=16, depth=2, state=4)
    plain.encoder.load_state_dict(network.encoder.state_dict())
    plain.blocks.load_state_dict(network.blocks.state_dict())
    x = plain.encoder(flow)
    for block in plain.blocks:
        x = block(x)
    order = torch.arange(10).expand(2, -1)
    assert torch.allclose(network.encode(flow, order), network.norm(x), atol=1e-6)


def test_dropped_strides_are_not_computed_and_the_loss_is_over_them():
    network = netmamba_pretraining(bytes=80, width=16, depth=1, state=4, decoder_width=8, decoder_depth=1)
    flow = network.example_inputs(2)[0]
    seen = []
    network.blocks[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    order = torch.stack([torch.randperm(20), torch.randperm(20)])
    predicted = network(flow, order)
    assert network.kept == 1 and seen == [2]  # int(20 x 0.1 in floating point), and the class token
    wanted = flow.view(2, 20, 4)
    expected = torch.stack([(predicted - wanted)[i, order[i, 1:]] for i in range(2)]).square().mean()
    assert torch.allclose(network.loss(predicted, flow), expected)
    other = flow.clone().view(2, 20, 4)
    for i in range(2):
        other[i, order[i, 1:]] += 1  # what was dropped cannot have been looked at
    assert torch.equal(network(other.view(2, 80), order), predicted)
