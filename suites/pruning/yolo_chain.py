"""YOLOv8 from a JPEG file to boxes, for the workload `pipeline`: what slimming the network saves of a whole request."""

from __future__ import annotations

from typing import Literal

from bench.config.settings import PositiveInt
from suites.common.picture_chain import PictureChain
from suites.pruning.nets.yolov8 import yolov8


def yolov8_chain(*, size: Literal["n", "s", "m"] = "n", nc: PositiveInt = 10, side: PositiveInt = 160) -> PictureChain:
    """YOLOv8 with its stages: decode, letterbox, network, boxes and their suppression.

    Args:
        size: n, s or m.
        nc: classes.
        side: of the square that it sees, a multiple of 32.

    Raises:
        ValueError: a side that is no multiple of 32.
    """
    return PictureChain(yolov8(size=size, nc=nc, resolution=side), side, "boxes", letterbox=True).eval()
