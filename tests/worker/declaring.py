"""A network that declares everything there is to declare, and a method that does so on top."""

import torch
from torch import nn

from bench import costs


def model():
    """16 -> 8 -> 4: 160 MACs a sample."""
    net = nn.Sequential(nn.Linear(16, 8, bias=False), nn.Linear(8, 4, bias=False))
    net.example_inputs = lambda batch: (torch.ones(batch, 16),)
    return net


def rounded(module):
    """Half of the first weight masked, four nominal bits, 2 calibration forwards of 5 samples."""
    with torch.no_grad():
        if module[0].weight.device.type != "meta":
            module[0].weight.copy_(torch.ones(8, 16))
            module[0].weight[:4] = 0.0
        with costs.recorded(module) as cost:
            for _ in range(2):
                module(torch.ones(5, 16, device=module[0].weight.device))
                cost.samples += 5
    module.method_cost = cost.as_dict()
    module.execution, module.kernel, module.nominal_bits = "simulated", "mask", 4
    return module
