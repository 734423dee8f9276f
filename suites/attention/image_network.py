"""What every network of images in this suite has: random images of its own size, and seeded weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suites.common.initial import draw


class ImageNetwork(nn.Module):
    """A network of square images that ends in a linear `head`; a subclass defines `forward`."""

    head: nn.Linear

    def __init__(self, resolution: int, channels: int, classes: int):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, channels, classes

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images, [batch, channels, resolution, resolution]."""
        images = torch.randn(batch, self.channels, self.resolution, self.resolution)
        return (images.to(self.head.weight),)

    def draw_linear_maps(self) -> None:
        """Draw the weights of every linear map; the last thing that a constructor does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw(module.weight)
