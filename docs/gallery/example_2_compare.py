"""
Compare two modules
===================

Both are timed interleaved in the same process, so that what slows the machine slows both. A ratio above 1 says that the
second is better.
"""

# sphinx_gallery_thumbnail_path = 'docs/images/thumb_compare.svg'

import torch
from torch import nn

import bench

wide = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))
low_rank = nn.Sequential(nn.Linear(256, 64), nn.Linear(64, 1024), nn.GELU(), nn.Linear(1024, 64), nn.Linear(64, 256))

bench.compare(wide, low_rank, torch.rand(64, 256), protocol="glance", names=("wide", "low rank"))
