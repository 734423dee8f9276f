"""Patch-based execution of a stack of convolutions: tiles of the last map, each with the region that it needs.

A stage is a list of layers (kernel, stride, padding, channels). A tile of the output needs, layer by layer, a region
that grows towards the input; parts outside the picture are padding and are not computed. What tiles overlap is computed
again: that is the price of the smaller peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: A half-open run of rows or columns.
Span = tuple[int, int]


@dataclass(frozen=True)
class StageLayer:
    """A convolution of the stage: its kernel, stride and padding, channels in and out, and groups."""

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def out_side(self, side: int) -> int:
        """Side of the output of a square map."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def needed(self, span: Span, side: int) -> Span:
        """The run of an input of this side that a run of the output needs, cut to the map."""
        low = span[0] * self.stride - self.padding
        high = (span[1] - 1) * self.stride - self.padding + self.kernel
        return max(0, low), min(side, high)

    @property
    def macs_a_place(self) -> int:
        """Products of all outputs of one place."""
        return self.outputs * (self.inputs // self.groups) * self.kernel**2


def sides(layers: Sequence[StageLayer], side: int) -> list[int]:
    """Sides of the input and of every layer's output."""
    found = [side]
    for layer in layers:
        found.append(layer.out_side(found[-1]))
    return found


def whole_spans(side: int, tiles: int) -> list[Span]:
    """Runs of ceil(side / tiles), the last smaller where they do not divide, and none that would be empty."""
    step = -(-side // tiles)
    return [(start, min(start + step, side)) for start in range(0, side, step)]


def spans_of(layers: Sequence[StageLayer], side: int, out: Span) -> list[Span]:
    """Runs of the input and of every layer's output that a run of the last output needs."""
    maps = sides(layers, side)
    found = [out]
    for layer, before in zip(reversed(layers), reversed(maps[:-1]), strict=True):
        found.append(layer.needed(found[-1], before))
    return found[::-1]


def tile_macs(layers: Sequence[StageLayer], side: int, rows: Span, columns: Span) -> list[int]:
    """Products of each layer for one tile."""
    high, wide = spans_of(layers, side, rows)[1:], spans_of(layers, side, columns)[1:]
    return [layer.macs_a_place * (r[1] - r[0]) * (c[1] - c[0]) for layer, r, c in zip(layers, high, wide, strict=True)]


def tile_elements(layers: Sequence[StageLayer], side: int, rows: Span, columns: Span) -> list[int]:
    """Elements of the input's region and of each layer's output for one tile."""
    high, wide = spans_of(layers, side, rows), spans_of(layers, side, columns)
    channels = [layers[0].inputs, *(layer.outputs for layer in layers)]
    return [c * (r[1] - r[0]) * (w[1] - w[0]) for c, r, w in zip(channels, high, wide, strict=True)]


def every_tile(layers: Sequence[StageLayer], side: int, tiles: int) -> list[tuple[Span, Span]]:
    """Rows and columns of all tiles of the last map, row by row."""
    runs = whole_spans(sides(layers, side)[-1], tiles)
    return [(rows, columns) for rows in runs for columns in runs]


def mobilenet_v2_stage(blocks: int = 4, width: float = 1.0) -> list[StageLayer]:
    """Stem and the first inverted bottlenecks of MobileNetV2 (Sandler et al. 2018, table 2)."""
    table = [(1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 32, 1)]
    scaled = lambda channels: max(8, int(channels * width + 4) // 8 * 8)  # noqa: E731
    inner = scaled(32)
    layers = [StageLayer(3, inner, 3, 2, 1)]
    for expansion, outputs, stride in table[:blocks]:
        hidden, outer = inner * expansion, scaled(outputs)
        if expansion > 1:
            layers.append(StageLayer(inner, hidden))
        layers.append(StageLayer(hidden, hidden, 3, stride, 1, hidden))
        layers.append(StageLayer(hidden, outer))
        inner = outer
    return layers
