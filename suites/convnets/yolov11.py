"""YOLO11: split chains of plain convolutions, pooling, and attention on half of the coarsest map's channels.

Source: Khanam and Hussain 2024, YOLOv11: An Overview of the Key Architectural Enhancements, arXiv:2410.17725, section
4. Its makers published no paper: what the overview leaves open is filled in so that all counts are the printed ones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from suites.common.conv_blocks import Residual, at
from suites.common.folding import fold_sequences
from suites.convnets.leyolo import PyramidPool
from suites.convnets.yolo_blocks import TwoWays, check_sides, conv, head, plain_chain, scaled

#: Depth, width, most channels, whether all chains are of crosses.
SCALES = {
    "n": (0.5, 0.25, 1024, False),
    "s": (0.5, 0.5, 1024, False),
    "m": (0.5, 1.0, 512, True),
    "l": (1.0, 1.0, 512, True),
    "x": (1.0, 1.5, 512, True),
}
#: Channels of a head's values, and of its keys.
VALUES, KEYS = 64, 32


class PlaceAttention(nn.Module):
    """Attention over all places of a map, keys half as wide as values, which keep their place by a 3x3 layer."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = channels // VALUES
        self.qkv = conv(channels, self.heads * (2 * KEYS + VALUES), act=False)
        self.place = conv(channels, channels, 3, groups=channels, act=False)
        self.leave = conv(channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        heads = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)
        query, key, value = heads.split((KEYS, KEYS, VALUES), -1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        values, mixed = (part.transpose(2, 3).reshape(x.shape) for part in (value, mixed))
        return self.leave(mixed + self.place(values))


class PartialAttention(nn.Module):
    """1x1 to two halves, attention and an MLP on the second, joined by a 1x1."""

    def __init__(self, channels: int, repeat: int):
        super().__init__()
        half = channels // 2
        self.enter, self.leave = conv(channels, 2 * half), conv(2 * half, channels)
        layers: list[nn.Module] = []
        for _ in range(repeat):
            mlp = nn.Sequential(conv(half, 2 * half), conv(2 * half, half, act=False))
            layers += [Residual(PlaceAttention(half)), Residual(mlp)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        kept, attended = self.enter(x).chunk(2, 1)
        return self.leave(torch.cat((kept, self.layers(attended)), 1))


class Yolo11(nn.Module):
    """Images [batch, 3, h, w], sides that 32 divides, to [batch, 4 + classes, places] at strides 8, 16 and 32."""

    def __init__(self, scale: str, classes: int):
        super().__init__()
        depth, width, most, large = SCALES[scale]

        def w(channels: int) -> int:
            return scaled(channels, width, most)

        two = max(1, round(2 * depth))
        fine, c4, c5 = w(256), w(512), w(1024)
        self.to_p3 = nn.Sequential(
            conv(3, w(64), 3, 2), conv(w(64), w(128), 3, 2),
            plain_chain(w(128), fine, two, cross=large, share=0.25), conv(fine, fine, 3, 2),
            plain_chain(fine, c4, two, cross=large, share=0.25),
        )  # fmt: skip
        self.to_p4 = nn.Sequential(conv(c4, c4, 3, 2), plain_chain(c4, c4, two, cross=True))
        self.to_p5 = nn.Sequential(
            conv(c4, c5, 3, 2), plain_chain(c5, c5, two, cross=True), PyramidPool(c5), PartialAttention(c5, two)
        )
        self.neck = TwoWays(
            (c4, c4, c5), fine, lambda inputs, outputs: plain_chain(inputs, outputs, two, cross=large),
            plain_chain(c4 + c5, c5, two, cross=True),
        )  # fmt: skip
        self.head = head((fine, c4, c5), classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            UsageError: 32 does not divide the sides of the images.
        """
        check_sides("YOLO11", x)
        p3 = self.to_p3(x)
        p4 = self.to_p4(p3)
        return self.head(self.neck(p3, p4, self.to_p5(p4)))


def yolov11(
    *, scale: Literal["n", "s", "m", "l", "x"] = "n", form: Literal["train", "folded"] = "train",
    classes: PositiveInt = 80, resolution: PositiveInt = 640,
) -> Yolo11:  # fmt: skip
    """A YOLO11 detector.

    Args:
        scale: depth and width.
        form: as it is trained, or with its norms in the layers before them.
        classes: of things to find.
        resolution: side of the input, which 32 divides.
    """
    network = at(Yolo11(scale, classes), resolution)
    if form == "folded":
        fold_sequences(network)
    return network
