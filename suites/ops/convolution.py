"""One convolution by every way that there is (im2win: Lu et al. 2023, arXiv 2306.14316 and 2306.14320).

library   torch's, whatever it chooses
im2col    all patches as columns, one matrix product
im2win    for every output row the input rows that it needs, in the order of windows: overlap along the width is stored
          once. Element x kh + u of [N, C, Ho, W kh] is input column x, kernel row u; a window is a run of kw kh
          elements from column j s on. Torch's matrix product cannot read overlapping runs, so that a block of channels
          is copied out of the windows at a time: the layout and its size are the paper's, its time needs the compiled
          kernel.
direct    a matrix product of the channels for every tap, added up
fft       products of spectra
winograd  F(2 x 2, 3 x 3) (Lavin and Gray 2015, arXiv 1509.09308): 16 products for 4 outputs where the definition takes
36
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from bench.errors import did_you_mean
from suites.common.operators import Operator
from suites.ops.conv_shapes import BY_NAME, ConvShape

#: Channels whose windows are copied out at a time.
CHANNEL_BLOCK = 16

Form = Literal["library", "im2col", "im2win", "direct", "fft", "winograd"]


def convolution(
    *,
    form: Literal["library", "im2col", "im2win", "direct", "fft", "winograd"] = "library",
    layer: str = "",
    channels: PositiveInt = 16,
    height: PositiveInt = 16,
    width: PositiveInt = 16,
    filters: PositiveInt = 16,
    kernel: list[PositiveInt] = [3, 3],  # noqa: B006  read from the source by the planner, never changed
    stride: PositiveInt = 1,
    padding: Count = 0,
    groups: PositiveInt = 1,
    backward: bool = False,
) -> Convolution:
    """A 2-D convolution without bias as an operator on [batch, channels, height, width].

    Args:
        form: how it is computed.
        layer: conv1 to conv12 of the im2win bench or a layer of the zoo; empty takes the numbers below.
        channels: of the input.
        height: rows of the input.
        width: columns of the input.
        filters: channels of the output.
        kernel: rows and columns of a filter; one number for both.
        stride: along both axes.
        padding: zeros on every side.
        groups: of channels that see nothing of each other.
        backward: a run also takes the gradients.

    Raises:
        ValueError: there is no such layer, groups that do not divide, a kernel that does not fit, or a form that has no
            such shape.
    """
    if layer and layer not in BY_NAME:
        raise ValueError(f'layer "{layer}" does not exist; {did_you_mean(layer, BY_NAME)}')
    sides = (kernel[0], kernel[-1])
    shape = BY_NAME[layer] if layer else ConvShape(channels, height, width, filters, sides, stride, padding, groups)
    _check(shape, form, len(kernel))
    return Convolution(form, shape, backward=backward).eval()


def _check(shape: ConvShape, form: str, sides: int) -> None:
    if sides > 2:
        raise ValueError(f"kernel has {sides} numbers: one, or rows and columns")
    if shape.channels % shape.groups or shape.filters % shape.groups:
        raise ValueError(
            f"groups={shape.groups} does not divide both {shape.channels} channels and {shape.filters} filters"
        )
    if shape.out_height < 1 or shape.out_width < 1:
        raise ValueError(
            f"a kernel of {shape.kernel} does not fit into {shape.height} x {shape.width} with padding {shape.padding}"
        )
    if form == "winograd" and (shape.kernel != (3, 3) or shape.stride != 1):
        raise ValueError(
            f"form='winograd' is F(2 x 2, 3 x 3): a kernel of 3 x 3 at stride 1, not {shape.kernel} at {shape.stride}"
        )


class Convolution(Operator):
    """The convolution; its filters are a parameter [filters, channels / groups, kh, kw]."""

    def __init__(self, form: Form, shape: ConvShape, *, backward: bool):
        super().__init__(form=form, backward=backward)
        self.shape = shape
        fan = shape.filter_elements // shape.filters
        self.weight = nn.Parameter(
            torch.randn(shape.filters, shape.channels // shape.groups, *shape.kernel) * fan**-0.5
        )

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, self.shape.channels, self.shape.height, self.shape.width).to(self.like),)

    def check_args(self, seed: int) -> tuple[Tensor]:
        """Two images of a few windows a side, of unequal sides."""
        generator, s = torch.Generator().manual_seed(seed), self.shape
        rows, columns = (
            min(whole, max(1, size - 2 * s.padding) + windows * s.stride)
            for whole, size, windows in zip((s.height, s.width), s.kernel, (5, 6), strict=True)
        )
        return (torch.randn(2, s.channels, rows, columns, generator=generator).to(self.like),)

    def function(self, x: Tensor) -> Tensor:
        """[batch, filters, Ho, Wo]."""
        padded = x if self.form == "library" or not self.shape.padding else F.pad(x, [self.shape.padding] * 4)
        return FORMS[self.form](padded, self.weight, self.shape)

    def definition(self, x: Tensor) -> Tensor:
        """Output by output: one patch of each group times its filters."""
        s, (kh, kw) = self.shape, self.shape.kernel
        padded = F.pad(x, [s.padding] * 4).unflatten(1, (s.groups, -1))
        weight = self.weight.unflatten(0, (s.groups, -1))
        rows, columns = ((n - k) // s.stride + 1 for n, k in zip(padded.shape[-2:], s.kernel, strict=True))
        found = []
        for i in range(rows):
            for j in range(columns):
                patch = padded[..., i * s.stride : i * s.stride + kh, j * s.stride : j * s.stride + kw]
                found.append(torch.einsum("ngcuv,gocuv->ngo", patch, weight).flatten(1))
        return torch.stack(found, -1).unflatten(-1, (rows, columns))

    def costs(self, x: Tensor) -> dict[str, float | str]:
        """Buffers of the whole batch, and operations of transforms where there are any."""
        return costs_of(self.form, self.shape, x.shape[0])


def library(x: Tensor, weight: Tensor, shape: ConvShape) -> Tensor:
    """Torch's convolution."""
    return F.conv2d(x, weight, stride=shape.stride, padding=shape.padding, groups=shape.groups)


