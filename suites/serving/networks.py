"""The networks that are served: torchvision's and timm's, with random weights, one tensor of class scores out.

Classifiers give [batch, classes], torchvision's segmenters [batch, classes, height, width]; what is answered of the
first are the five best classes, of the second a picture file of the mask.
"""

from __future__ import annotations

import io

import torch
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
        UsageError: there is no such network, or it is a detector or one of videos.
        NotInstalled: its library is not there.
    """
    library, colon, model = NAMED.get(name, name).partition(":")
    if not colon or library not in ("torchvision", "timm"):
        raise UsageError(f'network="{name}": choose {", ".join(NAMED)}, or torchvision:NAME or timm:NAME')
    if library == "timm":
        return timm_model(name=model, resolution=side).eval()
    made = torchvision_model(name=model, resolution=side)[0].eval()
    family = type(made).__module__.removeprefix("torchvision.models.")
    if family.startswith("segmentation"):
        return Maps(made).eval()
    if family.startswith(("suites", "video", "optical_flow")):  # a detector is wrapped in a module of suites.common
        raise UsageError(f'network="{name}": a classifier or a segmenter of pictures is wanted')
    return made


class Maps(nn.Module):
    """A segmenter's scores of every pixel alone, without its auxiliary ones."""

    def __init__(self, segmenter: nn.Module):
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        """[batch, classes, height, width]."""
        return self.segmenter(images)["out"]


def answered(said: Tensor) -> Tensor:
    """What is answered: the five best classes of a picture, or the file of its mask where every pixel has scores."""
    return scores(said) if said.dim() == 2 else masks(said)


def masks(said: Tensor) -> Tensor:
    """PNG files of the largest class of every pixel, one after another, as bytes [n]; of shapes alone the classes.

    Raises:
        ValueError: there are more classes than a byte has values.
    """
    if said.shape[1] > 256:
        raise ValueError(f"{said.shape[1]} classes: a pixel of a mask has one byte")
    classes = said.argmax(1).to(torch.uint8)
    if classes.is_meta:
        return classes
    from PIL import Image

    files = io.BytesIO()
    for each in classes.cpu().numpy():
        Image.fromarray(each).save(files, format="PNG")
    return torch.frombuffer(bytearray(files.getvalue()), dtype=torch.uint8)


def scores(said: Tensor) -> Tensor:
    """The five best classes, [batch, 5, 2]: probability and number; all of them where there are fewer."""
    probability = said.float().softmax(1)
    best, place = probability.topk(min(5, said.shape[1]), 1)
    return torch.stack((best, place.to(best.dtype)), 2)
