"""MobileNetV3-Large under SSDLite heads, as torchvision has it: a baseline of MobileDets.

Sources: Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244, section 6.3; the library's network, which is
somewhat larger than the printed one (3.44 M parameters and 0.58 G for 3.22 M and 0.51 G).
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.conv_blocks import at
from suites.common.torchvision_remedy import import_beside_torchvision


class RawDetector(nn.Module):
    """The network of a detector of torchvision without what stands around it: no resizing, no boxes, no suppression.

    So it does the work that the other SSDLite rows do, at the resolution that they have.
    """

    def __init__(self, detector: Any):
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [batch, boxes, classes] and boxes [batch, boxes, 4] of images [batch, 3, h, w]."""
        said = self.head(list(self.backbone(x).values()))
        return said["cls_logits"], said["bbox_regression"]


def mobilenetv3_ssdlite(*, classes: PositiveInt = 91, resolution: PositiveInt = 320) -> RawDetector:
    """The detector with random weights.

    Args:
        classes: of the detector, background included.
        resolution: side of the input.

    Raises:
        NotInstalled: torchvision is not there.
    """
    import_beside_torchvision("torchvision")
    detection = importlib.import_module("torchvision.models.detection")
    made = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)
    return at(RawDetector(made), resolution)
