"""SimpleNet: thirteen plain layers, most of them 3x3, with nothing beside them.

Source: Hasanpour et al. 2016, Lets keep it simple, arXiv:1608.06037; sizes as released.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at, conv_norm

Entry = int | tuple[int, int] | Literal["pool"]

#: Widths in order; (width, 1) is a 1x1 layer.
PLANS: dict[str, tuple[Entry, ...]] = {
    "5m": (64, 128, 128, 128, 128, 128, "pool", 256, 256, 256, 512, "pool", (2048, 1), (256, 1), 256),
    "9m": (128, 192, 192, 192, 192, 192, "pool", 320, 320, 320, 640, "pool", (2560, 1), (320, 1), 320),
    "cifar_5m": (
        64, 128, 128, 128, "pool", 128, 128, 256, "pool", 256, 256, "pool", 512, (2048, 1), (256, 1), "pool", 256
    ),
}  # fmt: skip
#: Strides of the first entries, by mode; mode 0 has none.
STRIDES = {0: (), 1: (2, 2, 2), 2: (2, 2, 1, 2)}


class _Head(nn.Module):
    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.amax((2, 3)))


def simplenet(
    *, plan: Literal["5m", "9m", "cifar_5m"] = "5m", scale: Positive = 1.0, mode: Literal[0, 1, 2] = 1,
    classes: PositiveInt = 1000, resolution: PositiveInt = 224,
) -> nn.Sequential:  # fmt: skip
    """A SimpleNet classifier of images [batch, 3, height, width].

    Args:
        plan: whose widths.
        scale: of all widths.
        mode: where the early layers stride: 1 on the first three, 2 on the first, second and fourth, 0 nowhere.
        classes: logits.
        resolution: side of the input.

    Raises:
        UsageError: the scale leaves a layer without channels.
    """
    layers: list[nn.Module] = []
    before, number = 3, 0
    for entry in PLANS[plan]:
        if entry == "pool":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        width, kernel = entry if isinstance(entry, tuple) else (int(entry), 3)
        width = int(width * scale)
        if width < 1:
            raise UsageError(f"simplenet: scale={scale} leaves a layer without channels")
        stride = STRIDES[mode][number] if number < len(STRIDES[mode]) else 1
        layers.append(conv_norm(before, width, kernel, stride, act=nn.ReLU, bias=True))
        before, number = width, number + 1
    return at(nn.Sequential(*layers, _Head(before, classes)), resolution)
