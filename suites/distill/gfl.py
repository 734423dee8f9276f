"""GFL detectors: a backbone, a pyramid of five levels, one head for all that gives distributions over distances.

Source: Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388, section 3.2; the wiring is the one whose parameters
MedDet prints (Zhang et al. 2024, arXiv:2409.00204, table 1). The teachers' block is a neural memory of its section 3.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from bench.errors import UsageError, no_such
from suites.common.torchvision_remedy import import_beside_torchvision, mend_torchvision
from suites.distill.gfl_loss import Places, detection_loss, example_boxes

mend_torchvision()  # a process that unpickles a detector brings this module before torchvision's classes

#: Backbones that there are.
BACKBONES = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
#: Strides of the levels, and the groups of the head's norms.
STRIDES = (8, 16, 32, 64, 128)
GROUPS = 32
#: Last layers of MobileNetV2's strides 8, 16 and 32 in torchvision.
_ENDS = (7, 14, 19)


class Backbone(nn.Module):
    """Images to the maps at strides 8, 16 and 32, of `widths` channels."""

    def __init__(self, name: str, width: float):
        super().__init__()
        models = import_beside_torchvision("torchvision.models")
        if name == "mobilenet_v2":
            layers = models.mobilenet_v2(weights=None, width_mult=width).features
            stages = [layers[begin:end] for begin, end in zip((0, *_ENDS), _ENDS, strict=False)]
            self.widths = tuple(int(stage[-1].out_channels) for stage in stages)
        else:
            net = getattr(models, name)(weights=None)
            first = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2)
            stages = [first, net.layer3, net.layer4]
            last = net.fc.in_features
            self.widths = (last // 4, last // 2, last)
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        maps, x = [], images
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """Maps of any widths to five levels of one width: 1x1 laterals added downwards, 3x3 outputs, two strided levels."""

    def __init__(self, widths: tuple[int, ...], channels: int):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        further = len(STRIDES) - len(widths)
        self.further = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, padding=1) for _ in range(further))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The levels, finest first."""
        inner = [layer(x) for layer, x in zip(self.laterals, maps, strict=True)]
        for place in range(len(inner) - 1, 0, -1):
            size = inner[place - 1].shape[-2:]
            inner[place - 1] = inner[place - 1] + F.interpolate(inner[place], size=size, mode="nearest")
        levels = [layer(x) for layer, x in zip(self.outputs, inner, strict=True)]
        for layer in self.further:
            levels.append(layer(levels[-1]))
        return levels


class OdeBlock(nn.Module):
    """y' = -y + sin^2(y + cos^2(y + W x + b)) from y(0) = 0 to 1 in Euler steps; W x once, the rest elementwise."""

    def __init__(self, channels: int, steps: int):
        super().__init__()
        self.steps, self.linear = steps, nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        drive = self.linear(x)
        y = torch.zeros_like(drive)
        for _ in range(self.steps):
            y = y + (-y + torch.sin(y + torch.cos(y + drive).square()).square()) / self.steps
        return y


def tower(channels: int, convs: int) -> nn.Sequential:
    """Convolutions 3x3 without bias, each with a norm of groups and a ReLU."""
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class Head(nn.Module):
    """One head for all levels: logits of classes [batch, places, classes] and of bins [batch, places, 4, bins]."""

    def __init__(self, channels: int, convs: int, classes: int, bins: int, ode_steps: int):
        super().__init__()
        self.classes, self.bins = classes, bins
        self.kinds, self.sides = tower(channels, convs), tower(channels, convs)
        self.ode: nn.Module = OdeBlock(channels, ode_steps) if ode_steps else nn.Identity()
        self.kind = nn.Conv2d(channels, classes, 3, padding=1)
        self.side = nn.Conv2d(channels, 4 * bins, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See the class; places in the order of levels, then row by row."""
        kinds, sides = [], []
        for x, scale in zip(levels, self.scales, strict=True):
            kinds.append(self.kind(self.ode(self.kinds(x))).flatten(2))
            sides.append((scale * self.side(self.sides(x))).flatten(2))
        return torch.cat(kinds, 2).mT, torch.cat(sides, 2).mT.unflatten(2, (4, self.bins))


class Gfl(nn.Module):
    """The detector; distributions while it trains, else class logits and four distances in pixels a place."""

    def __init__(
        self, backbone: str, width: float, channels: int, convs: int, classes: int, bins: int, resolution: int,
        ode_steps: int,
    ):  # fmt: skip
        super().__init__()
        self.resolution, self.classes, self.channels, self.factor = resolution, classes, channels, width
        self.backbone = Backbone(backbone, width)
        self.pyramid = Pyramid(self.backbone.widths, channels)
        self.head = Head(channels, convs, classes, bins, ode_steps)

    def levels(self, images: Tensor) -> list[Tensor]:
        """The five maps of the pyramid."""
        return self.pyramid(self.backbone(images))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """[batch, places, classes + 4]; while it trains what `Head` gives."""
        kinds, sides = self.head(self.levels(images))
        if self.training:
            return kinds, sides
        return torch.cat((kinds, self.places(images).distances(sides)), 2)

    def places(self, images: Tensor) -> Places:
        """Where the answers stand."""
        return Places.of(images.shape[-2:], STRIDES, images)

    def loss(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        """Quality focal, distribution focal and overlap losses of outputs against boxes [batch, n, 5]."""
        size = (self.resolution, self.resolution)
        return detection_loss(*outputs, targets, Places.of(size, STRIDES, outputs[0]))

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Seeded boxes with a class, [batch, 8, 5]: two corners in pixels, class."""
        return example_boxes(batch, self.resolution, self.classes, seed)


def gfl(
    *,
    backbone: Literal["mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = "mobilenet_v2",
    width: Positive = 1.0,
    channels: PositiveInt = 256,
    convs: PositiveInt = 4,
    classes: PositiveInt = 1,
    bins: PositiveInt = 17,
    ode_steps: Count = 0,
    resolution: PositiveInt = 320,
) -> Gfl:
    """A GFL detector on images [batch, 3, resolution, resolution], in evaluation mode with random weights.

    Args:
        backbone: torchvision's network of that name.
        width: factor of MobileNetV2's channels.
        channels: of every level and of the head, whole groups of 32.
        convs: layers of each of the head's two towers.
        classes: logits of a place.
        bins: of a side's distribution: distances 0 to bins - 1 strides.
        ode_steps: Euler steps of the block before the class output, as teachers have it; 0 is none.
        resolution: side of the picture in pixels; every level has a place from 8 on.

    Raises:
        UsageError: no such backbone, channels that are no whole groups, a width of a network that has none, or no two
            bins.
    """
    if backbone not in BACKBONES:
        raise UsageError(no_such("backbone", backbone, BACKBONES))
    if channels % GROUPS:
        raise UsageError(
            f"gfl: channels={channels} are no whole groups of the head's norms, which have {GROUPS} of them"
        )
    if width != 1.0 and backbone != "mobilenet_v2":
        raise UsageError(f"gfl: width={width} is a setting of mobilenet_v2; {backbone} has one width")
    if bins < 2:
        raise UsageError(f"gfl: bins={bins} leave no distance to choose: take 2 or more")
    return Gfl(backbone, width, channels, convs, classes, bins, resolution, ode_steps).eval()
