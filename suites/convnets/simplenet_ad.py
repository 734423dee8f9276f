"""SimpleNet for anomalies: a frozen backbone, a linear adapter and a small discriminator, beside a memory bank.

Sources: Liu et al. 2023, SimpleNet, arXiv:2303.15140, section 3; the bank of features is PatchCore's, Roth et al. 2022,
arXiv:2106.08265. This is not the classifier of arXiv:1608.06037.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Positive, PositiveInt
from suites.common.conv_blocks import at, conv_norm
from suites.common.timm_bridge import import_timm

WIDTH = 1536
HIDDEN = 1024
BANK_WIDTH = 1024
SIGMA = 4.0
#: Of the training: standard deviation of the noise in feature space, and the margin of the loss.
NOISE, MARGIN = 0.015, 0.5


class SmallBackbone(nn.Module):
    """Four strided 3x3 layers, so small that it can be learned from digits: maps at strides 4 and 8."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.enter = conv_norm(3, width, 3, 2, act=nn.ReLU)
        self.layer2 = nn.Sequential(
            *conv_norm(width, 2 * width, 3, 2, act=nn.ReLU), *conv_norm(2 * width, 2 * width, 3, act=nn.ReLU)
        )
        self.layer3 = conv_norm(2 * width, 4 * width, 3, 2, act=nn.ReLU)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The fine map and the coarse one."""
        fine = self.layer2(self.enter(x))
        return fine, self.layer3(fine)


class Backbone(nn.Module):
    """timm's WideResNet-50-2: the maps behind layers 2 and 3; `stop=none` runs the rest as well, as released."""

    def __init__(self, name: str, stop: str):
        super().__init__()
        network = import_timm().create_model(name)
        self.enter = nn.Sequential(network.conv1, network.bn1, network.act1, network.maxpool, network.layer1)
        self.layer2, self.layer3 = network.layer2, network.layer3
        self.rest = nn.Sequential(network.layer4, network.global_pool, network.fc) if stop == "none" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps at strides 8 and 16."""
        fine = self.layer2(self.enter(x))
        coarse = self.layer3(fine)
        if self.rest is not None:
            self.rest(coarse)
        return fine, coarse


def patches(fine: Tensor, coarse: Tensor, width: int) -> Tensor:
    """Features of every place of the fine map, [batch, places, width].

    Neighbourhoods of 3x3, pooled to the width each, then as a pair.

    The coarse map's are resized to the fine one; the first half of the pooled pair is from the fine map.
    """
    size = fine.shape[-2:]
    each = []
    for x in (fine, coarse):
        around = F.unfold(x, 3, padding=1).transpose(1, 2)  # channels times neighbours, pooled along both
        pooled = F.adaptive_avg_pool1d(around, width).transpose(1, 2).unflatten(2, x.shape[-2:])
        each.append(
            pooled if x.shape[-2:] == size else F.interpolate(pooled, size, mode="bilinear", align_corners=False)
        )
    both = torch.cat([x.flatten(2).transpose(1, 2) for x in each], -1)
    return F.adaptive_avg_pool1d(both, width)


def smooth(maps: Tensor, sigma: float = SIGMA) -> Tensor:
    """[batch, 1, h, w] blurred by a Gaussian, rows and columns apart."""
    reach = min(int(4 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    line = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-line.square() / (2 * sigma * sigma))
    kernel = kernel / kernel.sum()
    padded = F.pad(maps, [reach] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def margin_loss(normal: Tensor, negative: Tensor, margin: float = MARGIN) -> Tensor:
    """Mean max(0, margin - D(normal)) + mean max(0, margin + D(negative))."""
    return (margin - normal).clamp_min(0).mean() + (margin + negative).clamp_min(0).mean()


class Discriminator(nn.Module):
    """Adapter and discriminator on features [batch, places, width]: normality, [batch, places]."""

    def __init__(self, width: int, hidden: int, noise: float = NOISE):
        super().__init__()
        self.noise = noise
        self.adapter = nn.Linear(width, width)
        self.widen = nn.Linear(width, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.leave = nn.Linear(hidden, 1, bias=False)

    def judged(self, adapted: Tensor) -> Tensor:
        """Normality of adapted features."""
        y = self.widen(adapted).flatten(0, 1)
        return self.leave(F.leaky_relu(self.norm(y), 0.2)).view(adapted.shape[:2])

    def forward(self, features: Tensor) -> Tensor:
        """Normality."""
        return self.judged(self.adapter(features))

    def extra_repr(self) -> str:
        """The noise that it learns from, on which trained weights depend."""
        return f"noise={self.noise}"

    def loss(self, features: Tensor, noise: float | None = None) -> Tensor:
        """Of normal features and as many negatives, which are they with noise; None is the discriminator's own."""
        noise = self.noise if noise is None else noise
        adapted = self.adapter(features)
        return margin_loss(self.judged(adapted), self.judged(adapted + noise * torch.randn_like(adapted)))


