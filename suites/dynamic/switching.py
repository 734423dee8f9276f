"""Switching to another sub-network of a resident store, and its first answer, as one call that can be timed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.dynamic.ofa import OfaNet, ofa_net, subnetwork
from suites.dynamic.ofa_space import choice, smallest

__all__ = ["SubnetSwitch", "load_checkpoint", "subnet_switch"]


class SubnetSwitch(nn.Module):
    """From the largest to the smallest sub-network, one forward of it, and back: logits [batch, classes].

    `slice` sets sizes and runs on views, `extract` copies and runs the copy, `resident` has the copy already: what the
    other two take beyond it is the switch.
    """

    tolerance = 1e-5

    def __init__(self, store: OfaNet, form: str):
        super().__init__()
        self.store, self.form = store, form
        self.own = subnetwork(store, smallest(store.space), "extract", 0) if form == "resident" else None
        store.activate(choice(store.space))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return self.store.example_inputs(batch)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        if self.own is not None:
            return self.own(images)
        small = subnetwork(self.store, smallest(self.store.space), self.form, 0)
        answer = small(images)
        self.store.activate(choice(self.store.space))
        return answer

    def reference(self, images: Tensor) -> Tensor:
        """The smallest sub-network's answer in double precision."""
        with torch.no_grad():
            small = subnetwork(self.store, smallest(self.store.space), "extract", 0).double()
            self.store.activate(choice(self.store.space))
            return small(images.double()).to(images.dtype)


def subnet_switch(
    *,
    form: Literal["slice", "extract", "resident"] = "slice",
    space: Literal["mobilenet_v3", "digits"] = "mobilenet_v3",
    resolution: PositiveInt = 224,
) -> SubnetSwitch:
    """The switch of a store of once-for-all networks with random weights.

    Args:
        form: `slice`, `extract`, or `resident`, where nothing has to be switched.
        space: the paper's, or the small one for digits.
        resolution: side of the image.
    """
    return SubnetSwitch(ofa_net(space=space, resolution=resolution), form).eval()
