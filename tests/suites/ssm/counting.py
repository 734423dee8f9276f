"""Counts of networks without storage, for the tests of this suite."""

from dataclasses import dataclass

import torch

from bench.meters import macs, scan_counts


@dataclass(frozen=True)
class Counted:
    """Parameters, products P and states S of one sample."""

    params: int
    products: float
    states: float
    traced: object


def counted(build, *shape, **settings):
    """The network of a builder, counted on the meta device on an input of a shape without the batch."""
    with torch.device("meta"):
        module = build(**settings)
    return count_of(module, *shape)


def count_of(module, *shape):
    traced = macs.count(module, (torch.empty(1, *shape, device="meta"),), {}, second_count=False)
    told = {row.metric: row.value for row in scan_counts.readings(traced, module, 1)}
    products = told.get("macs_products", traced.macs)
    params = sum(parameter.numel() for parameter in module.parameters())
    return Counted(params, products, told.get("macs_scan", 0), traced)
