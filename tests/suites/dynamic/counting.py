"""Counts of modules, with and without weights."""

import torch

from bench.meters import macs


def of(module, args):
    """Products of the network and of the method, of the whole batch."""
    found = macs.count(module, args, second_count=False, inspect_values=False)
    assert not found.at_least
    return found.macs, found.method_macs


def on_meta(build, batch=1):
    """Products, the method's, and parameters of what a builder makes, without weights."""
    with torch.device("meta"):
        module = build()
        args = module.example_inputs(batch)
    return *of(module, args), sum(p.numel() for p in module.parameters())
