"""RCNet: a pyramid in one bottom-up pass that fuses both neighbours of a level, and shifts channels between levels.

Source: Zong et al. 2021, RCNet, arXiv:2110.12130; section 3. The contexts of the shift are rebuilt; their counts are
the released ones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.deformable import deform_conv2d

#: Share of the channels that goes to each of four other levels.
SHIFTED = 1 / 16
LEVELS = 5
GROUPS = 2
TAPS = 9
#: Where levels are from the level that is served: above, below, two above, two below, cyclic.
FROM = (1, -1, 2, -2)


class DeformableLayer(nn.Module):
    """A 3x3 deformable convolution v2 with offsets and masks of two groups.

    9 C^2 + 9 C 54 MACs a pixel, samples apart.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.predict = nn.Conv2d(channels, 3 * GROUPS * TAPS, 3, padding=1)
        nn.init.zeros_(self.predict.weight)
        assert self.predict.bias is not None
        nn.init.zeros_(self.predict.bias)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3) * (2.0 / (TAPS * channels)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        made = self.predict(x)
        offset, mask = made.split((2 * GROUPS * TAPS, GROUPS * TAPS), 1)
        return deform_conv2d(x, offset, self.weight, mask=mask.sigmoid())


class Fusion(nn.Module):
    """w a + (1 - w) b with w from both means; a coarse b is first weighed over space; ReLU, convolution, BN behind."""

    def __init__(self, channels: int, coarse: bool, form: str):
        super().__init__()
        self.balance = nn.Conv2d(2 * channels, 1, 1)
        self.space = nn.Conv2d(2 * channels, 1, 3, padding=1) if coarse else None
        self.temperature = nn.Parameter(torch.ones(1)) if coarse else None
        for layer in (self.balance, self.space):
            if layer is not None and layer.bias is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        plain = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.leave = nn.Sequential(
            nn.ReLU(), DeformableLayer(channels) if form == "dcn" else plain, nn.BatchNorm2d(channels)
        )

    def fused(self, a: Tensor, b: Tensor) -> Tensor:
        """The weighed sum."""
        if self.space is not None:
            scores = self.space(torch.cat((a, b), 1)) * self.temperature / a.shape[1] ** 0.5
            b = b * scores.flatten(2).softmax(-1).view_as(scores) * scores[0].numel()
        means = torch.cat((a, b), 1).mean((2, 3), keepdim=True)
        w = self.balance(means).sigmoid()
        return w * a + (1 - w) * b

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The same shape."""
        return self.leave(self.fused(a, b))


class ChannelShift(nn.Module):
    """Levels resized to the second; a sixteenth of the channels of four others joined to each; contexts; added back."""

    def __init__(self, channels: int):
        super().__init__()
        joined = channels + len(FROM) * int(channels * SHIFTED)
        self.mix = nn.ModuleList(
            nn.Sequential(nn.Conv2d(joined, channels, 1), nn.Conv2d(channels, channels, 1)) for _ in range(LEVELS)
        )
        self.space = nn.Conv2d(channels, 1, 1)
        self.level = nn.Linear(channels, 1)
        self.context = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))

    @staticmethod
    def shifted(levels: list[Tensor]) -> list[Tensor]:
        """Each level with runs of channels of four others behind its own; levels are of one size."""
        count = int(levels[0].shape[1] * SHIFTED)
        done = []
        for place in range(len(levels)):
            given = [
                levels[(place + step) % len(levels)][:, number * count : (number + 1) * count]
                for number, step in enumerate(FROM)
            ]
            done.append(torch.cat((levels[place], *given), 1))
        return done

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Levels of their own sizes."""
        size = levels[1].shape[-2:]
        same = [_resized(level, size) for level in levels]
        mixed = [layer(level) for layer, level in zip(self.mix, self.shifted(same), strict=True)]
        mean = torch.stack(mixed).mean(0)
        where = mean * self.space(mean).sigmoid()
        vectors = torch.stack([level.mean((2, 3)) for level in mixed])
        scale = self.context((vectors * self.level(vectors).softmax(0)).sum(0))[:, :, None, None]
        return [
            level + _resized(new + where + scale, level.shape[-2:]) for level, new in zip(levels, mixed, strict=True)
        ]


def _resized(x: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if x.shape[-1] > size[-1]:
        return F.adaptive_max_pool2d(x, tuple(size))
    return F.interpolate(x, size, mode="nearest")


def _lateral(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))


class ReversePyramid(nn.Module):
    """RevFP and the shift: three maps of a backbone to five levels."""

    def __init__(self, inputs: tuple[int, ...], channels: int, form: str, shift: bool):
        super().__init__()
        widths = [*inputs, channels, channels]
        self.laterals = nn.ModuleList(_lateral(width, channels) for width in widths)
        self.from_above = nn.ModuleList(Fusion(channels, True, form) for _ in range(LEVELS - 1))
        self.from_below = nn.ModuleList(Fusion(channels, False, form) for _ in range(LEVELS - 1))
        self.shift = ChannelShift(channels) if shift else None

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """Levels 3 to 7."""
        levels = [layer(x) for layer, x in zip(self.laterals, maps, strict=False)]
        for layer in self.laterals[len(maps) :]:
            levels.append(F.max_pool2d(layer(levels[-1]), 2, 2, ceil_mode=True))
        fused: list[Tensor] = []
        for place, level in enumerate(levels):
            node, size = level, level.shape[-2:]
            if place < LEVELS - 1:
                node = self.from_above[place](node, _resized(levels[place + 1], size))
            if place:
                node = self.from_below[place - 1](node, _resized(fused[-1], size))
            fused.append(node)
        return fused if self.shift is None else self.shift(fused)

    #: Fusions that wait for each other: every node waits for the one below.
    chain = LEVELS


class FeaturePyramid(nn.Module):
    """FPN (arXiv:1612.03144) with levels 6 and 7 from strided layers.

    `path` adds PAFPN's way back up (arXiv:1803.01534).
    """

    def __init__(self, inputs: tuple[int, ...], channels: int, path: bool):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in inputs)
        self.leave = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        self.six = nn.Conv2d(inputs[-1], channels, 3, 2, 1)
        self.seven = nn.Conv2d(channels, channels, 3, 2, 1)
        steps = len(inputs) - 1 if path else 0
        self.down = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(steps))
        self.again = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(steps))

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """Levels 3 to 7."""
        levels = [layer(x) for layer, x in zip(self.laterals, maps, strict=True)]
        for place in reversed(range(len(levels) - 1)):
            levels[place] = levels[place] + _resized(levels[place + 1], levels[place].shape[-2:])
        levels = [layer(x) for layer, x in zip(self.leave, levels, strict=True)]
        for place, (down, again) in enumerate(zip(self.down, self.again, strict=True)):
            levels[place + 1] = again(levels[place + 1] + down(levels[place]))
        six = self.six(maps[-1])
        return [*levels, six, self.seven(six.relu())]


