"""Settings at which a system is something plain: a gate of one pixel, full rows, one convolution, an unmoved grid."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from suites.convnets.ccnext import RowExchange, ccnext
from suites.convnets.codenet import Deformable
from suites.convnets.deh4r import deh4r
from suites.convnets.shallow import shallow
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


@pytest.mark.usefixtures("timm")
def test_without_expansion_a_graph_is_one_look_from_every_vertex():
    plain = deh4r(vertices=4, rounds=0, resolution=64)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        once = plain._round(x, plain.encoder(x), plain.start.expand(1, -1, -1))
    assert torch.equal(run(plain, x), once)
