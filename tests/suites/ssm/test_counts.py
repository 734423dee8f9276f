"""What papers print and closed forms say is what the networks have: parameters, products P and states S."""

import pytest
import torch

from suites.ssm import closed_forms
from suites.ssm.efficient_vmamba import EfficientVMamba, ScanBlock, efficient_vmamba
from suites.ssm.mixers import heads_of
from suites.ssm.mobile_mamba import mobile_mamba, split_channels
from suites.ssm.netmamba import netmamba, netmamba_transformer
from suites.ssm.orders import CROSS, Orders
from suites.ssm.pretraining import kept_tokens, netmamba_pretraining
from suites.ssm.serpent import serpent
from suites.ssm.stream import ssm_stream
from tests.suites.ssm.counting import count_of, counted


@pytest.mark.parametrize(
    ("step", "products", "states"), [(2, 1_143_275_520, 19_267_584), (1, 1_297_416_192, 77_070_336)]
)
def test_efficient_vmamba_s_has_the_counts_of_its_table_with_the_same_parameters_at_both_steps(step, products, states):
    found = counted(efficient_vmamba, 3, 224, 224, size="S", step=step)
    assert (found.params, found.products, found.states) == (11_273_688, products, states)


@pytest.mark.parametrize(("size", "share"), [("T", 0.8157), ("S", 0.8458), ("B", 0.9147)])
def test_quarters_of_the_map_have_a_quarter_of_the_states_and_most_of_the_products(size, share):
    atrous, dense = (closed_forms.efficient_vmamba({"size": size, "step": step}, {}) for step in (2, 1))
    assert round(atrous / dense, 4) == share
    quiet = [closed_forms.efficient_vmamba({"size": size, "step": step, "scan": "identity"}, {}) for step in (2, 1)]
    assert dense - quiet[1] == 4 * (atrous - quiet[0])


@pytest.mark.parametrize(("step", "products", "states"), [(2, 111_392_768, 6_422_528), (1, 159_561_728, 25_690_112)])
def test_one_scanning_block_is_counted_as_derived(step, products, states):
    with torch.device("meta"):
        block = ScanBlock(64, Orders(CROSS, step, False), "both", "parallel")
    found = count_of(block, 56, 56, 64)
    assert (found.params, found.products, found.states) == (62_088, products, states)


def test_the_gate_is_one_set_of_parameters_for_both_branches():
    one = {"dims": [64], "depths": [1]}
    params = {
        branch: counted(efficient_vmamba, 3, 64, 64, branch=branch, **one).params for branch in ("both", "ssm", "conv")
    }
    shell = EfficientVMamba([64], [], 4, 1000)
    outside = sum(p.numel() for p in shell.parameters()) + 2 * 64  # and the norm that both branches read
    gate = 2 * 64 + 2 * 64 * 8 + 8 + 64
    assert gate == 1224
    assert params["ssm"] + params["conv"] - params["both"] == outside + gate


def test_a_width_that_eight_does_not_divide_has_a_gate_of_its_whole_eighths():
    # C = 20: D = 40, R = 2, C // 8 = 2; 24 px are a map of 6 x 6, L = 36, Ls = 9
    # P = 36 (2CD + 9D + DC + 9C + C^2 = 3340) + 4 x 9 x 40 (2 x 2 + 2 x 16) + 4 x 20 x 2 = 172,240
    # and 36 x 48 x 20 of patches, 20 x 1000 of the head; S = 4 x 40 x 16 x 9
    # params = 40 + 11,520 of the scan + 660 of the convolution + 142 of the gate, and 22,060 outside of the block
    found = counted(efficient_vmamba, 3, 24, 24, dims=[20], depths=[1])
    assert (found.params, found.products, found.states) == (12_362 + 22_060, 172_240 + 34_560 + 20_000, 23_040)
    form = closed_forms.efficient_vmamba({"dims": [20], "depths": [1], "resolution": 24}, {})
    assert form == found.products + found.states


