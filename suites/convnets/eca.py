"""ECA-Net: channels gated by one short filter that runs along the channel axis.

Source: Wang et al. 2020, ECA-Net, arXiv:1910.03151, section 3. timm's `ecaresnet50d` has another stem and is another
network.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import at
from suites.common.feature_operator import FeatureOperator
from suites.common.timm_bridge import import_timm

#: Taps of the official ResNet-50 by stage.
TAPS = (3, 5, 5, 7)


class ChannelFilter(nn.Module):
    """x * sigmoid(filter of the channels' means): `taps` parameters, one filter for all places of the channel axis."""

    def __init__(self, taps: int):
        super().__init__()
        self.filter = nn.Conv1d(1, 1, taps, padding=taps // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, channels, h, w]."""
        gate = self.filter(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return x * gate.transpose(1, 2).unsqueeze(-1)


def eca_resnet(*, depth: PositiveInt = 50, resolution: PositiveInt = 224) -> nn.Module:
    """A ResNet of timm with a channel filter behind the last norm of every block, 3, 5, 5 and 7 taps by stage.

    Args:
        depth: 18, 26, 34, 50, 101 or 152.
        resolution: side of the input.

    Raises:
        UsageError: timm is missing or has no ResNet of that depth.
    """
    timm = import_timm()
    if not timm.is_model(f"resnet{depth}"):
        raise UsageError(f"eca_resnet: timm has no resnet{depth}; take 18, 26, 34, 50, 101 or 152")
    network = timm.create_model(f"resnet{depth}")
    for taps, name in zip(TAPS, ("layer1", "layer2", "layer3", "layer4"), strict=True):
        for block in getattr(network, name):
            block.se = ChannelFilter(taps)  # where timm's blocks have their gates
    return at(network, resolution)


def channel_filter(*, width: PositiveInt = 256, taps: PositiveInt = 5, resolution: PositiveInt = 14) -> FeatureOperator:
    """The bare gate as an operator on [batch, width, resolution, resolution], beside a loop over channels.

    Raises:
        UsageError: an even number of taps.
    """
    if taps % 2 == 0:
        raise UsageError(f"channel_filter: taps={taps} must be odd")
    return FeatureOperator(ChannelFilter(taps), (width, resolution, resolution), reference=_channel_by_channel)


def _channel_by_channel(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, ChannelFilter)
    means, weight = x.mean((2, 3)), layer.filter.weight[0, 0]
    half, done = len(weight) // 2, x.clone()
    for channel in range(x.shape[1]):
        score = means.new_zeros(len(x))
        for tap in range(len(weight)):
            other = channel + tap - half
            if 0 <= other < x.shape[1]:
                score = score + weight[tap] * means[:, other]
        done[:, channel] = x[:, channel] * score.sigmoid().view(-1, 1, 1)
    return done
