"""VGG with norms for small pictures: convolutions in stages, one linear layer on the mean of the last maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt
from suites.common.checkpoint import load_checkpoint

__all__ = ["VggBn", "load_checkpoint", "vgg_bn"]

#: VGG-16: channels of thirteen convolutions, and how many each stage has before its halving.
CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
STAGES = (2, 2, 3, 3, 3)


class VggBn(nn.Module):
    """Convolution, norm, ReLU; a pool by 2 behind each stage; mean over places; linear."""

    def __init__(self, channels: list[int], stages: list[int], resolution: int, classes: int):
        super().__init__()
        self.resolution, self.classes, self.channels = resolution, classes, 3
        layers: list[nn.Module] = []
        ends = {sum(stages[: i + 1]) for i in range(len(stages))}
        for place, (inner, outer) in enumerate(zip([3, *channels], channels, strict=False), start=1):
            layers += [nn.Conv2d(inner, outer, 3, padding=1, bias=True), nn.BatchNorm2d(outer), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if place in ends else []
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        return self.head(self.features(images).mean(dim=(2, 3)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(self.head.weight),)


def vgg_bn(
    *,
    channels: Blocks | None = None,
    stages: Blocks | None = None,
    resolution: PositiveInt = 32,
    classes: PositiveInt = 10,
) -> VggBn:
    """The network in evaluation mode with random weights; the defaults are VGG16-BN for 32 px.

    Args:
        channels: of each convolution; None for VGG-16's thirteen.
        stages: convolutions before each halving; None for 2, 2, 3, 3, 3.
        resolution: side of the input, which every stage halves.
        classes: logits.

    Raises:
        ValueError: stages that do not hold the convolutions, or a picture that cannot be halved so often.
    """
    wide, deep = list(channels or CHANNELS), list(stages or STAGES)
    if sum(deep) != len(wide):
        raise ValueError(f"stages={deep} hold {sum(deep)} convolutions and channels has {len(wide)}")
    if resolution % 2 ** len(deep):
        raise ValueError(f"resolution={resolution}: {len(deep)} halvings need a multiple of {2 ** len(deep)}")
    return VggBn(wide, deep, resolution, classes).eval()
