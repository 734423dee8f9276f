"""The search space, its table and the networks: printed numbers, closed forms against the trace, names."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.meters import macs
from suites.common import fbnet
from suites.predict import cohorts, networks
from suites.predict.networks import fbnet_block, fbnet_network, mobilenetv2, named, table_rows
from suites.predict.operators import dense, inverted


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def counted(module, *shape):
    with torch.no_grad():
        return macs.count(module.to("meta").eval(), (torch.empty(*shape, device="meta"),), {}, second_count=False).macs


def test_the_table_has_198_rows_of_which_96_and_six_skips_are_distinct():
    table = table_rows()
    assert len(table) == 198
    skips = [row for (_, candidate), row in table.items() if candidate == "s" and row is not None]
    rows = {row.key for (_, candidate), row in table.items() if candidate != "s"}
    assert len(rows) == 96 and len({row.key for row in skips}) == 6
    assert sum(row is None for row in table.values()) == 22 - 6


def test_a_row_and_fbnet_c_have_the_printed_products():
    assert fbnet_block(24, 56, (5, 32, 2, 6, 1)).macs == 17_273_088
    network = fbnet.fbnet(plan="c")
    weights = sum(p.numel() for name, p in network.named_parameters() if p.dim() > 1)
    assert parameters(network) == 5_570_664 and weights == 5_525_424
    assert fbnet_network("fbnet_c").macs == 378_136_224 and 378_136_224 + 49 * 1984 == 378_233_440


def test_timm_fbnetc_keeps_first_layers_that_fbnet_c_has_not():
    timm = pytest.importorskip("timm")
    other = timm.create_model("fbnetc_100")
    extra = [16 * 16, 24 * 24, 24 * 24]
    norms = [2 * 16, 2 * 24, 2 * 24]
    assert parameters(other) - 5_570_664 == sum(extra) + sum(norms)
    assert 16 * 16 * 112**2 + 2 * 24 * 24 * 56**2 == 6_823_936


@given(
    inputs=st.sampled_from([4, 8, 24, 40]), outputs=st.sampled_from([6, 8, 32]), side=st.integers(3, 15),
    kernel=st.sampled_from([3, 5]), stride=st.sampled_from([1, 2]), expansion=st.sampled_from([0, 1, 3, 6]),
    groups=st.sampled_from([1, 2]),
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_a_row_of_any_size_costs_on_paper_what_the_trace_counts(
    inputs, outputs, side, kernel, stride, expansion, groups
):
    if expansion == 0:
        kernel, groups = 1, 1
    row = (kernel, outputs, stride, expansion, groups)
    module = fbnet.block(inputs, row)
    described = fbnet_block(inputs, side, row)
    assert counted(module, 1, inputs, side, side) == described.macs
    assert 4 * sum(p.numel() for p in [*module.parameters(), *module.buffers()] if p.dim()) == sum(
        operator.weight_bytes for operator in described.operators
    )


@pytest.mark.parametrize("name", ["fbnet_a", "fbnet_random_5"])
def test_a_network_is_the_sum_of_its_rows_as_modules_and_on_paper(name):
    network = fbnet_network(name, 64)
    assert counted(cohorts._fbnet(name, 64), 1, 3, 64, 64) == network.macs


@pytest.mark.parametrize("percent", [50, 75, 100, 140])
def test_mobilenetv2_has_torchvisions_parameters_and_products_at_every_width(percent):
    torchvision = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        ours = torch.nn.Sequential(*(layer for layer, _ in cohorts._mobile_layers(percent, 224)))
        theirs = torchvision.mobilenet_v2(weights=None, width_mult=percent / 100)
    assert parameters(ours) == parameters(theirs)
    assert counted(ours, 1, 3, 224, 224) == counted(theirs, 1, 3, 224, 224) == mobilenetv2(percent).macs


def test_generated_networks_are_the_same_every_time_and_within_their_ranges():
    widths = [networks.dense_widths(number) for number in range(60)]
    assert widths == [networks.dense_widths(number) for number in range(60)] and len(set(widths)) == 60
    assert all(3 <= len(each) <= 9 and min(each) >= 2 and max(each) <= 512 for each in widths)
    plan = networks.conv_plan(4)
    module = cohorts.conv_layers(plan)
    assert counted(module, 1, 3, plan.side, plan.side) == named("conv_4").macs
    assert named("jet_tagging").macs == 16 * 64 + 64 * 32 + 32 * 32 + 32 * 5


def test_names_stand_for_one_network_and_unknown_ones_are_refused():
    assert named("fbnet_random_3").key == fbnet_network("fbnet_random_3").key != named("fbnet_random_4").key
    assert named("fbnet_a", 96).key != named("fbnet_a").key
    for wrong in ("fbnet_d", "resnet", "dense_x"):
        with pytest.raises(UsageError):
            named(wrong)
    with pytest.raises(UsageError, match="candidate"):
        fbnet.rows_of(["7/3"] * 22)
    with pytest.raises(UsageError, match="22 places"):
        fbnet.rows_of(["s"])


def test_operators_of_a_block_are_those_that_run():
    assert [o.kind for o in inverted(8, 8, 4, 3, 1, 3, 1)] == [
        "conv", "norm", "relu", "conv", "norm", "relu", "conv", "norm", "add",
    ]  # fmt: skip
    assert [o.per_channel for o in inverted(8, 6, 4, 3, 2, 1, 1)] == [True, False, False, False, False]
    (layer,) = dense(10, 3)
    assert (layer.macs, layer.weight_bytes, layer.activation_bytes) == (30, 4 * 33, 4 * 13)