def sizes(x: Tensor, shape: ConvShape) -> tuple[int, int]:
    """Rows and columns that the padded input gives."""
    kh, kw = shape.kernel
    return (x.shape[2] - kh) // shape.stride + 1, (x.shape[3] - kw) // shape.stride + 1


def im2col(x: Tensor, weight: Tensor, shape: ConvShape) -> Tensor:
    """Columns [N, G, C/G kh kw, Ho Wo] and one product a group."""
    rows, columns = sizes(x, shape)
    patches = F.unfold(x, shape.kernel, stride=shape.stride).unflatten(1, (shape.groups, -1))
    filters = weight.flatten(1).unflatten(0, (shape.groups, -1))
    return (filters @ patches).flatten(1, 2).unflatten(-1, (rows, columns))


def windows(x: Tensor, shape: ConvShape) -> Tensor:
    """The window tensor [N, C, Ho, W kh]: at x kh + u stands input column x of kernel row u."""
    return x.unfold(2, shape.kernel[0], shape.stride).flatten(3)


def im2win(x: Tensor, weight: Tensor, shape: ConvShape) -> Tensor:
    """Windows, and products of a block of channels at a time."""
    (rows, columns), (kh, kw) = sizes(x, shape), shape.kernel
    runs = windows(x, shape).unfold(3, kw * kh, shape.stride * kh).unflatten(1, (shape.groups, -1))
    # [G, C/G, kw kh, filters/G]: filters in the order of a run
    filters = weight.transpose(2, 3).flatten(2).unflatten(0, (shape.groups, -1)).permute(0, 2, 3, 1)
    total: Tensor | None = None
    for first in range(0, runs.shape[2], CHANNEL_BLOCK):
        block = runs[:, :, first : first + CHANNEL_BLOCK].permute(1, 0, 3, 4, 2, 5).flatten(1, 3).flatten(2)
        part = block @ filters[:, first : first + CHANNEL_BLOCK].flatten(1, 2)
        total = part if total is None else total + part
    assert total is not None
    return total.unflatten(1, (-1, rows, columns)).permute(1, 0, 4, 2, 3).flatten(1, 2)


def direct(x: Tensor, weight: Tensor, shape: ConvShape) -> Tensor:
    """A product of channels for every tap."""
    (rows, columns), (kh, kw), s = sizes(x, shape), shape.kernel, shape.stride
    grouped, filters = x.unflatten(1, (shape.groups, -1)), weight.unflatten(0, (shape.groups, -1))
    total: Tensor | None = None
    for u in range(kh):
        for v in range(kw):
            seen = grouped[..., u : u + (rows - 1) * s + 1 : s, v : v + (columns - 1) * s + 1 : s]
            part = filters[..., u, v] @ seen.flatten(3)
            total = part if total is None else total + part
    assert total is not None
    return total.flatten(1, 2).unflatten(-1, (rows, columns))


