"""Switching to another sub-network of a resident store, and its first answer, as one call that can be timed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.dynamic.ofa import OfaNet, ofa_net, subnetwork
from suites.dynamic.ofa_learning import recalibrate_on
from suites.dynamic.ofa_space import choice, smallest

__all__ = ["SubnetSwitch", "load_checkpoint", "subnet_switch"]

#: Images of a batch that norms take their statistics from.
BATCH = 32


class SubnetSwitch(nn.Module):
    """From the largest to the smallest sub-network, one forward of it, and back: logits [batch, classes].

    `slice` sets sizes and runs on views, `extract` copies and runs the copy, `resident` has the copy already: what the
    other two take beyond it is the switch, and recalibration with it. Products of recalibration are the row's.
    """

    tolerance = 1e-5
    batches: Tensor

    def __init__(self, store: OfaNet, form: str, recalibrated: int):
        super().__init__()
        self.store, self.form = store, form
        self.own: nn.Module | None = None
        shape = (recalibrated, BATCH, 3, store.resolution, store.resolution)
        drawn = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
        self.register_buffer("batches", drawn.to(store.head.weight), persistent=False)
        if form == "resident":
            self.own = self.switched("extract")
            self.back()

    def switched(self, form: str) -> nn.Module:
        """The smallest sub-network; norms have new statistics where they are recalibrated."""
        self.store.activate(smallest(self.store.space))
        if len(self.batches):
            recalibrate_on(self.store, list(self.batches))
        return subnetwork(self.store, self.store.active, form, 0)

    def back(self) -> None:
        """To the largest, whose statistics are the store's own."""
        self.store.forget_statistics()
        self.store.activate(choice(self.store.space))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return self.store.example_inputs(batch)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        if self.own is not None:
            return self.own(images)
        answer = self.switched(self.form)(images)
        self.back()
        return answer

    def reference(self, images: Tensor) -> Tensor:
        """The smallest sub-network's answer in double precision."""
        with torch.no_grad():
            small = self.switched("extract").double()
            self.back()
            return small(images.double()).to(images.dtype)


def subnet_switch(
    *,
    form: Literal["slice", "extract", "resident"] = "slice",
    space: Literal["mobilenet_v3", "digits"] = "mobilenet_v3",
    resolution: PositiveInt = 224,
    recalibrated: Count = 0,
) -> SubnetSwitch:
    """The switch of a store of once-for-all networks with random weights.

    Args:
        form: `slice`, `extract`, or `resident`, where nothing has to be switched.
        space: the paper's, or the small one for digits.
        resolution: side of the image.
        recalibrated: batches of 32 random images from which norms take their statistics at each switch; `resident` has
            them already.
    """
    return SubnetSwitch(ofa_net(space=space, resolution=resolution), form, recalibrated).eval()
