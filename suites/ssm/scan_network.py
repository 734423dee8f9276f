"""What a network with scans says of itself beside its outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suites.ssm.ss2d import PathScan


class ScanNetwork(nn.Module):
    """A network of pictures that tells the bytes its orders moved in the last forward."""

    resolution: int

    @property
    def moved_bytes(self) -> int:
        """Bytes that gathers and the ways back read and wrote, per picture, in float32; 0 before the first forward."""
        return sum(part.moved_bytes for part in self.modules() if isinstance(part, PathScan))

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random pictures of the network's resolution."""
        like = next(self.parameters())
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(like),)
