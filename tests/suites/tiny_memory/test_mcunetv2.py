"""Patch-based inference: closed forms of the engine, regions by gradients, and outputs of the plain network."""

import copy

import pytest
import torch
from torch import nn

from suites.common.engine_memory import (
    ChainBlock,
    axis_regions,
    chain_macs,
    layer_by_layer_peak,
    layer_needs,
    patched_macs,
    patched_peak,
    patched_total_macs,
    split,
    stage_buffer,
    tile_peak,
)
from suites.common.patches import StageLayer, whole_spans
from suites.tiny_memory.mcunetv2 import PatchedFeatures, mcunetv2
from suites.tiny_memory.networks import chain_of, mobilenet_chain
from suites.tiny_memory.plain import channels_last, folded, inplace
from tests.suites.tiny_memory.live import live_peak

CLASSIFIER = 1280 * 1000


@pytest.fixture(scope="module")
def full():
    with torch.device("meta"):
        net = mobilenet_chain()
    return net, chain_of(net.net.features)


@pytest.fixture
def small():
    torch.manual_seed(0)
    net = mobilenet_chain(width=0.1, resolution=56, classes=5)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    return net


def test_counts_are_the_printed_ones(full):
    net, chain = full
    assert chain_macs(chain, 224) + CLASSIFIER == 300_774_272
    assert sum(part.numel() for part in net.parameters()) == 3_504_872


def test_layer_by_layer_peaks_are_those_of_the_check_case(full):
    net, chain = full
    assert layer_by_layer_peak(chain, 224) == 1_404_928 == 1372 * 1024 == net.engine_peak_bytes
    assert layer_by_layer_peak(chain, 224, depthwise_in_place=False) == 1470 * 1024
    with torch.device("meta"):
        thin = mobilenet_chain(width=0.35, resolution=144)
    assert thin.engine_peak_bytes == 283.5 * 1024


def test_patched_peaks_and_products_are_those_of_the_check_case(full):
    _, chain = full
    stage, _ = split(chain, 224, 4, 4)
    assert (tile_peak(stage, 224, 4), stage_buffer(stage, 224)) == (137_200, 25_088)
    assert patched_peak(chain, 224, 4, 4) == 175_616
    assert (chain_macs(stage, 224), patched_macs(stage, 224, 4)) == (91_282_688, 119_202_032)
    total = patched_total_macs(chain, 224, 4, 4) + CLASSIFIER
    assert total == 328_693_616
    assert total / 300_774_272 == pytest.approx(1.092825, abs=1e-6)  # printed as 1.09283
    assert [spans[0][1] - spans[0][0] for spans in axis_regions(stage, 224, 4)] == [62, 75, 75, 69]
    wrong = patched_macs(stage, 224, 4, clipped=False) - 91_282_688 + 300_774_272
    assert wrong / 300_774_272 == pytest.approx(1.1271, abs=5e-5)


def test_the_thin_network_has_the_peak_and_overhead_of_the_check_case():
    with torch.device("meta"):
        chain = chain_of(mobilenet_chain(width=0.35, resolution=144).net.features)
    assert patched_peak(chain, 144, 4, 4) == 46_008
    whole = chain_macs(chain, 144) + CLASSIFIER
    assert (patched_total_macs(chain, 144, 4, 4) + CLASSIFIER) / whole == pytest.approx(1.20301, abs=5e-6)


def test_an_operators_need_by_hand():
    block = ChainBlock((StageLayer(4, 8), StageLayer(8, 8, 3, 1, 1, 8), StageLayer(8, 4)), shortcut=True)
    # a picture of 3 channels is free; 4 maps of 6 x 6 in, 8 inside; the depthwise layer holds the shortcut's input
    assert layer_needs([ChainBlock((StageLayer(3, 4, 3, 1, 1),)), block], 6) == [4 * 36, 12 * 36, 12 * 36, 12 * 36]
    alone = ChainBlock((StageLayer(4, 4, 3, 1, 1, 4), StageLayer(4, 4)), shortcut=True)
    assert layer_needs([ChainBlock((StageLayer(3, 4),)), alone], 5)[1] == 8 * 25  # it may not overwrite what is added