def test_heads_have_sixteen_channels_or_as_few_more_as_divide():
    assert [heads_of(channels) for channels in (8, 16, 20, 40, 48, 56, 96, 17)] == [1, 1, 1, 2, 3, 2, 6, 1]


@pytest.mark.parametrize(
    ("size", "params", "wavelets", "fused", "products", "states"),
    [
        ("T2", 8_806_682, 8_836_890, 8_779_236, 251_717_544, 135_936),
        ("S6", 14_996_696, 15_036_632, 14_960_520, 646_707_632, 266_880),
    ],
)
def test_mobile_mamba_has_three_counts_of_parameters_and_hardly_any_states(
    size, params, wavelets, fused, products, states
):
    with torch.device("meta"):
        network, folded = mobile_mamba(size=size), mobile_mamba(size=size, fused=True)
    found = count_of(network, 3, network.resolution, network.resolution)
    assert (found.params, network.params_with_wavelets, network.params_fused) == (params, wavelets, fused)
    assert sum(parameter.numel() for parameter in folded.parameters()) == fused
    assert (found.products, found.states) == (products, states)


def test_mobile_mamba_on_maps_of_two_and_one_pixels():
    found = counted(mobile_mamba, 3, 32, 32, dims=[64, 96, 128], depth=[1, 1, 1], resolution=32)
    assert (found.params, found.products, found.states) == (951_718, 1_454_314, 1344)


@pytest.mark.parametrize(
    ("width", "stage", "parts"),
    [
        (144, 0, (112, 28, 4)), (272, 1, (192, 54, 26)), (368, 2, (224, 110, 34)),
        (176, 0, (144, 32, 0)), (368, 1, (256, 73, 39)), (448, 2, (272, 134, 42)),
        (192, 0, (160, 32, 0)), (384, 1, (272, 76, 36)), (200, 0, (160, 40, 0)), (376, 1, (256, 75, 45)),
    ],
)  # fmt: skip
def test_channels_are_split_as_published(width, stage, parts):
    assert split_channels(width, (0.8, 0.7, 0.6)[stage], (0.2, 0.2, 0.3)[stage]) == parts


@pytest.mark.parametrize(
    ("size", "side", "params", "products", "states"),
    [
        ("c48_p4", 256, 5_198_256, 1_504_149_504, 182_452_224),
        ("tiny", 64, 138_764, 27_303_936, 6_815_744),
        ("tiny", 128, 138_764, 109_215_744, 27_262_976),
    ],
)
def test_serpent_has_the_counts_that_were_derived_for_it(size, side, params, products, states):
    found = counted(serpent, 3, side, side, size=size)
    assert (found.params, found.products, found.states) == (params, products, states)


def test_serpent_grows_with_the_pixels_and_global_attention_with_their_square():
    for mixer in ("scan", "conv", "window", "mdta", "global"):
        small, large = (closed_forms.serpent({"size": "tiny", "mixer": mixer, "resolution": r}, {}) for r in (64, 128))
        assert (large == 4 * small) == (mixer != "global")
        if mixer == "global":
            squares = large - 4 * small  # 16 a^2 - 4 a^2 of the part that grows with the square of the tokens
            again = closed_forms.serpent({"size": "tiny", "mixer": mixer, "resolution": 256}, {}) - 4 * large
            assert again == 16 * squares


def test_half_the_patch_reads_four_times_the_states():
    states = []
    for patch in (4, 2, 1):
        s = {"size": "c48_p4", "patch": patch, "resolution": 256}
        states.append(closed_forms.serpent(s, {}) - closed_forms.serpent({**s, "scan": "identity"}, {}))
    assert states == [182_452_224, 4 * 182_452_224, 16 * 182_452_224]


def test_netmamba_its_twin_and_its_pretraining_are_counted_as_derived():
    mamba, twin = counted(netmamba, 1600), counted(netmamba_transformer, 1600)
    assert (mamba.params, mamba.products, mamba.states) == (1_858_311, 686_974_720, 13_139_968)
    assert (twin.params, twin.products) == (3_265_543, 1_591_168_768)
    with torch.device("meta"):
        assert sum(p.numel() for p in netmamba_pretraining().parameters()) == 2_174_724
    assert kept_tokens(400, 0.9) == 39  # 400 x (1 - 0.9) is a little less than 40 in floating point


