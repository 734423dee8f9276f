"""MobileNetV2 as a chain of blocks with its engine's memory, plainly built or with its halo redistributed.

Redistribution (Lin et al. 2021, arXiv:2110.15352, section 3.3): less of the receptive field in the blocks that run
patch by patch, more behind. By hand here: the depthwise layers of stride 1 in the first blocks see one pixel, and each
later stage of the network has a block more.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.engine_memory import ChainBlock, layer_by_layer_peak
from suites.common.mobilenet import STAGES, MobileNet
from suites.common.patches import StageLayer
from suites.common.torchvision_remedy import import_beside_torchvision


class ChainNet(MobileNet):
    """A MobileNetV2 whose features are a chain: `engine_peak_bytes` is the model of a microcontroller's engine.

    Attributes:
        engine_peak_bytes: modelled, int8, of the executor that the network has now.
    """

    def __init__(self, net: Any, resolution: int, classes: int):
        super().__init__(net, resolution, classes)
        self.engine_peak_bytes = float(layer_by_layer_peak(chain_of(net.features), resolution))


def layer_of(conv: nn.Conv2d) -> StageLayer:
    """The form of a convolution with square kernels."""
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    assert isinstance(padding, int)
    return StageLayer(conv.in_channels, conv.out_channels, kernel, stride, padding, conv.groups)


def chain_of(features: nn.Module) -> list[ChainBlock]:
    """Blocks of MobileNetV2's features: the stem, the inverted bottlenecks, the last 1x1 convolution."""
    found = []
    for block in features.children():
        layers = tuple(layer_of(part) for part in block.modules() if isinstance(part, nn.Conv2d))
        found.append(ChainBlock(layers, bool(getattr(block, "use_res_connect", False))))
    return found


def mobilenet_chain(
    *,
    width: Positive = 1.0,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
    redistributed: Count = 0,
    narrow_head: bool = False,
) -> ChainNet:
    """MobileNetV2 of torchvision, in evaluation mode with random weights.

    Args:
        width: factor of all channels; the last 1x1 convolution has 1280 channels up to a width of 1.
        resolution: side of the picture in pixels.
        classes: logits.
        redistributed: first blocks after the stem whose depthwise layers of stride 1 see one pixel, while each later
            stage has a block more; 0 is the published network.
        narrow_head: whether the last 1x1 convolution is thinned with the rest, as in the model zoo of MCUNet.

    Raises:
        ValueError: more blocks than the stages before the last have.
    """
    models = import_beside_torchvision("torchvision.models")
    ends = [sum(stage[2] for stage in STAGES[: place + 1]) for place in range(len(STAGES))]
    if redistributed >= ends[-2]:
        raise ValueError(f"redistributed={redistributed}: later stages must be left, so {ends[-2] - 1} at most")
    table = [[t, c, n + int(bool(redistributed) and end > redistributed), s]
             for (t, c, n, s), end in zip(STAGES, ends, strict=True)]  # fmt: skip
    net = models.MobileNetV2(classes, width, inverted_residual_setting=table, dropout=0.0)
    for block in net.features[1 : 1 + redistributed]:
        _see_one_pixel(block)
    if narrow_head:
        _narrow_head(net, width, classes)
    return ChainNet(net, resolution, classes).eval()


def _narrow_head(net: Any, width: float, classes: int) -> None:
    """A last 1x1 convolution of 1280 x width channels, to multiples of 8, and its classifier, in place."""
    old = net.features[-1][0]
    outer = max(8, int(1280 * width + 4) // 8 * 8)
    conv, norm = nn.Conv2d(old.in_channels, outer, 1, bias=False), nn.BatchNorm2d(outer)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    net.features[-1] = nn.Sequential(conv, norm, nn.ReLU6(inplace=True))
    net.last_channel, net.classifier = outer, nn.Sequential(nn.Dropout(0.0), nn.Linear(outer, classes))


def _see_one_pixel(block: nn.Module) -> None:
    """Depthwise 3x3 layers of stride 1 become 1x1 in place."""
    for part in list(block.modules()):
        if not isinstance(part, nn.Sequential):
            continue
        for name, conv in list(part.named_children()):
            if isinstance(conv, nn.Conv2d) and conv.groups > 1 and conv.stride == (1, 1):
                made = nn.Conv2d(conv.in_channels, conv.out_channels, 1, groups=conv.groups, bias=False)
                nn.init.kaiming_normal_(made.weight, mode="fan_out")
                setattr(part, name, made)
