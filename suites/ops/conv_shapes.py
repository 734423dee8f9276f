"""Shapes of convolutions: the twelve layers of the im2win bench, and layers of networks that only look cheap.

The twelve are read in Lu et al. 2023 (arXiv 2306.14316), table 1: no padding, batch 128. The others are single layers
of networks of the zoo, at the resolutions at which these run them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvShape:
    """Channels, rows and columns of an input, filters with their kernel, and how they move over it."""

    channels: int
    height: int
    width: int
    filters: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return (self.height + 2 * self.padding - self.kernel[0]) // self.stride + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return (self.width + 2 * self.padding - self.kernel[1]) // self.stride + 1

    @property
    def input_elements(self) -> int:
        """Of one image."""
        return self.channels * self.height * self.width

    @property
    def output_elements(self) -> int:
        """Of one image."""
        return self.filters * self.out_height * self.out_width

    @property
    def filter_elements(self) -> int:
        """Of all filters."""
        return self.filters * (self.channels // self.groups) * self.kernel[0] * self.kernel[1]

    @property
    def macs(self) -> int:
        """Products of one image by the definition."""
        return self.out_height * self.out_width * self.filter_elements

    @property
    def im2col_elements(self) -> int:
        """Elements of one image's columns: C kh kw Ho Wo."""
        return self.channels * self.kernel[0] * self.kernel[1] * self.out_height * self.out_width

    @property
    def im2win_elements(self) -> int:
        """Elements of one image's windows: C Ho W kh, with W the padded width."""
        return self.channels * self.out_height * (self.width + 2 * self.padding) * self.kernel[0]

    @property
    def winograd_macs(self) -> int:
        """Products of one image between transformed tiles: 16 ceil(Ho / 2) ceil(Wo / 2) C Cout / groups."""
        tiles = -(-self.out_height // 2) * -(-self.out_width // 2)
        return 16 * tiles * self.filters * (self.channels // self.groups)

    def memory_ratio(self, batch: int = 128) -> float:
        """Elements of input, output, filters and windows over the same with columns, of a batch."""
        fixed = batch * (self.input_elements + self.output_elements) + self.filter_elements
        return (fixed + batch * self.im2win_elements) / (fixed + batch * self.im2col_elements)


def square(
    channels: int, size: int, filters: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1
) -> ConvShape:
    """A shape of equal sides."""
    return ConvShape(channels, size, size, filters, (kernel, kernel), stride, padding, groups)


TWELVE = {
    "conv1": square(3, 227, 96, 11, 4), "conv2": square(3, 231, 96, 11, 4), "conv3": square(3, 227, 64, 7, 2),
    "conv4": square(64, 224, 64, 7, 2), "conv5": square(96, 24, 256, 5), "conv6": square(256, 12, 512, 3),
    "conv7": square(3, 224, 64, 3), "conv8": square(64, 112, 128, 3), "conv9": square(64, 56, 64, 3),
    "conv10": square(128, 28, 128, 3), "conv11": square(256, 14, 256, 3), "conv12": square(512, 7, 512, 3),
}  # fmt: skip

#: What networks of the zoo spend their time in, by network and layer.
SLOW = {
    "mobilenet_depthwise": square(144, 56, 144, 3, 1, 1, 144),
    "efficientnet_depthwise": square(240, 28, 240, 5, 1, 2, 240),
    "convnext_depthwise": square(96, 56, 96, 7, 1, 3, 96),
    "replknet_depthwise": square(128, 28, 128, 31, 1, 15, 128),
    "regnet_grouped": square(192, 28, 192, 3, 1, 1, 8),
    "resnext_grouped": square(128, 56, 128, 3, 1, 1, 32),
    "mobilenet_pointwise": square(144, 56, 24, 1),
    "resnet_stem": square(3, 224, 64, 7, 2, 3),
    "vit_patches": square(3, 224, 192, 16, 16),
    "vgg_second": square(64, 224, 64, 3, 1, 1),
}

BY_NAME = {**TWELVE, **SLOW}
