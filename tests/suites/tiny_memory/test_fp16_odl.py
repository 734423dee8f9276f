"""Reduced-precision learning: rows and products against torch's own, counts of the networks, scales and formats."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.meters import macs
from suites.tiny_memory.fp16_odl import Im2rowConv, fp16_odl, im2row_bytes, layer_products, losses, multiplied, sqnr_db
from suites.tiny_memory.odl_networks import ds_cnn, resnet8
from tests.workloads.subjects import FakeBuilt
from tests.workloads.test_facts import counts_of, values


def test_networks_are_those_of_the_check_case():
    net = resnet8()
    assert sum(part.numel() for part in net.parameters()) == 77_370
    with torch.no_grad():
        assert macs.count(net, net.example_inputs(1), second_count=False).executed_macs == 12_501_632
        keywords = ds_cnn()
        # a stem of 25 x 5 places, four pairs of a depthwise and a pointwise layer, a classifier
        assert macs.count(keywords, keywords.example_inputs(1), second_count=False).executed_macs == (
            125 * 40 * 64 + 4 * 125 * (9 * 64 + 64 * 64) + 64 * 12
        )
    assert im2row_bytes(32, 16) == 147_456
    assert layer_products(3, 16, 3, 32 * 32) == 442_368


@pytest.mark.parametrize("inputs, outputs, kernel, stride, padding, groups", [
    (3, 5, (3, 3), (1, 1), (1, 1), 1), (4, 6, (3, 3), (2, 2), (1, 1), 1), (4, 6, (1, 1), (1, 1), (0, 0), 1),
    (4, 6, (1, 1), (2, 2), (0, 0), 1), (6, 6, (3, 3), (1, 1), (1, 1), 6), (1, 4, (10, 4), (2, 2), (0, 1), 1),
])  # fmt: skip
@pytest.mark.parametrize("pairwise", [False, True])
def test_products_of_rows_are_the_convolution_and_its_gradients(
    inputs, outputs, kernel, stride, padding, groups, pairwise
):
    torch.manual_seed(0)
    x = torch.randn(2, inputs, 13, 9, requires_grad=True)
    weight = torch.randn(outputs, inputs // groups, *kernel, requires_grad=True)
    plain = F.conv2d(x, weight, None, stride, padding, 1, groups)
    made = Im2rowConv.apply(x, weight, stride, padding, groups > 1, pairwise)
    torch.testing.assert_close(made, plain, rtol=1e-5, atol=1e-5)
    wanted = torch.autograd.grad(plain.square().sum(), (x, weight))
    found = torch.autograd.grad(made.square().sum(), (x, weight))
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5 * float(a.abs().max()))


def test_sums_of_pairs_are_rounded_after_every_pair():
    a = torch.tensor([[2048.0, 0.0, 1.0, 0.0, 1.0, 0.0]], dtype=torch.float16)
    b = torch.ones(6, 1, dtype=torch.float16)
    assert multiplied(a, b, True).item() == 2048  # 2048 + 1 is not a number of fp16
    assert multiplied(a.float(), b.float(), False).item() == 2050


def test_both_gradients_make_the_forwards_products():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))
            self.x = nn.Parameter(torch.randn(1, 4, 8, 8))

        def forward(self, given):
            return Im2rowConv.apply(self.x, self.weight, (2, 2), (1, 1), False, False).sum() * given

        def loss(self, outputs, targets):
            return outputs.sum()

    found = values(counts_of("training_step", FakeBuilt(Layer(), (torch.ones(1),)), batch=1))
    assert found["macs_backward"] == 2 * layer_products(4, 6, 3, 16)


@pytest.mark.parametrize("make", [lambda: resnet8(width=4, resolution=16), lambda: ds_cnn(width=8)])
def test_executors_agree_and_fp32_is_the_plain_network(make):
    torch.manual_seed(0)
    net = make()
    (x,) = net.example_inputs(1)
    plain = net(x)
    for executor in ("im2row", "native"):
        made = fp16_odl(copy.deepcopy(net), dtype="fp32", executor=executor)
        torch.testing.assert_close(made(x), plain, rtol=1e-5, atol=1e-5)
        for dtype in ("fp16", "bf16"):
            half = fp16_odl(copy.deepcopy(net), dtype=dtype, executor=executor)
            assert next(half.parameters()).dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
            (given,) = half.example_inputs(3)
            assert given.dtype == torch.float32 and half(given).shape == (3, half.classes)
            assert 20 < sqnr_db(plain.detach(), half(x).detach()) < 90


def test_a_row_says_its_rows_and_what_its_gradients_lose():
    """ResNet8 of 4 channels at 16 px: a first block of 9 x 4 rows on 256 places has most; DS-CNN of 8: its stem's
    40 x 125 are less than a depthwise layer's 9 x 8 x 125.
    """
    torch.manual_seed(0)
    net, keywords = resnet8(width=4, resolution=16), ds_cnn(width=8)
    found = {name: fp16_odl(copy.deepcopy(net), dtype=name) for name in ("fp32", "fp16", "bf16")}
    assert [found[name].im2row_bytes for name in ("fp32", "fp16")] == [9 * 4 * 256 * 4, 9 * 4 * 256 * 2]
    assert fp16_odl(keywords, dtype="fp16").im2row_bytes == 9 * 8 * 125 * 2
    assert fp16_odl(copy.deepcopy(net), executor="native").im2row_bytes == 0
    assert found["fp32"].gradient_sqnr_db is None
    assert 15 < found["bf16"].gradient_sqnr_db < found["fp16"].gradient_sqnr_db - 6  # three bits of mantissa less


@pytest.mark.parametrize("scale, kept", [(1.0, 0.0), (1024.0, 2.0**-25)])
def test_a_scale_keeps_gradients_that_fp16_would_lose(scale, kept):
    """The gradient is half of an input of 2^-24, the least number of fp16."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    nn.init.zeros_(net[1].weight)
    made = fp16_odl(net, dtype="fp16", loss_scale=scale)
    made.loss(made(torch.full((1, 1, 2, 2), 2.0**-24)), torch.tensor([0])).backward()
    grad = made.net[1].layer.weight.grad
    assert torch.isfinite(grad).all()
    assert grad.float().abs().max() / scale == kept
    assert made.make_optimizer().param_groups[0]["lr"] * scale == pytest.approx(1e-2)


