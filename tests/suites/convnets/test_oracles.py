"""Settings at which a system is something plain: a gate of one pixel, full rows, one convolution, an unmoved grid."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from suites.common.folding import fold_sequences
from suites.common.torchvision_remedy import NotInstalled
from suites.convnets.ccnext import RowExchange, ccnext
from suites.convnets.codenet import Deformable
from suites.convnets.convfirst import FusibleBlock, fusible_block, tile_by_tile
from suites.convnets.deh4r import deh4r
from suites.convnets.kernel_warehouse import WarehouseConv, share_cells
from suites.convnets.lsnet import LargeSmall
from suites.convnets.mixed_kernels import MixedConv
from suites.convnets.pidnet import LightFusion
from suites.convnets.segformer import Segmenter
from suites.convnets.shallow import shallow
from suites.convnets.shufflemixer import SplitMlp, shufflemixer
from suites.convnets.swinir import swinir
from suites.convnets.van import LargeKernelAttention
from suites.convnets.yolo_blocks import AreaAttention
from suites.convnets.yolov11 import PlaceAttention
from tests.suites.convnets.building import stirred


def run(module, *inputs):
    with torch.no_grad():
        return module.eval()(*inputs)


def test_large_kernels_with_their_middle_taps_alone_are_a_gate_of_one_pixel():
    layer = LargeKernelAttention(6)
    for depthwise in (layer.near, layer.far):
        side = depthwise.weight.shape[-1]
        depthwise.weight.data.zero_()
        depthwise.weight.data[:, :, side // 2, side // 2] = 1.0
        depthwise.bias.data.zero_()
    x = torch.randn(2, 6, 9, 9)
    assert torch.allclose(run(layer, x), x * run(layer.mix, x), atol=1e-6)


def test_a_window_as_wide_as_the_row_is_full_attention():
    wide, full = RowExchange(4, share=2.0), RowExchange(4, share=2.0, form="banded")
    full.load_state_dict(stirred(wide).state_dict())
    views = torch.randn(1, 4, 3, 7), torch.randn(1, 4, 3, 7)
    q, k, v = wide.query(views[0]), wide.key(views[1]), wide.value.eval()(views[1])
    scores = torch.einsum("bchw,bchu->bhwu", q, k).softmax(-1)
    expected = views[0] + run(wide.leave, torch.einsum("bhwu,bchu->bchw", scores, v))
    for form in (wide, full):
        assert torch.allclose(run(form, *views)[0], expected, atol=1e-5)


@pytest.mark.usefixtures("timm")
def test_one_decoder_and_both_agree_on_the_left_view_and_a_pair_may_come_in_one_tensor():
    settings = {"base": 8, "depths": [1, 1, 1, 1], "resolution": 64, "width": 64}
    both, one = ccnext(dual=True, **settings), ccnext(**settings)
    one.load_state_dict(stirred(both).state_dict(), strict=False)
    views = torch.randn(1, 2, 3, 64, 64)
    left = run(one, *views.unbind(1))
    assert len(left) == 4 and len(run(both, views)) == 8
    for mine, theirs, single in zip(left, run(both, views)[:4], run(one, views), strict=True):
        assert torch.equal(mine, theirs) and torch.equal(mine, single)


def test_parallel_layers_without_an_activation_fold_into_one_convolution():
    network = shallow(form="wide", depth=3, width=4, resolution=6)
    layers = network.layers
    layers.bias.data.fill_(100.0)  # so that nothing is cut off
    x = torch.rand(2, 1, 6, 6)
    with torch.no_grad():
        kernel = layers.weight.unflatten(0, (3, 4)).sum(0)
        kernel[range(4), range(4), 1, 1] += 1.0
        y = F.conv2d(network.stem(x), kernel, torch.full((4,), 300.0), padding=1)
        assert torch.allclose(network(x), network.head(y.mean((2, 3))), rtol=1e-5)


@pytest.mark.parametrize("kind", ["square", "square_dw"])
def test_a_square_of_scale_one_is_the_plain_grid(kind):
    layer = Deformable(4, 4, kind)
    nn.init.zeros_(layer.predict.weight)
    nn.init.ones_(layer.predict.bias)
    x = torch.randn(1, 4, 6, 6)
    plain = F.conv2d(run(layer.widen, x), layer.weight, padding=1, groups=4 if kind == "square_dw" else 1)
    assert torch.allclose(run(layer, x), plain, atol=1e-5)


def test_where_the_boundary_is_sure_pidnet_takes_detail_alone_and_elsewhere_context():
    fusion = stirred(LightFusion(4)).eval()
    detail, context, sure = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3), torch.full((1, 4, 3, 3), 100.0)
    with torch.no_grad():
        at_edges = fusion.detail(detail) + fusion.context(context + detail)
        elsewhere = fusion.detail(context + detail) + fusion.context(context)
    assert torch.allclose(run(fusion, detail, context, sure), at_edges, atol=1e-6)
    assert torch.allclose(run(fusion, detail, context, -sure), elsewhere, atol=1e-6)


def test_a_shuffle_spreads_the_first_half_over_all_channels():
    layer = SplitMlp(16)
    for part in layer.mlp.parameters():
        part.data.zero_()
    layer.mlp[2].bias.data.fill_(7.0)  # the first half becomes 7, the second is as normalised
    x = torch.randn(1, 16, 1, 1)
    shuffled = run(layer, x)[0, :, 0, 0]
    # channel j of group g goes to place 8 j + g: groups 0 to 3 are the first half
    assert [bool(value == 7.0) for value in shuffled] == [True] * 4 + [False] * 4 + [True] * 4 + [False] * 4
    assert torch.allclose(shuffled[4], run(layer.norm, x)[0, 8, 0, 0])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_shufflemixer_whose_last_layer_is_silent_enlarges_bilinearly(scale):
    network = shufflemixer(scale=scale, width=8, blocks=1, resolution=5)
    nn.init.zeros_(network.leave.weight)
    nn.init.zeros_(network.leave.bias)
    x = torch.rand(1, 3, 5, 5)
    plain = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    assert torch.equal(run(network, x), plain)


@pytest.mark.parametrize("kind, share", [("dyconv", 1.0), ("condconv", 0.5)])
def test_one_kernel_that_is_mixed_is_a_convolution(kind, share):
    layer = MixedConv(kind, 4, 3, 1)
    for part in layer.gate.parameters():
        part.data.zero_()
    x = torch.randn(2, 4, 5, 5)
    plain = F.conv2d(x, layer.kernels.view(4, 4, 3, 3), padding=1) * share
    assert torch.allclose(run(layer, x), plain, atol=1e-5)


def test_spio_that_is_not_installed_is_unsupported_and_not_invalid(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match="pip install spio"):
        fusible_block(form="spio")


@pytest.mark.usefixtures("timm")
def test_without_expansion_a_graph_is_one_look_from_every_vertex():
    plain = deh4r(vertices=4, rounds=0, resolution=64)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        once = plain._round(x, plain.encoder(x), plain.start.expand(1, -1, -1))
    assert torch.equal(run(plain, x), once)


@pytest.mark.parametrize("order, group", [("convfirst", 4), ("convfirst", 1), ("mbconv", 4), ("mbconv", 1)])
def test_a_block_layer_by_layer_folded_and_tile_by_tile_is_one_function(order, group):
    block = stirred(FusibleBlock(8, 2, group, 5, order)).eval()
    x = torch.randn(2, 8, 9, 6)  # tiles of four do not divide it
    with torch.no_grad():
        layers, tiles = block(x), tile_by_tile(block, x)
        fold_sequences(block)
        for fused in (tiles, block(x), tile_by_tile(block, x)):
            assert torch.allclose(fused, layers, atol=1e-5)


def test_what_is_seen_from_afar_weighs_a_pixels_neighbours_one_by_one():
    layer = stirred(LargeSmall(16)).eval()  # two sets of weights: channel c takes set c mod 2
    x = torch.randn(1, 16, 4, 5)
    with torch.no_grad():
        weights = layer.weights(x)[0]
    around, summed = F.pad(x, [1] * 4)[0], torch.zeros(1, 16, 4, 5)
    for channel in range(16):
        for row in range(4):
            for column in range(5):
                seen = around[channel, row : row + 3, column : column + 3].flatten()
                summed[0, channel, row, column] = seen @ weights[channel % 2, :, row, column]
    assert torch.allclose(run(layer, x), run(layer.norm, summed), atol=1e-5)


def test_a_warehouse_at_a_temperature_of_one_holds_the_kernels_of_plain_convolutions():
    network = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.Conv2d(8, 4, 1, bias=False))
    share_cells(network, ["0", "1"], 1)
    first, second = network
    assert isinstance(first, WarehouseConv) and first.warehouse is second.warehouse
    cells = first.warehouse.cells
    assert cells.shape == (18 + 2, 4, 4)  # two blocks of nine taps, and two blocks
    for layer in network:
        layer.attention.temperature = 1.0
    kernel = cells[:18].view(9, 2, 4, 4).permute(1, 2, 3, 0).reshape(8, 4, 3, 3)
    x = torch.randn(2, 4, 6, 6)
    plain = F.conv2d(F.conv2d(x, kernel, None, 2, 1), torch.cat((cells[18], cells[19]), 1)[..., None, None])
    assert torch.allclose(run(network, x), plain, atol=1e-5)


def by_hand(query, key, value):
    """Attention of [places, channels], row by row."""
    return torch.stack([((key @ one) * len(one) ** -0.5).softmax(0) @ value for one in query])


def test_attention_in_strips_and_attention_by_narrow_keys_are_attention_place_by_place():
    strips, whole = stirred(AreaAttention(64, 2, 1.0, 7)).eval(), stirred(PlaceAttention(128)).eval()
    x, y = torch.randn(1, 64, 4, 3), torch.randn(1, 128, 3, 2)
    with torch.no_grad():
        query, key = strips.qk(x).chunk(2, 1)
        parts = [part.flatten(2)[0].t() for part in (query, key, strips.v(x))]
        mixed = torch.zeros(12, 64)
        for rows in (slice(0, 6), slice(6, 12)):  # the upper and the lower half of the map
            for channels in (slice(0, 32), slice(32, 64)):
                mixed[rows, channels] = by_hand(*(part[rows, channels] for part in parts))
        expected = strips.leave(mixed.t().view_as(x) + strips.place(strips.v(x)))
        assert torch.allclose(strips.attended(x), expected, atol=1e-5)
        heads = whole.qkv(y).flatten(2)[0].unflatten(0, (2, 128))
        values = heads[:, 64:].reshape(1, 128, 3, 2)
        mixed = torch.cat([by_hand(head[:32].t(), head[32:64].t(), head[64:].t()).t() for head in heads])
        assert torch.allclose(whole(y), whole.leave(mixed.view_as(y) + whole.place(values)), atol=1e-5)


@pytest.mark.usefixtures("timm")
def test_pictures_that_windows_do_not_divide_are_enlarged_as_their_reflections():
    settings = {"scale": 2, "width": 8, "depths": [2], "heads": 2, "window": 4}
    odd, whole = swinir(resolution=6, **settings), swinir(resolution=8, **settings)
    whole.load_state_dict(stirred(odd).state_dict())
    x = torch.rand(1, 3, 6, 6)
    assert torch.allclose(run(odd, x), run(whole, F.pad(x, (0, 2, 0, 2), mode="reflect"))[..., :12, :12], atol=1e-5)


def test_a_segformer_is_what_the_library_makes_of_its_parts():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(hidden_sizes=[8, 16, 20, 16], depths=[1] * 4, decoder_hidden_size=8)
    whole = transformers.SegformerForSemanticSegmentation(config).eval()
    x = torch.randn(1, 3, 64, 64)
    parts = run(Segmenter(whole), x)
    with torch.no_grad():
        assert torch.equal(whole(pixel_values=x).logits, parts)
