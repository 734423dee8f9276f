"""HorNet: features multiplied by each other again and again, with widths that grow (gnConv).

Source: Rao et al. 2022, HorNet, arXiv:2207.14284; equations 3.3 to 3.6 and table 1. The global filter is the one of
Rao et al. 2021, GFNet, arXiv:2107.00645.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import LayerNorm2d, PooledHead, at, depthwise
from suites.common.feature_operator import FeatureOperator
from suites.common.slow_convolution import convolved

#: What the filtered features are divided by.
SCALE = 1 / 3
ORDERS = (2, 3, 4, 5)


class GlobalFilter(nn.Module):
    """Half the channels 3x3 depthwise, half multiplied by learned coefficients in rfft2 space; tied to one map size.

    The transforms are no products: 5 H W log2(H W) real operations a channel, apart from MACs.
    """

    def __init__(self, channels: int, size: int):
        super().__init__()
        if channels % 2:
            raise UsageError(f"a global filter halves its channels: {channels} is odd")
        half = channels // 2
        self.size = size
        self.before = LayerNorm2d(channels, eps=1e-6)
        self.local = depthwise(half, 3, bias=False)
        self.coefficients = nn.Parameter(torch.randn(half, size, size // 2 + 1, 2) * 0.02)
        self.after = LayerNorm2d(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape.

        Raises:
            UsageError: the map is not of the size that the coefficients are for.
        """
        if x.shape[-2:] != (self.size, self.size):
            raise UsageError(
                f"this global filter is for maps of {self.size} x {self.size}, not "
                f"{tuple(x.shape[-2:])}: build the network for the resolution that it is run at"
            )
        local, everywhere = self.before(x).chunk(2, dim=1)
        spectrum = torch.fft.rfft2(everywhere.float(), norm="ortho")
        spectrum = spectrum * torch.view_as_complex(self.coefficients.float())
        everywhere = torch.fft.irfft2(spectrum, s=(self.size, self.size), norm="ortho").to(x.dtype)
        mixed = torch.stack((self.local(local), everywhere), dim=2).flatten(1, 2)
        return self.after(mixed)


class RecursiveGate(nn.Module):
    """gnConv of an order n: p of C / 2^(n-1) channels, gated by filtered q of the same width, widened, gated again.

    ... to C.
    """

    def __init__(self, channels: int, order: int, spatial: nn.Module | None = None):
        super().__init__()
        if channels % 2 ** (order - 1):
            raise UsageError(f"gnConv of order {order} halves its channels {order - 1} times: {channels} cannot be")
        self.widths = [channels >> (order - 1 - place) for place in range(order)]
        self.enter = nn.Conv2d(channels, 2 * channels, 1)
        self.spatial = spatial if spatial is not None else depthwise(sum(self.widths), 7)
        self.widen = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(self.widths[:-1], self.widths[1:], strict=True))
        self.leave = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        p, q = self.enter(x).split((self.widths[0], sum(self.widths)), dim=1)
        gates = (self.spatial(q) * SCALE).split(self.widths, dim=1)
        p = p * gates[0]
        for widen, gate in zip(self.widen, gates[1:], strict=True):
            p = widen(p) * gate
        return self.leave(p)


class _Block(nn.Module):
    def __init__(self, channels: int, gate: nn.Module):
        super().__init__()
        self.norm1 = LayerNorm2d(channels, eps=1e-6)
        self.gate = gate
        self.norm2 = LayerNorm2d(channels, eps=1e-6)
        self.mlp = nn.Sequential(nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1))
        self.scale1 = nn.Parameter(torch.full((channels, 1, 1), 1e-6))
        self.scale2 = nn.Parameter(torch.full((channels, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.gate(self.norm1(x))
        return x + self.scale2 * self.mlp(self.norm2(x))


def hornet(
    *, base: PositiveInt = 64, depths: Counts = [2, 3, 18, 2], filter: Literal["7x7", "global"] = "7x7",  # noqa: B006
    classes: PositiveInt = 1000, resolution: PositiveInt = 224,
) -> nn.Sequential:  # fmt: skip
    """A HorNet classifier of images [batch, 3, resolution, resolution].

    Args:
        base: width of the first stage, which doubles three times.
        depths: blocks of the four stages.
        filter: `7x7` depthwise everywhere, or `global` filters in stages 3 and 4 (the GF networks), tied to the
            resolution.
        classes: logits.
        resolution: side of the input, a multiple of 32 where filters are global.

    Raises:
        UsageError: depths are not of four stages, or the widths cannot be halved as often as the orders ask.
    """
    if len(depths) != 4:
        raise UsageError(f"hornet: depths={depths} must name four stages")
    if filter == "global" and resolution % 32:
        raise UsageError(f"hornet: filter='global' needs a resolution that 32 divides, not {resolution}")
    stages: list[nn.Module] = []
    before = 3
    for place, depth in enumerate(depths):
        width, order = base << place, ORDERS[place]
        enter = nn.Sequential(nn.Conv2d(3, width, 4, 4), LayerNorm2d(width, eps=1e-6))
        if place:
            enter = nn.Sequential(LayerNorm2d(before, eps=1e-6), nn.Conv2d(before, width, 2, 2))
        side = resolution // (4 << place)
        blocks = [
            _Block(width, RecursiveGate(width, order, _spatial(filter, place, width, order, side)))
            for _ in range(depth)
        ]
        stages.append(nn.Sequential(enter, *blocks))
        before = width
    head = PooledHead(before, classes, nn.LayerNorm(before, eps=1e-6))
    return at(nn.Sequential(*stages, head), resolution)


def _spatial(filter: str, place: int, width: int, order: int, side: int) -> nn.Module | None:
    """The global filter of a late stage; None for the depthwise one."""
    if filter != "global" or place < 2:
        return None
    return GlobalFilter(2 * width - (width >> (order - 1)), side)


def gnconv(*, width: PositiveInt = 64, order: PositiveInt = 3, resolution: PositiveInt = 28) -> FeatureOperator:
    """The bare recursive gate as an operator on features [batch, width, resolution, resolution].

    It stands beside its recursion written out gate by gate.
    """
    return FeatureOperator(RecursiveGate(width, order), (width, resolution, resolution), reference=_gate_by_gate)


def _gate_by_gate(layer: nn.Module, x: Tensor) -> Tensor:
    """The gate by equations 3.4 and 3.5: p_(k + 1) = f_k(q_k) / 3 times g_k(p_k), convolutions summed over their taps.

    C / 2^(n - 1) channels are p_0; the gates q_0 to q_(n - 1) follow, each twice as wide as the one before.
    """
    assert isinstance(layer, RecursiveGate) and isinstance(layer.spatial, nn.Conv2d)
    entered = convolved(layer.enter, x)
    width = x.shape[1] >> len(layer.widen)
    gates = convolved(layer.spatial, entered[:, width:])
    p, begin = entered[:, :width], 0
    for widen in [None, *layer.widen]:
        if isinstance(widen, nn.Conv2d):
            p = convolved(widen, p)
        p = p * gates[:, begin : begin + p.shape[1]] / 3
        begin += p.shape[1]
    return convolved(layer.leave, p)
