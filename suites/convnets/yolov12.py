"""YOLOv12: attention inside strips of the map, values kept in place by a 7x7 layer. Written from its description.

Source: Tian, Ye and Doermann 2025, YOLOv12: Attention-Centric Real-Time Object Detectors, arXiv:2502.12524; section 3.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.conv_blocks import at
from suites.common.folding import fold_sequences
from suites.convnets.yolo_blocks import (
    TwoWays,
    WholeChain,
    area_stage,
    check_sides,
    conv,
    head,
    plain_chain,
    plain_cross,
    scaled,
)

#: Depth, width, most channels, MLP ratio of the attention blocks, whether chains are of crosses, scaled shortcuts.
SCALES = {
    "n": (0.5, 0.25, 1024, 2.0, False, False),
    "s": (0.5, 0.5, 1024, 2.0, False, False),
    "m": (0.5, 1.0, 512, 2.0, True, False),
    "l": (1.0, 1.0, 512, 1.2, True, True),
    "x": (1.0, 1.5, 512, 1.2, True, True),
}
#: Side of the depthwise layer by which attention keeps values in their places.
PLACE = 7


class Yolo12(nn.Module):
    """Images [batch, 3, h, w], sides that 32 divides, to [batch, 4 + classes, places] at strides 8, 16 and 32."""

    def __init__(self, scale: str, classes: int):
        super().__init__()
        depth, width, most, ratio, large, shortcut = SCALES[scale]

        def w(channels: int) -> int:
            return scaled(channels, width, most)

        def chain(inputs: int, outputs: int) -> WholeChain:
            return WholeChain(inputs, outputs, [plain_cross(outputs // 2) for _ in range(two)])

        two, four = max(1, round(2 * depth)), max(1, round(4 * depth))
        fine, c4, c5 = w(256), w(512), w(1024)
        self.to_p3 = nn.Sequential(
            conv(3, w(64), 3, 2), conv(w(64), w(128), 3, 2),
            plain_chain(w(128), fine, two, cross=large, share=0.25), conv(fine, fine, 3, 2),
            plain_chain(fine, c4, two, cross=large, share=0.25),
        )  # fmt: skip
        self.to_p4, self.to_p5 = (
            nn.Sequential(conv(c4, c, 3, 2), area_stage(c, four, area, ratio, kernel=PLACE, shortcut=shortcut))
            for c, area in ((c4, 4), (c5, 1))
        )
        self.neck = TwoWays((c4, c4, c5), fine, chain, plain_chain(c4 + c5, c5, two, cross=True))
        self.head = head((fine, c4, c5), classes)

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            UsageError: 32 does not divide the sides of the images, or four strips do not divide its map.
        """
        check_sides("YOLOv12", x)
        p3 = self.to_p3(x)
        p4 = self.to_p4(p3)
        return self.head(self.neck(p3, p4, self.to_p5(p4)))


def yolov12(
    *, scale: Literal["n", "s", "m", "l", "x"] = "n", form: Literal["train", "folded"] = "train",
    classes: PositiveInt = 80, resolution: PositiveInt = 640,
) -> Yolo12:  # fmt: skip
    """A YOLOv12 detector.

    Args:
        scale: depth and width.
        form: as it is trained, or with its norms in the layers before them.
        classes: of things to find.
        resolution: side of the input, which 32 divides.
    """
    network = at(Yolo12(scale, classes), resolution)
    if form == "folded":
        fold_sequences(network)
    return network