def test_an_odd_map_in_tiles_that_do_not_divide_it_by_hand():
    """15 px through a stem of stride 2 to 8 places in 3, 3, 2: with halos the stem's are 4, 5 and 3, the picture's 8,
    11 and 6. The inner tile's stem gives 4 x 25, the depthwise layer works in place, the projection takes 4 x 9 and
    gives 6 x 9; the output of 6 x 64 is there besides.
    """
    stem, rest = StageLayer(3, 4, 3, 2, 1), (StageLayer(4, 4, 3, 1, 1, 4), StageLayer(4, 6))
    chain = [ChainBlock((stem,)), ChainBlock(rest)]
    assert [spans[0] for spans in axis_regions(chain, 15, 3)] == [(0, 8), (3, 14), (9, 15)]
    assert patched_macs(chain, 15, 3) == 3 * 4 * 9 * (4 + 5 + 3) ** 2 + (4 * 9 + 4 * 6) * 64
    assert tile_peak(chain, 15, 3) == 4 * 25 and stage_buffer(chain, 15) == 6 * 64


@pytest.mark.parametrize("side, tiles, runs", [(28, 3, [10, 10, 8]), (28, 4, [7] * 4), (5, 4, [2, 2, 1]), (7, 1, [7])])
def test_tiles_are_as_large_as_the_largest_and_cover_every_place_once(side, tiles, runs):
    spans = whole_spans(side, tiles)
    assert [last - first for first, last in spans] == runs
    assert [place for span in spans for place in range(*span)] == list(range(side))


@pytest.mark.parametrize("tiles, end", [(1, 4), (2, 1), (3, 4), (7, 3), (2, 6), (4, 2)])
def test_outputs_are_those_of_the_plain_network(small, tiles, end):
    (x,) = small.example_inputs(2)
    with torch.no_grad():
        wanted = small(x)
        for fold in (False, True):
            found = mcunetv2(copy.deepcopy(small), tiles=tiles, end=end, fold=fold)(x)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_regions_are_the_support_of_an_outputs_gradient(small):
    stage = small.net.features[:5]
    chain, out = chain_of(stage), 7
    for part in stage.modules():  # so that no path is shut by an activation
        for name, child in list(part.named_children()):
            if isinstance(child, nn.ReLU6):
                setattr(part, name, nn.Identity())
    x = torch.rand(1, 3, 56, 56, requires_grad=True)
    for place in (0, 3, 6):
        (grad,) = torch.autograd.grad(stage(x)[0, :, place, place].sum(), x)
        seen = grad.abs().sum((0, 1, 3)).nonzero().flatten()
        assert (int(seen.min()), int(seen.max()) + 1) == axis_regions(chain, 56, out)[place][0]


def test_executed_products_are_those_of_the_closed_form(small):
    from torch.utils.flop_counter import FlopCounterMode

    chain = chain_of(small.net.features)
    (x,) = small.example_inputs(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        mcunetv2(copy.deepcopy(small), tiles=3, end=4)(x)
    assert counter.get_total_flops() // 2 == patched_total_macs(chain, 56, 4, 3) + 1280 * 5


def test_the_live_peak_of_the_stage_falls_with_more_tiles(small):
    small = folded(small)
    (x,) = small.example_inputs(1)
    peaks = []
    for tiles in (1, 2, 4, 7):
        made = PatchedFeatures(copy.deepcopy(small).net.features, tiles, 4)
        made.rest = nn.Identity()
        peaks.append(live_peak(made, x))
    assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == 4


def test_redistribution_shrinks_the_halo():
    with torch.device("meta"):
        chain = chain_of(mobilenet_chain(redistributed=4).net.features)
    stage, rest = split(chain, 224, 4, 4)
    assert [layer.kernel for block in stage for layer in block.layers if layer.groups > 1] == [1, 3, 1, 3]
    assert len(rest) == 14 + 4 + 1  # 17 blocks less 4, one more in each of five later stages, the last convolution
    overhead = patched_total_macs(chain, 224, 4, 4) / chain_macs(chain, 224)
    assert overhead < 1.05


def test_folding_and_places_decide_the_live_peak_together(small):
    """A norm in evaluation allocates an output: in place alone saves nothing, and neither does folding alone."""
    (x,) = small.example_inputs(1)
    peaks = {}
    for fold in (False, True):
        for enabled in (False, True):
            peaks[fold, enabled] = live_peak(inplace(copy.deepcopy(small), enabled=enabled, fold=fold), x)
    assert peaks[False, False] == peaks[False, True] == peaks[True, False] > peaks[True, True]
    torch.testing.assert_close(channels_last(copy.deepcopy(small))(x), small(x), rtol=1e-4, atol=1e-4)


def test_what_cannot_run_is_refused(small):
    for settings in ({"end": 17}, {"end": 30}, {"tiles": 8, "end": 4}):
        with pytest.raises(ValueError):
            mcunetv2(copy.deepcopy(small), **settings)
    with pytest.raises(ValueError, match="MobileNetV2"):
        mcunetv2(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="later stages"):
        mobilenet_chain(redistributed=16)
