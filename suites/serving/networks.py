"""The networks that are served: torchvision's and timm's, with random weights, one tensor of class scores out."""

from __future__ import annotations

from torch import Tensor, nn

from bench.errors import UsageError
from suites.common.timm_bridge import timm_model
from suites.common.torchvision_models import torchvision_model

#: Names of the study, and where the networks are.
NAMED = {
    "mobilenet_v2": "torchvision:mobilenet_v2",
    "resnet50": "torchvision:resnet50",
    "vit_s": "timm:vit_small_patch16_224",
}


def network(name: str, side: int) -> nn.Module:
    """The network of that name for square pictures, in evaluation mode.

    Args:
        name: of the study, or `torchvision:NAME` or `timm:NAME`.
        side: of its input in pixels.

    Raises:
        UsageError: there is no such network.
        NotInstalled: its library is not there.
    """
    library, colon, model = NAMED.get(name, name).partition(":")
    if not colon or library not in ("torchvision", "timm"):
        raise UsageError(f'network="{name}": choose {", ".join(NAMED)}, or torchvision:NAME or timm:NAME')
    if library == "timm":
        return timm_model(name=model, resolution=side).eval()
    return torchvision_model(name=model, resolution=side)[0].eval()


def scores(said: Tensor) -> Tensor:
    """The five best classes, [batch, 5, 2]: probability and number; all of them where there are fewer."""
    import torch

    probability = said.float().softmax(1)
    best, place = probability.topk(min(5, said.shape[1]), 1)
    return torch.stack((best, place.to(best.dtype)), 2)
