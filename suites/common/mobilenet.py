"""torchvision's MobileNets as subjects: MobileNetV2 of any width, size, classes and stages, and MobileNetV3-small."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from suites.common.digits_data import CLASSES
from suites.common.torchvision_remedy import import_beside_torchvision, mend_torchvision

# A network that another process unpickles brings this module before torchvision's classes: they must find it whole.
mend_torchvision()

#: Stages of MobileNetV2 as (expansion, channels, blocks, stride): Sandler et al. 2018, arXiv:1801.04381, table 2.
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


class MobileNet(nn.Module):
    """One of torchvision's MobileNets as a subject."""

    def __init__(self, net: Any, resolution: int, classes: int = CLASSES):
        super().__init__()
        self.net, self.resolution, self.channels, self.classes = net, resolution, 3, classes
        self.body_frozen = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        return self.net(images)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        like = next(self.parameters())
        return (torch.randn(batch, 3, self.resolution, self.resolution, device=like.device).to(like.dtype),)


def mobilenet(
    *,
    version: Literal["v2", "v3_small"] = "v2",
    width: Positive = 0.35,
    resolution: PositiveInt = 32,
    classes: PositiveInt = CLASSES,
) -> MobileNet:
    """MobileNetV2 or V3-small of torchvision, in evaluation mode with random weights, without dropout.

    Args:
        version: which.
        width: factor of all channels.
        resolution: side of the picture in pixels.
        classes: logits.
    """
    models = import_beside_torchvision("torchvision.models")
    make = models.mobilenet_v2 if version == "v2" else models.mobilenet_v3_small
    net = make(weights=None, num_classes=classes, width_mult=width, dropout=0.0)
    return MobileNet(net, resolution, classes).eval()
