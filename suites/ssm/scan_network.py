"""What networks of pictures have in common: their example inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScanNetwork(nn.Module):
    """A network of square pictures of its `resolution`."""

    resolution: int

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random pictures of the network's resolution."""
        like = next(self.parameters())
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(like),)
