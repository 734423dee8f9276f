"""Counts of a network without weights."""

import torch

from bench.meters import macs


def counted(build, batch=1):
    """Parameters, products and activations of what a builder makes, on the meta device."""
    with torch.device("meta"):
        model = build()
        args = model.example_inputs(batch)
    found = macs.count(model, args, second_count=False, inspect_values=False)
    assert not found.at_least
    return sum(p.numel() for p in model.parameters()), found.macs, found.activations
