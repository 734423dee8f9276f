"""Activations: what convolutions and linear layers put out, by hand and as the paper prints them."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from bench.meters import macs
from suites.common.timm_bridge import timm_model


def activations(module, *shape):
    with torch.no_grad():
        return macs.count(module, (torch.randn(shape),), second_count=False, inspect_values=False).activations


def test_convolutions_and_linear_layers_count_and_norms_and_pools_do_not():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    assert activations(net.eval(), 2, 3, 9, 9) == 2 * (8 * 4 * 4 + 5)


def test_products_of_activations_with_each_other_are_none():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            return self.out((x @ x.transpose(-2, -1)) @ x)

    assert activations(Attends(), 2, 6, 4) == 2 * 6 * 4


def test_a_backward_puts_nothing_out():
    class Learns(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            with torch.enable_grad():
                return torch.autograd.grad(self.layer(x.requires_grad_()).square().sum(), x)

    found = macs.count(Learns(), (torch.randn(2, 4),), second_count=False, inspect_values=False)
    assert found.activations == 2 * 3 and found.macs == 2 * (2 * 4 * 3)  # the backward multiplies once more


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize("name, millions", [("efficientnet_b0", 6.75), ("resnet50", 11.11), ("regnety_040", 12.29)])
def test_published_activations(name, millions):
    with torch.device("meta"):
        model, images = timm_model(name=name), torch.empty(1, 3, 224, 224)
    found = macs.count(model, (images,), second_count=False, inspect_values=False)
    assert round(found.activations / 1e6, 2) == millions