def test_against_an_equally_wide_transformer_the_factor_grows_with_the_bytes():
    ratios = []
    for length in (1600, 6400):
        twin, own = (f({"bytes": length}, {}) for f in (closed_forms.netmamba_transformer, closed_forms.netmamba))
        ratios.append(round(twin / own, 1))
    assert ratios == [2.3, 3.7]


THREE = {"dims": [8, 16, 24], "depths": [1, 1, 1]}
SMALL = {"dims": [40, 72, 96], "depth": [1, 1, 1]}


@pytest.mark.parametrize(
    ("build", "form", "side", "settings"),
    [
        (efficient_vmamba, closed_forms.efficient_vmamba, 101, {"dims": [8, 16], "depths": [1, 1], "ssm_stages": "12"}),
        (efficient_vmamba, closed_forms.efficient_vmamba, 76, {**THREE, "ssm_stages": "34", "scan": "chunk=7"}),
        (mobile_mamba, closed_forms.mobile_mamba, 147, {**SMALL, "split": "no_identity"}),
        (mobile_mamba, closed_forms.mobile_mamba, 83, {**SMALL, "split": "all_global", "scan": "identity"}),
        (serpent, closed_forms.serpent, 45, {"size": "tiny"}),
        (serpent, closed_forms.serpent, 45, {"size": "tiny", "mixer": "window"}),
        (serpent, closed_forms.serpent, 52, {"size": "tiny", "mixer": "mdta", "matched": False}),
        (serpent, closed_forms.serpent, 40, {"size": "tiny", "mixer": "global"}),
        (serpent, closed_forms.serpent, 45, {"size": "tiny", "mixer": "long"}),
        (serpent, closed_forms.serpent, 5, {"size": "tiny", "width": 8, "blocks": [1, 1, 1, 1]}),
        (serpent, closed_forms.serpent, 20, {"size": "tiny", "width": 28, "blocks": [1, 1], "mixer": "mdta"}),
        (serpent, closed_forms.serpent, 20, {"size": "tiny", "width": 28, "blocks": [1, 1], "mixer": "window"}),
    ],
)  # fmt: skip
def test_the_closed_form_is_the_trace_at_odd_sizes_and_in_every_form(build, form, side, settings):
    found = counted(build, 3, side, side, **settings)
    assert found.products + found.states == form({**settings, "resolution": side}, {})


class _Stream(torch.nn.Module):
    """So many steps of a stream as one forward, or the whole clip."""

    def __init__(self, network, whole):
        super().__init__()
        self.network, self.whole = network, whole

    def forward(self, clip):
        if self.whole:
            return self.network.offline(clip)
        state, hop = self.network.init(len(clip)), getattr(self.network, "hop", 0)
        for place in range(clip.shape[1] // max(1, hop)):
            given = clip[:, place * hop : (place + 1) * hop] if hop else clip[:, place]
            _, state = self.network.step(given, state)


def test_a_step_of_the_stream_costs_its_share_of_the_whole_sequence():
    with torch.device("meta"):
        network = ssm_stream(width=8, state=4)
    one, whole = (count_of(_Stream(network, flag), length, 1) for flag, length in ((False, 1), (True, 12)))
    assert (12 * one.products, 12 * one.states) == (whole.products, whole.states)


def test_the_steps_of_a_flow_cost_what_the_whole_flow_costs():
    with torch.device("meta"):
        network = netmamba(bytes=16, width=16, depth=2, state=4, classes=5)
    steps, whole = (count_of(_Stream(network, flag), 4 * network.period) for flag in (False, True))
    assert (steps.products, steps.states) == (whole.products, whole.states)
    form = closed_forms.netmamba({"bytes": 16, "width": 16, "depth": 2, "state": 4, "classes": 5}, {})
    assert whole.products + whole.states == form