def fft(x: Tensor, weight: Tensor, shape: ConvShape) -> Tensor:
    """Products of spectra over the padded image; what does not wrap around is the convolution at stride 1."""
    rows, columns = sizes(x, shape)
    exact, size = torch.promote_types(x.dtype, torch.float32), x.shape[-2:]
    image = torch.fft.rfft2(x.to(exact)).unflatten(1, (shape.groups, -1))
    filters = torch.fft.rfft2(weight.to(exact), s=size).unflatten(0, (shape.groups, -1)).conj()
    left, right = (
        image.permute(3, 4, 1, 0, 2),
        filters.permute(3, 4, 0, 2, 1),
    )  # frequencies, groups, [N, C] and [C, filters]
    made = (left @ right).permute(3, 2, 4, 0, 1).flatten(1, 2)
    whole = torch.fft.irfft2(made, s=size)
    s = shape.stride
    return whole[..., : (rows - 1) * s + 1 : s, : (columns - 1) * s + 1 : s].to(x.dtype)


#: Transforms of F(2 x 2, 3 x 3): B^T for inputs, G for filters, A^T for outputs.
INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
FILTER = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))


def winograd(x: Tensor, weight: Tensor, shape: ConvShape) -> Tensor:
    """Tiles of 4 x 4 inputs, 16 products of channels, tiles of 2 x 2 outputs; odd sides get one more row."""
    rows, columns = sizes(x, shape)
    x = F.pad(x, (0, columns % 2, 0, rows % 2))
    tiles = x.unfold(2, 4, 2).unfold(3, 4, 2).unflatten(1, (shape.groups, -1))
    high, wide = tiles.shape[3:5]
    transformed = additions(INPUT, tiles).permute(5, 6, 1, 2, 0, 3, 4).flatten(4)  # 4, 4, G, C/G, N tiles
    filters = additions(FILTER, weight).permute(2, 3, 0, 1).unflatten(2, (shape.groups, -1))
    products = filters @ transformed
    made = additions(OUTPUT, products.permute(2, 3, 4, 0, 1))  # G, filters/G, N tiles, 2, 2
    made = made.unflatten(2, (-1, high, wide)).permute(2, 0, 1, 3, 5, 4, 6).flatten(1, 2)
    return made.reshape(*made.shape[:2], 2 * high, 2 * wide)[..., :rows, :columns]


def additions(matrix: tuple[tuple[float, ...], ...], x: Tensor) -> Tensor:
    """M x M^T over the last two axes by additions alone: entries are 0, 1, -1 and a half."""
    return _along(matrix, _along(matrix, x, -1), -2)


def _along(matrix: tuple[tuple[float, ...], ...], x: Tensor, axis: int) -> Tensor:
    parts = x.unbind(axis)
    return torch.stack([_sum(row, parts) for row in matrix], axis)


def _sum(row: tuple[float, ...], parts: tuple[Tensor, ...]) -> Tensor:
    scale = next(abs(value) for value in row if value)
    total: Tensor | None = None
    for value, part in zip(row, parts, strict=True):
        if value:
            signed = part if value > 0 else -part
            total = signed if total is None else total + signed
    assert total is not None
    return total if scale == 1 else total * scale


FORMS = {"library": library, "im2col": im2col, "im2win": im2win, "direct": direct, "fft": fft, "winograd": winograd}


def costs_of(form: str, shape: ConvShape, batch: int) -> dict[str, float | str]:
    """Elements of an algorithm's buffers for a batch, padded input left out, and operations of its transforms."""
    pad = 2 * shape.padding
    high, wide = shape.height + pad, shape.width + pad
    if form == "library":
        return {"workspace_elements": "the library chooses its algorithm and its buffers"}
    if form in ("im2col", "im2win"):
        return {"workspace_elements": batch * (shape.im2col_elements if form == "im2col" else shape.im2win_elements)}
    if form == "direct":
        return {"workspace_elements": batch * shape.output_elements}
    if form == "winograd":
        tiles = batch * -(-shape.out_height // 2) * -(-shape.out_width // 2)
        filters = 16 * shape.filters * (shape.channels // shape.groups)
        return {"workspace_elements": 16 * tiles * (shape.channels + shape.filters) + filters}
    planes = batch * (shape.channels + shape.filters) + shape.filters * (shape.channels // shape.groups)
    return {"workspace_elements": planes * high * 2 * (wide // 2 + 1), "fourier_operations": planes * plane(high, wide)}


def plane(height: int, width: int) -> float:
    """Operations of a transform of a real plane of n = height x width points: 2.5 n log2 n."""
    return 2.5 * height * width * math.log2(height * width)