def test_steps_in_reduced_formats_stay_near_those_in_fp32():
    torch.manual_seed(0)
    net = resnet8(width=4, resolution=16)
    batches = [(torch.randn(1, 3, 16, 16), torch.tensor([place % 10])) for place in range(4)]
    wanted = losses(fp16_odl(copy.deepcopy(net), dtype="fp32"), batches)
    for settings in ({"dtype": "bf16", "masters": True}, {"dtype": "fp16", "loss_scale": 128.0}):
        made = fp16_odl(copy.deepcopy(net), **settings)
        assert losses(made, batches) == pytest.approx(wanted, rel=0.1)
    assert wanted[0] != wanted[1]


def test_without_a_task_labels_are_random_and_with_one_they_are_its_own():
    changed = fp16_odl(ds_cnn(), dtype="bf16")
    labels = changed.example_targets(64, 0)
    assert torch.equal(labels, changed.example_targets(64, 0)) and set(labels.tolist()) <= set(range(12))
    assert changed.loss(changed(*changed.example_inputs(64)), labels).isfinite()
    changed.task = object()
    assert changed.example_targets(64, 0) is None


def test_rows_that_emulate_say_so():
    assert fp16_odl(resnet8(width=4), dtype="bf16").execution == "real"
    assert fp16_odl(resnet8(width=4), dtype="fp32", accumulate="pairwise").execution == "simulated"
    with pytest.raises(ValueError, match="pairwise"):
        fp16_odl(resnet8(width=4), executor="native", accumulate="pairwise")
    with pytest.raises(ValueError, match="groups"):
        fp16_odl(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)))


def test_it_goes_on_to_learn_a_task_in_its_format(tmp_path):
    from suites.common.tasks.digits import Digits, Training

    task = Digits(tmp_path, 0, training=Training(steps=2, grown_steps=1))

    def build():
        torch.manual_seed(0)
        return resnet8(width=2, resolution=8)

    task.prepare("resnet8", build)
    found = []
    for steps in (0, 3):
        net = build()
        task.load(net, "resnet8")
        made = fp16_odl(net, dtype="bf16", training_steps=steps)
        found.append(made.net.stem.weight.detach().clone())
        assert made.net.stem.weight.dtype == torch.bfloat16
    assert not torch.equal(*found)
    assert made.learned == {"method": "fp16_odl", "steps": 3, "dtype": "bf16", "executor": "im2row",
                            "accumulate": "fp32", "masters": False, "scale": 1.0}  # fmt: skip
