"""The residual networks of CIFAR (He et al. 2016, arXiv:1512.03385, section 4.2) at any widths.

Three stages of basic blocks at 32, 16 and 8 pixels, convolutions without bias, a shortcut without parameters that takes
every second place and pads missing channels with zeros on both sides, or cuts where there are too many.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.pruning.nets.widths import chosen, from_rates, tell_slim

__all__ = ["ResnetCifar", "load_checkpoint", "resnet_cifar"]

WIDTHS = (16, 32, 64)


class Shortcut(nn.Module):
    """Every `stride`-th place of a map, with channels padded by zeros or cut to `outer`."""

    places: Tensor | None

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.inner, self.outer, self.stride = inner, outer, stride
        self.register_buffer("places", None)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outer, ...]."""
        x = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.places is not None:
            return F.pad(x, (0, 0, 0, 0, 0, 1)).index_select(1, self.places.to(x.device))
        front = (self.outer - self.inner) // 2
        return x if self.outer == self.inner else F.pad(x, (0, 0, 0, 0, front, self.outer - self.inner - front))

    def source(self) -> Tensor:
        """For every output channel the input channel that it is, or `inner` for zeros, [outer]."""
        if self.places is not None:
            return self.places
        front = (self.outer - self.inner) // 2
        at = torch.arange(self.outer, device="cpu") - front
        return torch.where((at >= 0) & (at < self.inner), at, self.inner)

    def silence(self, outputs: Tensor) -> None:
        """Give zeros in the given output channels."""
        places = self.source().clone()
        places[outputs] = self.inner
        self.places = places

    def keep(self, inputs: Tensor, outputs: Tensor) -> None:
        """Go on with the given input and output channels alone."""
        where = torch.full((self.inner + 1,), len(inputs), device="cpu")
        where[inputs] = torch.arange(len(inputs), device="cpu")
        places = where[self.source().cpu()[outputs]]
        self.inner, self.outer = len(inputs), len(outputs)
        plain = self.inner == self.outer and torch.equal(places, torch.arange(self.outer, device="cpu"))
        self.places = None if plain else places


class CifarBlock(nn.Module):
    """Two 3 x 3 convolutions beside the shortcut."""

    def __init__(self, inner: int, mid: int, outer: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, mid, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.shortcut = Shortcut(inner, outer, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of `outer` channels."""
        inside = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inside + self.shortcut(x))


class ResnetCifar(nn.Module):
    """Stem, three stages, mean over places, linear layer."""

    def __init__(self, depth: int, overall: list[int], widths: list[int], resolution: int, classes: int):
        super().__init__()
        self.resolution, self.classes, self.channels = resolution, classes, 3
        each = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, overall[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(overall[0])
        strides = [2 if place and place % each == 0 else 1 for place in range(3 * each)]
        self.blocks = nn.ModuleList(
            CifarBlock(overall[i], widths[i], overall[i + 1], stride) for i, stride in enumerate(strides)
        )
        self.head = nn.Linear(overall[-1], classes)

    def features(self, images: Tensor) -> Tensor:
        """Means over places, [batch, channels]."""
        x = F.relu(self.bn1(self.conv1(images)))
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        return self.head(self.features(images))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(next(self.parameters())),)


def resnet_cifar(
    *,
    depth: PositiveInt = 20,
    classes: PositiveInt = 10,
    resolution: PositiveInt = 32,
    widths: Blocks | None = None,
    overall: Blocks | None = None,
    rates: Annotated[list[Rate], Field(min_length=1)] | None = None,
) -> ResnetCifar:
    """A residual network of 6 n + 2 layers in evaluation mode with random weights.

    Args:
        depth: 20, 32, 44, 56, 110, ...
        classes: logits.
        resolution: side of the input.
        widths: inner channels of each block; None for all.
        overall: outputs of the stem and of each block; None for all.
        rates: shares that go: of the stem, of the first two stages' outputs, of each block's inner channels.

    Raises:
        ValueError: a depth that is not 6 n + 2, or another number of entries.
    """
    each, rest = divmod(depth - 2, 6)
    if rest or not each:
        raise ValueError(f"depth={depth}: 6 n + 2 layers are wanted, such as 20, 32, 56 or 110")
    full = [width for width in WIDTHS for _ in range(each)]
    if rates is not None:
        if widths is not None or overall is not None:
            raise ValueError("rates stands for widths and overall: give one or the other")
        overall, widths = from_rates(rates, WIDTHS[0], [(each, width) for width in WIDTHS], full)
    outputs = chosen(overall, [WIDTHS[0], *full], "overall")
    inner = chosen(widths, full, "widths")
    network = ResnetCifar(depth, outputs, inner, resolution, classes)
    tell_slim(network, overall, widths)
    return network.eval()


def l1_widths(depth: int, rates: tuple[float, float, float], skipped: tuple[int, ...] = ()) -> list[int]:
    """Inner widths of Li et al. 2017 (arXiv:1608.08710): a rate per stage, and blocks (from 1) that stay full."""
    from suites.pruning.rounding import kept_width

    each = (depth - 2) // 6
    full = [(width, rate) for width, rate in zip(WIDTHS, rates, strict=True) for _ in range(each)]
    return [width if i in skipped else kept_width(width, rate) for i, (width, rate) in enumerate(full, start=1)]


def macs(depth: int, overall: list[int], widths: list[int], resolution: int = 32, classes: int = 10) -> int:
    """Products of one image: 9 c_in c_out for each place of each convolution, and the linear layer."""
    each = (depth - 2) // 6
    total = 27 * overall[0] * resolution**2
    side = resolution
    for i, mid in enumerate(widths):
        side = -(-side // 2) if i and i % each == 0 else side
        total += 9 * mid * (overall[i] + overall[i + 1]) * side**2
    return total + overall[-1] * classes