class NeckOnMaps(nn.Module):
    """A neck with maps of a backbone at strides 8, 16 and 32 as its inputs."""

    def __init__(self, neck: nn.Module, inputs: tuple[int, ...], side: int):
        super().__init__()
        self.neck, self.inputs, self.side = neck, inputs, side

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """Levels 3 to 7."""
        return self.neck(*maps)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random maps."""
        device = next(self.parameters()).device
        return tuple(
            torch.randn(batch, width, self.side // stride, self.side // stride, device=device)
            for width, stride in zip(self.inputs, (8, 16, 32), strict=True)
        )


def neck(
    *, kind: Literal["rcnet", "fpn", "pafpn"] = "rcnet", form: Literal["dcn", "conv"] = "dcn", shift: bool = True,
    channels: PositiveInt = 256, inputs: Counts = [512, 1024, 2048], resolution: PositiveInt = 512,  # noqa: B006
) -> NeckOnMaps:  # fmt: skip
    """A neck on the maps of a backbone for images [batch, 3, resolution, resolution].

    Args:
        kind: RCNet or what it is compared with.
        form: of RCNet's layers behind fusions: deformable or plain.
        shift: whether RCNet shifts channels between levels.
        channels: of every level, a multiple of 16.
        inputs: channels of the maps at strides 8, 16 and 32.
        resolution: of the image, which 32 divides.

    Raises:
        UsageError: the maps are not three, or a size does not divide.
    """
    if len(inputs) != 3:
        raise UsageError(f"neck: inputs={inputs} must name the maps at strides 8, 16 and 32")
    if channels % 16 or resolution % 32:
        raise UsageError(f"neck: 16 must divide channels={channels}, and 32 resolution={resolution}")
    made = tuple(inputs)
    if kind == "rcnet":
        body: nn.Module = ReversePyramid(made, channels, form, shift)
    else:
        body = FeaturePyramid(made, channels, kind == "pafpn")
    return at(NeckOnMaps(body, made, resolution), resolution)
