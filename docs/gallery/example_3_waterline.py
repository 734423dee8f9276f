"""
Draw a waterline
================

Where a module's time goes on this machine: what its shape allows, and what its kernels reach of that. Bars are layers;
:doc:`/README` says how to read them.
"""

# sphinx_gallery_thumbnail_path = 'docs/images/thumb_waterline.svg'

import torch
from torch import nn

import bench


class Block(nn.Module):
    """A convolution over each channel, then one over each pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.pointwise = nn.Conv2d(width, 2 * width, 1)

    def forward(self, x):
        return torch.relu(self.pointwise(self.depthwise(x)))


net = nn.Sequential(Block(32), Block(64), Block(128))

bench.waterline(net, torch.rand(1, 32, 56, 56))
