"""VGG-16 (Simonyan and Zisserman 2015, arXiv:1409.1556) for CIFAR and for ImageNet, at any widths."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.pruning.allocation import rated_widths
from suites.pruning.nets.widths import chosen, tell_slim

__all__ = ["load_checkpoint", "vgg16", "vgg16_cifar"]

#: Channels of the thirteen convolutions, and how many of them stand before each halving.
CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
STAGES = (2, 2, 3, 3, 3)


def _features(channels: list[int], bias: bool, norm: bool, last_pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    pairs = iter(pairwise([3, *channels]))
    for stage, count in enumerate(STAGES):
        for _ in range(count):
            inner, outer = next(pairs)
            layers.append(nn.Conv2d(inner, outer, 3, 1, 1, bias=bias))
            layers += [nn.BatchNorm2d(outer)] if norm else []
            layers.append(nn.ReLU())
        if last_pool or stage < len(STAGES) - 1:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Vgg(nn.Module):
    """Convolutions, mean over places or all of them, and a head."""

    def __init__(self, features: nn.Sequential, head: nn.Module, pooled: bool, resolution: int, classes: int):
        super().__init__()
        self.features, self.head, self.pooled = features, head, pooled
        self.resolution, self.classes, self.channels = resolution, classes, 3

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = self.features(images)
        return self.head(x.mean(dim=(2, 3)) if self.pooled else x.flatten(1))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        like = next(self.parameters())
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(like),)


def _channels(channels: Blocks | None, rates: list[float] | None) -> list[int]:
    if rates is None:
        return chosen(channels, CHANNELS, "channels")
    if channels is not None:
        raise ValueError("rates stands for channels: give one or the other")
    given = [*rates, 0.0] if len(rates) == len(CHANNELS) - 1 else list(rates)
    return rated_widths(CHANNELS, given)


def vgg16_cifar(
    *,
    conv_bias: bool = False,
    classes: PositiveInt = 10,
    channels: Blocks | None = None,
    rates: Annotated[list[Rate], Field(min_length=1)] | None = None,
) -> Vgg:
    """VGG-16 for 32 px: thirteen convolutions with norms, linear to 512 with a norm, linear to the classes.

    Args:
        conv_bias: whether convolutions have a bias.
        classes: logits.
        channels: of each convolution; None for all.
        rates: shares that go, of thirteen convolutions or of all but the last.

    Raises:
        ValueError: another number of entries.
    """
    kept = _channels(channels, rates)
    head = nn.Sequential(nn.Linear(kept[-1], 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, classes))
    network = Vgg(_features(kept, conv_bias, True, False), head, True, 32, classes)
    tell_slim(network, channels, rates)
    return network.eval()


def vgg16(
    *,
    classes: PositiveInt = 1000,
    channels: Blocks | None = None,
    rates: Annotated[list[Rate], Field(min_length=1)] | None = None,
    head: Literal["full", "pool"] = "full",
    resolution: PositiveInt = 224,
) -> Vgg:
    """VGG-16 for ImageNet without norms, convolutions with bias.

    Args:
        classes: logits.
        channels: of each convolution; None for all.
        rates: shares that go, of thirteen convolutions or of all but the last.
        head: `full` for 4096, 4096 and the classes; `pool` for the mean over places and one linear layer (VGG-GAP).
        resolution: side of the input, a multiple of 32.

    Raises:
        ValueError: another number of entries, or a resolution that cannot be halved five times.
    """
    if resolution % 32:
        raise ValueError(f"resolution={resolution}: five halvings need a multiple of 32")
    kept = _channels(channels, rates)
    pooled = head == "pool"
    last = nn.Linear(kept[-1], classes) if pooled else _three_layers(kept[-1] * (resolution // 32) ** 2, classes)
    network = Vgg(_features(kept, True, False, True), last, pooled, resolution, classes)
    tell_slim(network, channels, rates)
    return network.eval()


def _three_layers(inner: int, classes: int) -> nn.Sequential:
    hidden = [nn.Linear(inner, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*hidden, nn.Linear(4096, classes))
