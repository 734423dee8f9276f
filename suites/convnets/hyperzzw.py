"""HyperZZW: kernels made by coordinate networks, multiplied with activations before they are convolved with them.

And Terminator.

Source: arXiv:2401.17948. The official code was withdrawn: branches, gates and norms are rebuilt from the description,
so that the count is ours and no paper's. Norms standardise over the batch, so that an answer depends on its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.feature_operator import FeatureOperator

#: Channels of the five blocks, how much each bottleneck widens, and the local kernels.
CHANNELS = (3, 12, 36, 72, 144)
WIDEN = (4, 3, 2, 2, 2)
LOCAL = (3, 9, 5, 7)
#: Widths of the coordinate networks of global and of local kernels.
GLOBAL_WIDTH, LOCAL_WIDTH = 64, 32


class _Gabor(nn.Module):
    """A filter of coordinates: a Gaussian window times a sine, one of each an output."""

    def __init__(self, outputs: int):
        super().__init__()
        self.centre = nn.Parameter(torch.rand(outputs, 2) * 2 - 1)
        self.width = nn.Parameter(torch.full((outputs,), 1.0))
        self.wave = nn.Linear(2, outputs)

    def forward(self, places: Tensor) -> Tensor:
        """[points, outputs] of [points, 2]."""
        apart = (places[:, None] - self.centre).square().sum(-1)
        return torch.exp(-0.5 * self.width.square() * apart) * self.wave(places).sin()


class CoordinateNetwork(nn.Module):
    """A multiplicative filter network (Fathony et al. 2021): a kernel [channels, side, side] from its coordinates."""

    def __init__(self, channels: int, side: int, width: int):
        super().__init__()
        self.side = side
        self.filters = nn.ModuleList(_Gabor(width) for _ in range(3))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.leave = nn.Linear(width, channels)
        line = torch.linspace(-1, 1, side)
        self.register_buffer("places", torch.cartesian_prod(line, line), persistent=False)

    def forward(self) -> Tensor:
        """The kernel."""
        y = self.filters[0](self.places)
        for layer, window in zip(self.layers, self.filters[1:], strict=True):
            y = layer(y) * window(self.places)
        return self.leave(y).t().view(-1, self.side, self.side)


def global_product(z: Tensor, kernel: Tensor) -> Tensor:
    """Per channel the matrix product of z with (z * kernel): C H W W MACs; [batch, C, H, W], square maps."""
    return z @ (z * kernel) / z.shape[-1]


def local_product(z: Tensor, kernel: Tensor) -> Tensor:
    """A depthwise convolution of z with the kernel times what z is on average over batch and places of that channel."""
    scaled = kernel * z.mean((0, 2, 3)).view(-1, 1, 1)
    return F.conv2d(z, scaled.unsqueeze(1), padding=kernel.shape[-1] // 2, groups=z.shape[1])


class _Standard(nn.Module):
    """Standardised over batch and space, and over each image; nothing is learned or remembered."""

    def forward(self, x: Tensor) -> Tensor:
        by_batch = (x - x.mean((0, 2, 3), keepdim=True)) / (x.std((0, 2, 3), keepdim=True) + 1e-5)
        return F.layer_norm(by_batch, by_batch.shape[1:])


class Block(nn.Module):
    """A global and four local branches, gated against their kernels' networks, joined with the input, 1x1."""

    def __init__(self, channels: int, outputs: int, side: int):
        super().__init__()
        self.everywhere = CoordinateNetwork(channels, side, GLOBAL_WIDTH)
        self.near = nn.ModuleList(CoordinateNetwork(channels, size, LOCAL_WIDTH) for size in LOCAL)
        branches = 2 * (1 + len(LOCAL))
        self.gates = nn.Linear(channels, channels)
        self.norm = _Standard()
        self.leave = nn.Conv2d(branches * channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, outputs, side, side]."""
        fast = [global_product(x, self.everywhere())]
        fast += [local_product(x, network()) for network in self.near]
        gate = self.gates(x.mean((2, 3))).sigmoid()[:, :, None, None]
        branches = [self.norm(branch) for branch in fast]
        gated = [branch * gate for branch in branches]
        return self.norm(F.gelu(self.leave(torch.cat((*branches, *gated), 1))))


class Terminator(nn.Module):
    """Images [batch, 3, side, side] to logits, at full resolution throughout and without shortcuts."""

    def __init__(self, channels: tuple[int, ...], side: int, classes: int):
        super().__init__()
        self.side = side
        widths = [width * more for width, more in zip(channels, WIDEN, strict=False)]
        blocks = [
            Block(before, after, side) for before, after in zip(channels, [*channels[1:], widths[-1]], strict=True)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits.

        Raises:
            UsageError: the images are not of the side that the kernels are made for.
        """
        if x.shape[-2:] != (self.side, self.side):
            raise UsageError(
                f"this Terminator makes kernels of {self.side} x {self.side}: images of "
                f"{tuple(x.shape[-2:])} do not fit, build it for their resolution"
            )
        return self.head(self.blocks(x).mean((2, 3)))


def terminator(
    *,
    channels: Counts = [3, 12, 36, 72, 144],  # noqa: B006
    classes: PositiveInt = 10,
    resolution: PositiveInt = 32,
) -> Terminator:
    """A Terminator of as many blocks as channels are given, the first few of 3, 12, 36, 72, 144.

    Raises:
        UsageError: channels are not the first few of that list.
    """
    if not channels or tuple(channels) != CHANNELS[: len(channels)]:
        raise UsageError(f"terminator: channels={channels} must be the first few of {list(CHANNELS)}")
    return at(Terminator(tuple(channels), resolution, classes), resolution)


class _ZzwOperator(nn.Module):
    """The product with a global kernel, which is made at every call."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.network = CoordinateNetwork(channels, side, GLOBAL_WIDTH)

    def forward(self, z: Tensor) -> Tensor:
        return global_product(z, self.network())


def hyperzzw(*, width: PositiveInt = 36, resolution: PositiveInt = 32) -> FeatureOperator:
    """The global operator on [batch, width, resolution, resolution], beside a loop over channels."""
    size = (width, resolution, resolution)
    return FeatureOperator(_ZzwOperator(width, resolution), size, reference=_channel_by_channel)


def _channel_by_channel(operator: nn.Module, z: Tensor) -> Tensor:
    kernel = operator.get_submodule("network")()
    done = [torch.einsum("bij,bjk->bik", z[:, c], z[:, c] * kernel[c]) / z.shape[-1] for c in range(z.shape[1])]
    return torch.stack(done, 1)