class MemoryBank(nn.Module):
    """Minus the distance to the nearest of so many kept features.

    Q M width MACs, a cost that grows with the training set.
    """

    kept: Tensor

    def __init__(self, width: int, kept: int):
        super().__init__()
        self.register_buffer("kept", torch.randn(kept, width))

    def keep(self, features: Tensor) -> None:
        """Take the first of features [n, width], over again where there are fewer than the bank holds."""
        self.kept.copy_(features[torch.arange(len(self.kept)) % len(features)])

    def forward(self, features: Tensor) -> Tensor:
        """[batch, places]."""
        return -torch.cdist(features, self.kept.expand(len(features), -1, -1)).amin(-1)


class AnomalyDetector(nn.Module):
    """Images [batch, 3, h, w] to the score of each, [batch], and a map of its size, [batch, 1, h, w]."""

    def __init__(self, backbone: nn.Module, judge: nn.Module, width: int):
        super().__init__()
        self.backbone, self.judge, self.width = backbone, judge, width

    def features(self, x: Tensor) -> Tensor:
        """What is judged of images, [batch, places, width]."""
        fine, coarse = self.backbone(x)
        return patches(fine, coarse, self.width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and maps; the larger, the less normal."""
        fine, coarse = self.backbone(x)
        found = -self.judge(patches(fine, coarse, self.width))
        maps = found.view(len(x), 1, *fine.shape[-2:])
        large = F.interpolate(maps, x.shape[-2:], mode="bilinear", align_corners=False)
        return found.amax(1), smooth(large)


def break_even_bank(width: int = WIDTH, hidden: int = HIDDEN, bank_width: int = BANK_WIDTH) -> int:
    """Vectors of a bank from which on the adapter and discriminator need fewer MACs."""
    return math.ceil((width * width + width * hidden + hidden) / bank_width)


def _backbone(name: str, stop: str = "layer3") -> nn.Module:
    return SmallBackbone() if name == "small" else Backbone(name, stop)


def simplenet_ad(
    *, backbone: Literal["wide_resnet50_2", "resnet18", "small"] = "wide_resnet50_2",
    stop: Literal["layer3", "none"] = "layer3", width: PositiveInt = WIDTH, hidden: PositiveInt = HIDDEN,
    noise: Positive = NOISE, resolution: PositiveInt = 288,
) -> AnomalyDetector:  # fmt: skip
    """SimpleNet on images [batch, 3, resolution, resolution].

    Args:
        backbone: timm's network, or a small one that is learned from digits (it ends at its second map).
        stop: where the backbone ends; the released run goes on to the classifier, whose work is lost.
        width: of features.
        hidden: of the discriminator.
        noise: standard deviation of what makes negatives of adapted features, while it learns.
        resolution: side of the input.

    Raises:
        UsageError: timm is missing.
    """
    return at(AnomalyDetector(_backbone(backbone, stop), Discriminator(width, hidden, noise), width), resolution)


def patchcore(
    *, backbone: Literal["wide_resnet50_2", "resnet18", "small"] = "wide_resnet50_2", kept: PositiveInt = 3841,
    width: PositiveInt = BANK_WIDTH, resolution: PositiveInt = 288,
) -> AnomalyDetector:  # fmt: skip
    """The same features against a bank of `kept` vectors.

    Args:
        backbone: timm's network, or a small one that is learned from digits.
        kept: vectors of the bank; random unless a task fills it, since what a look-up costs depends on their number.
        width: of features.
        resolution: side of the input.

    Raises:
        UsageError: timm is missing.
    """
    return at(AnomalyDetector(_backbone(backbone), MemoryBank(width, kept), width), resolution)
