"""
Measure a module
================

Counts are taken at once. Times come from fresh processes; ``glance`` takes one, which is enough to look and too little
for an interval, and the result says so.
"""

# sphinx_gallery_thumbnail_path = 'docs/images/thumb_measure.svg'

import torch
from torch import nn

import bench

net = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))
x = torch.rand(64, 256)

bench.measure(net, x, ["params", "macs", "latency", "memory"], protocol="glance")

# %%
# Everything that is known of each row is in the long form: keys, conditions, statistics.

bench.measure(net, x, ["macs"]).long[["metric", "value", "unit", "dtype", "batch", "statistic"]]
