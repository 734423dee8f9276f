"""Settings at which a system is something plain: a gate of one pixel, full rows, one convolution, an unmoved grid."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from suites.common.torchvision_remedy import NotInstalled
from suites.convnets.ccnext import RowExchange, ccnext
from suites.convnets.codenet import Deformable
from suites.convnets.convfirst import fusible_block
from suites.convnets.deh4r import deh4r
from suites.convnets.mixed_kernels import MixedConv
from suites.convnets.pidnet import LightFusion
from suites.convnets.shallow import shallow
from suites.convnets.shufflemixer import SplitMlp, shufflemixer
from suites.convnets.van import LargeKernelAttention
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
