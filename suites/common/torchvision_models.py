"""torchvision's models by name, with random weights: classifiers, segmentation, video and detection."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError, did_you_mean
from suites.common.torchvision_remedy import NotInstalled, import_beside_torchvision, mend_torchvision, operators_load

#: Sides of square inputs of families that were made for others than 224 pixels (torchvision's weights documentation).
_SIDES = {"inception_v3": 299, "googlenet": 224, "vit_h_14": 518}
#: Frames and pixels of a clip, by the beginning of a name (torchvision's video presets).
_CLIPS = {
    "r3d": (16, 112),
    "mc3": (16, 112),
    "r2plus1d": (16, 112),
    "s3d": (16, 224),
    "mvit": (16, 224),
    "swin3d": (16, 224),
}
_DETECTION_SIDE = 320


class _Lists(nn.Module):
    """A detector over a batch of images, which it takes as a list."""

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, images: torch.Tensor) -> Any:
        """What the detector finds in each of the images, [batch, 3, height, width]."""
        return self.detector(list(images))


def torchvision_model(
    *, name: str, resolution: PositiveInt | None = None, batch: PositiveInt = 1
) -> tuple[nn.Module, tuple[torch.Tensor]]:
    """The model of that name with random weights, in evaluation mode, and inputs that it takes.

    Nothing is downloaded: neither weights nor those of a backbone.

    Args:
        name: as torchvision registers it, such as "resnet18", "deeplabv3_resnet50" or "r3d_18".
        resolution: side of square images or frames; None takes what the family was made for.
        batch: images or clips.

    Raises:
        UsageError: torchvision has no such model.
        NotInstalled: torchvision is not there, or the model needs its compiled operators, which do not load here.
    """
    models = _models()
    if name not in models.list_models():
        raise UsageError(f'torchvision has no model "{name}"; {did_you_mean(name, models.list_models())}')
    builder = models.get_model_builder(name)
    family = builder.__module__
    detects = ".detection" in family
    if detects and not _whole():
        raise NotInstalled(f"{name} needs torchvision's compiled operators, and this torchvision has none that load")
    module = models.get_model(
        name, weights=None, **({"weights_backbone": None} if _has_backbone(family) else {})
    ).eval()
    clip = next((size for begin, size in _CLIPS.items() if name.startswith(begin) and ".video" in family), None)
    if clip is not None:
        side = resolution or clip[1]
        return module, (torch.randn(batch, 3, clip[0], side, side),)
    side = resolution or (_DETECTION_SIDE if detects else _SIDES.get(name, 224))
    return (_Lists(module) if detects else module), (torch.randn(batch, 3, side, side),)


def _models() -> ModuleType:
    mend_torchvision()
    return import_beside_torchvision("torchvision.models")


def _has_backbone(family: str) -> bool:
    return ".detection" in family or ".segmentation" in family


def _whole() -> bool:
    """Whether torchvision's own operators are there, and not only their schemas."""
    if not operators_load():
        return False
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU"))
