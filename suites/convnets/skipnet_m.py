"""SkipNet-M and its loss: MobileNetV3-Large's layout with two long skip blocks.

Samples weighted by their features' variance.

Source: Abrahamyan et al. 2021, Bias Loss for Mobile Neural Networks, arXiv:2107.11170; sections 3 and 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt, Rate
from bench.errors import UsageError
from suites.common.conv_blocks import conv_norm, rounded
from suites.common.digits_resnet import DigitsResnet
from suites.common.inverted import InvertedBottleneck

#: (kernel, expansion, outputs, gate, stride) of every block but the first, in stages that end where a skip block joins.
STAGES = (
    ((3, 4, 24, False, 2), (3, 3, 24, False, 1), (5, 3, 40, True, 2), (5, 3, 40, True, 1), (5, 6, 40, True, 1)),
    ((3, 6, 80, False, 2), (3, 2.5, 80, False, 1), (3, 2.3, 80, False, 1), (3, 2.3, 80, False, 1)),
    (
        (3, 6, 112, True, 1), (3, 6, 112, True, 1), (5, 6, 160, True, 2), (5, 6, 160, True, 1), (5, 6, 160, True, 1),
    ),
)  # fmt: skip
#: (side of the pooled map, expansion, kernel, outputs) of the two skip blocks.
SKIPS = ((28, 6, 5, 40), (14, 2.3, 3, 80))
FIRST = 16
RESOLUTION = 224
#: Of the loss: exp(ALPHA v) - BETA.
ALPHA = BETA = 0.3


class _Skip(nn.Module):
    """The first block's map pooled to a fixed side, 1x1, depthwise, 1x1."""

    def __init__(self, side: int, expansion: float, kernel: int, outputs: int):
        super().__init__()
        hidden = rounded(FIRST * expansion)
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.layers = nn.Sequential(
            conv_norm(FIRST, hidden, act=nn.Hardswish),
            conv_norm(hidden, hidden, kernel, groups=hidden, act=nn.Hardswish),
            conv_norm(hidden, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.pool(x))


def bias_loss(logits: Tensor, targets: Tensor, features: Tensor, alpha: float = ALPHA, beta: float = BETA) -> Tensor:
    """The mean over samples of cross entropy times exp(alpha v) - beta.

    Args:
        logits: [batch, classes].
        targets: [batch].
        features: the last feature map of each sample, [batch, channels, height, width]; v is its variance, scaled to
            [0, 1] over the batch; a batch whose samples vary alike has v = 0.
        alpha: see above.
        beta: see above.
    """
    each = F.cross_entropy(logits, targets, reduction="none")
    variance = features.detach().flatten(1).var(dim=1)
    low, high = variance.min(), variance.max()
    scaled = (variance - low) / (high - low).clamp_min(1e-12)
    return ((torch.exp(alpha * scaled) - beta) * each).mean()


class SkipNet(nn.Module):
    """A classifier of images [batch, 3, 224, 224]; the pools of its skip blocks have fixed sides."""

    def __init__(self, classes: int, alpha: float, beta: float, weighted: bool):
        super().__init__()
        self.resolution = RESOLUTION
        self.alpha, self.beta, self.weighted = alpha, beta, weighted
        self.first = nn.Sequential(
            conv_norm(3, FIRST, 3, 2, act=nn.Hardswish), InvertedBottleneck(FIRST, FIRST, hidden=FIRST, widen=True)
        )
        before, stages = FIRST, list[nn.Module]()
        for rows in STAGES:
            stage = []
            for kernel, expansion, outputs, gated, stride in rows:
                hidden = rounded(before * expansion)
                act: type[nn.Module] = nn.ReLU if outputs <= 40 else nn.Hardswish
                gate = rounded(hidden / 4) if gated else 0
                stage.append(
                    InvertedBottleneck(before, outputs, hidden=hidden, kernel=kernel, stride=stride, act=act, gate=gate)
                )
                before = outputs
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.skips = nn.ModuleList(_Skip(*row) for row in SKIPS)
        self.last = conv_norm(before, 6 * before, act=nn.Hardswish)
        self.head = nn.Sequential(nn.Linear(6 * before, 1280), nn.Hardswish(), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits; while it is trained also the last feature map, which its loss weighs samples by."""
        features = self.features(x)
        logits = self.head(features.mean((2, 3)))
        return (logits, features) if self.training else logits

    def features(self, x: Tensor) -> Tensor:
        """The last feature map.

        Raises:
            UsageError: the input is not of 224 x 224.
        """
        if x.shape[-2:] != (RESOLUTION, RESOLUTION):
            raise UsageError(
                f"SkipNet-M pools to fixed sides and is only built for {RESOLUTION} x {RESOLUTION}, "
                f"not {tuple(x.shape[-2:])}"
            )
        first = self.first(x)
        y = self.stages[0](first) + self.skips[0](first)
        y = self.stages[1](y) + self.skips[1](first)
        return self.last(self.stages[2](y))

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Random classes."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        return torch.randint(last.out_features, (batch,), generator=torch.Generator().manual_seed(seed))

    def loss(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        """What a training step minimises: the weighted cross entropy, or the plain one."""
        logits, features = outputs
        if not self.weighted:
            return F.cross_entropy(logits, targets)
        return bias_loss(logits, targets, features, self.alpha, self.beta)


class BiasResnet(DigitsResnet):
    """A small residual network whose loss weighs samples by the variance of their last maps, or plain."""

    def __init__(self, blocks: int, width: int, resolution: int, weighted: bool):
        super().__init__(blocks, width, resolution, channels=3)
        self.weighted = weighted

    def learning_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch of images, by which a task trains the network."""
        maps = self.maps(images)
        logits = self.head(maps.mean((2, 3)))
        return bias_loss(logits, labels, maps) if self.weighted else F.cross_entropy(logits, labels)


def digits_bias(
    *, weighted: bool = True, blocks: PositiveInt = 1, width: PositiveInt = 8, resolution: PositiveInt = 16
) -> BiasResnet:
    """A residual network of 6 x `blocks` + 2 layers for digits, trained by the bias loss or by plain cross entropy.

    Args:
        weighted: whether it learns by the bias loss.
        blocks: of each of three stages.
        width: channels of the first stage.
        resolution: side of the input.
    """
    return BiasResnet(blocks, width, resolution, weighted).eval()


def skipnet_m(*, weighted: bool = True, alpha: Rate = ALPHA, beta: Rate = BETA, classes: PositiveInt = 1000) -> SkipNet:
    """SkipNet-M, at 224 pixels alone.

    Args:
        weighted: whether it learns by the bias loss or by plain cross entropy.
        alpha: of the loss.
        beta: of the loss, below 1.
        classes: logits.

    Raises:
        UsageError: beta is 1, so that a sample of least variance has no loss.
    """
    if beta >= 1:
        raise UsageError(f"skipnet_m: beta={beta} takes all loss from some samples: keep it below 1")
    return SkipNet(classes, alpha, beta, weighted).eval()
