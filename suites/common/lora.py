"""LoRA: a frozen weight and a trained product of rank r beside it (Hu et al. 2021, arXiv 2106.09685, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoraLinear(nn.Module):
    """W x + b + (alpha / r) B A x; B starts at zero, W and b are frozen.

    A token costs r (in + out) products more than the plain map; backwards it costs the weight's gradient less.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__()
        like = linear.weight
        self.weight, self.bias = like, linear.bias
        self.scale = alpha / rank
        self.a = nn.Parameter(like.new_empty(rank, linear.in_features))
        self.b = nn.Parameter(like.new_zeros(linear.out_features, rank))
        for frozen in (self.weight, self.bias):
            if frozen is not None:
                frozen.requires_grad_(False)
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """A new A and a zero B."""
        if not self.a.is_meta:
            nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
            self.b.zero_()

    @torch.no_grad()
    def melt(self) -> None:
        """Add the product to the frozen weight and start a new one: the outputs stay as they are."""
        self.weight.add_(self.b @ self.a, alpha=self.scale)
        self.restart()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [..., out]."""
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(F.linear(x, self.a), self.b)


def replace_linears(
    module: nn.Module, make: Callable[[nn.Linear], nn.Module], wanted: Callable[[str, nn.Linear], bool]
) -> list[nn.Module]:
    """Put `make(linear)` in the place of every linear map that is wanted by its path; what was put there.

    Args:
        module: is changed in place.
        make: the new part for a linear map.
        wanted: whether the map of a path is replaced.
    """
    found = [
        (name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear) and wanted(name, part)
    ]
    made = []
    for name, part in found:
        owner, _, own = name.rpartition(".")
        new = make(part)
        setattr(module.get_submodule(owner), own, new)
        made.append(new)
    return made


def is_inside(name: str, linear: nn.Linear) -> bool:
    """Whether a linear map is one of a decoder's blocks: anything but its head."""
    return not name.endswith(("head", "lm_head"))


def lora_everywhere(model: nn.Module, rank: int, alpha: float, *, freeze: bool) -> list[nn.Module]:
    """Give every linear map of the blocks a trained product.

    Args:
        model: a decoder; changed in place.
        rank: of the products.
        alpha: over rank, what they are multiplied with.
        freeze: whether all other parameters are frozen too.

    Raises:
        ValueError: the model has no linear map inside its blocks.
    """
    if freeze:
        model.requires_grad_(False)
    made = replace_linears(model, lambda linear: LoraLinear(linear, rank, alpha), is_inside)
    if not made:
        raise ValueError(f"{type(model).__name__} has no linear map that a product could stand beside")
    return made
