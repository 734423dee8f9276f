"""The head of detectors without anchors: a distribution over distances to each side of a box, and logits of classes.

Source: Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388, section 3.2: a distance is the mean of a
distribution over bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Bins of a distribution, and sides of a box.
BINS = 16
SIDES = 4


def box_width(channels: int) -> int:
    """Width of the box branches of a head whose finest map has so many channels."""
    return max(16, channels // 4, BINS * SIDES)


class DetectionHead(nn.Module):
    """For each map and place the distances to four sides and the logits of classes: [batch, 4 + classes, places]."""

    def __init__(self, boxes: Sequence[nn.Module], kinds: Sequence[nn.Module]):
        """Take the branches of each map.

        Args:
            boxes: to 4 x 16 numbers a place.
            kinds: to a number a class and place.
        """
        super().__init__()
        self.boxes, self.kinds = nn.ModuleList(boxes), nn.ModuleList(kinds)
        self.integral = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.integral.weight.copy_(torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """See the class."""
        boxes = torch.cat([layer(x).flatten(2) for layer, x in zip(self.boxes, maps, strict=True)], 2)
        kinds = torch.cat([layer(x).flatten(2) for layer, x in zip(self.kinds, maps, strict=True)], 2)
        shares = boxes.unflatten(1, (SIDES, BINS)).transpose(1, 2).softmax(1)
        return torch.cat((self.integral(shares).squeeze(1), kinds), 1)
