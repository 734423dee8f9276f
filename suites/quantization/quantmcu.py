"""QuantMCU: patches with outliers keep 8 bits, others mix (Liang et al. 2024, arXiv 2401.13714): a reconstruction.

The first layers run patch by patch. A patch whose region of the input holds a value outside mean +- k sigma of a
normal fit keeps 8-bit feature maps. The others get 2, 4 or 8 bits for each map by S(i, b) = -l Omega + (1 - l) Phi:
Phi the saving of bit operations when map i goes to b bits, Omega the change of the entropy of its values, both
normalised; map by map until the modelled memory fits, always one of the maps that are alive where memory is largest:
fewer bits of another would free nothing. A map's grid has the range of the least squared error. Products are those of
the patch-based network whatever the bits. Memory and bit operations are modelled, quality is measured.

`engine_peak_bytes` is this model of memory: a layer's input and output together, at their bits; run by patches the
largest of all tiles, and beside it the stage's whole output at 8 bits.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt, Rate
from suites.common.patches import (
    Span,
    StageLayer,
    every_tile,
    mobilenet_v2_stage,
    sides,
    spans_of,
    tile_elements,
    tile_macs,
)
from suites.quantization.cost import costed
from suites.quantization.grids import Affine, affine_grid
from suites.quantization.network import calibration_batches, folded, on_meta, replaced
from suites.quantization.noise import Noise
from suites.quantization.ranges import SHARES, sampled
from suites.quantization.whitepaper import rounded_weight

BITS = (2, 4, 8)


class Stage(nn.Module):
    """Convolutions with batch norm and ReLU6, run on the whole picture; each layer's form is a `StageLayer`."""

    def __init__(self, shapes: list[StageLayer]):
        super().__init__()
        self.shapes = shapes
        self.convs = nn.ModuleList(
            nn.Conv2d(s.inputs, s.outputs, s.kernel, s.stride, s.padding, groups=s.groups, bias=False) for s in shapes
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(s.outputs) for s in shapes)
        # a projection ends a bottleneck: it is followed by no activation
        self.bends = [s.kernel > 1 or s.outputs > s.inputs for s in shapes]

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the last layer."""
        for conv, norm, bend in zip(self.convs, self.norms, self.bends, strict=True):
            x = norm(conv(x))
            x = F.relu6(x) if bend else x
        return x

    def memory(self, side: int) -> float:
        """Largest bytes of a layer's input and output together, at 8 bits, of a picture of this side."""
        elements = tile_elements(self.shapes, side, *every_tile(self.shapes, side, 1)[0])
        return tile_memory(elements, [8] * len(elements))


class PatchNet(nn.Module):
    """MobileNetV2's first layers as a stage, the mean over places and a linear layer."""

    def __init__(self, width: float, blocks: int, resolution: int, classes: int):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, 3, classes
        self.stage: Any = Stage(mobilenet_v2_stage(blocks, width))
        self.head = nn.Linear(self.stage.shapes[-1].outputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        return self.head(F.relu(self.stage(images)).mean(dim=(2, 3)))

    @property
    def engine_peak_bytes(self) -> float:
        """The stage's largest bytes by the model of memory, of one picture."""
        return self.stage.memory(self.resolution)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the network's resolution."""
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(self.head.weight),)


def patch_net(
    *, width: Positive = 0.5, blocks: PositiveInt = 4, resolution: PositiveInt = 32, classes: PositiveInt = 10
) -> PatchNet:
    """A network whose stage can run by patches, in evaluation mode with random weights.

    Args:
        width: of MobileNetV2's channels.
        blocks: inverted bottlenecks of the stage, 1 to 6.
        resolution: side of the square picture in pixels.
        classes: logits.

    Raises:
        ValueError: more blocks than the stage has, or a picture that is too small.
    """
    if blocks > 6:
        raise ValueError(f"blocks={blocks}: the stage has 6 at most")
    if resolution < 8:
        raise ValueError(f"resolution={resolution}: the stage halves its picture three times, so 8 pixels or more")
    return PatchNet(width, blocks, resolution, classes).eval()


class PatchedStage(nn.Module):
    """The folded stage run tile by tile; maps of each tile are rounded to their bits.

    Args:
        stage: with its norms folded into its convolutions.
        side: of the input.
        tiles: of a side.
        bits: of the input's region and of each layer's output, for every tile; None rounds nothing.
        grids: by map and bits.
    """

    def __init__(
        self, stage: Stage, side: int, tiles: int, bits: list[list[int]] | None, grids: dict[tuple[int, int], Affine]
    ):
        super().__init__()
        self.convs, self.bends, self.shapes = stage.convs, stage.bends, stage.shapes
        self.side, self.bits, self.grids = side, bits, grids
        self.order = sorted(grids)
        self.tiles = every_tile(stage.shapes, side, tiles)
        self.maps = sides(stage.shapes, side)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the last layer, put together from all tiles."""
        outside = self.shapes[-1].outputs
        whole = x.new_empty(len(x), outside, self.maps[-1], self.maps[-1])
        for place, (rows, columns) in enumerate(self.tiles):
            whole[:, :, slice(*rows), slice(*columns)] = self._tile(x, place, rows, columns)
        return whole

    def memory(self, side: int) -> float:
        """Largest bytes of a layer's input and output of a tile at their bits, and the whole output at 8 bits."""
        tiles = [tile_elements(self.shapes, side, *tile) for tile in self.tiles]
        widths = self.bits or [[8] * len(elements) for elements in tiles]
        buffer = self.shapes[-1].outputs * self.maps[-1] ** 2
        return max(map(tile_memory, tiles, widths)) + buffer

    def get_extra_state(self) -> Tensor:
        """Bits of every tile's maps, then scale and zero point of every grid, for the state."""
        table = [float(width) for each in self.bits or [] for width in each]
        numbers = [float(v) for key in self.order for v in (self.grids[key].scale, self.grids[key].zero)]
        return torch.tensor([*table, *numbers], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take bits and grids from a state."""
        if self.bits is None:
            return
        count = len(self.bits[0])
        table = state[: count * len(self.bits)].int().reshape(-1, count)
        self.bits = table.tolist()
        numbers = state[table.numel() :].reshape(-1, 2)
        for key, (scale, zero) in zip(self.order, numbers, strict=True):
            old = self.grids[key]
            self.grids[key] = Affine(scale.to(old.scale), zero.to(old.zero), old.low, old.high)

    def _tile(self, x: Tensor, place: int, rows: Span, columns: Span) -> Tensor:
        high, wide = spans_of(self.shapes, self.side, rows), spans_of(self.shapes, self.side, columns)
        x = self._rounded(x[:, :, slice(*high[0]), slice(*wide[0])], place, 0)
        for index, (conv, shape, bend) in enumerate(zip(self.convs, self.shapes, self.bends, strict=True)):
            top, bottom = _missing(shape, high[index + 1], high[index])
            left, right = _missing(shape, wide[index + 1], wide[index])
            x = F.pad(x, (left, right, top, bottom))
            x = F.conv2d(x, conv.weight, conv.bias, shape.stride, 0, 1, shape.groups)  # type: ignore[arg-type]
            x = self._rounded(F.relu6(x) if bend else x, place, index + 1)
        return x

    def _rounded(self, x: Tensor, place: int, index: int) -> Tensor:
        if self.bits is None:
            return x
        grid = self.grids[index, self.bits[place][index]]
        return Affine(grid.scale.to(x), grid.zero.to(x), grid.low, grid.high)(x)


def _missing(shape: StageLayer, out: Span, there: Span) -> tuple[int, int]:
    """Padding before and behind: what a run of the output needs outside the map."""
    low = out[0] * shape.stride - shape.padding
    high = (out[1] - 1) * shape.stride - shape.padding + shape.kernel
    return there[0] - low, high - there[1]


@costed
def quantmcu(
    model: nn.Module,
    *,
    tiles: PositiveInt = 4,
    sigmas: Positive = 2.5,
    weight: Rate = 0.5,
    memory: Positive = 0.5,
    bits: Count = 0,
    calibration_samples: PositiveInt = 64,
    seed: Count = 0,
) -> nn.Module:
    """The network with its stage run by patches of mixed bits; bits=32 runs plain patches: the same function.

    Args:
        model: `patch_net`.
        tiles: of a side.
        sigmas: k; an input outside mean +- k sigma is an outlier.
        weight: l, of the entropy in the score.
        memory: of a patch without outliers, over its peak at 8 bits; mapping goes on until it fits.
        bits: of all maps of all patches: 2, 4, 8, or 32; 0 mixes.
        calibration_samples: that ranges, outliers and entropies are taken from.
        seed: of the samples.

    Raises:
        ValueError: not such a model, other bits, or more tiles than there are places.
    """
    if not isinstance(model, PatchNet):
        raise ValueError(f"quantmcu runs the stage of patch_net by patches, and this is {type(model).__name__}")
    if bits not in (0, 2, 4, 8, 32):
        raise ValueError(f"bits={bits}: 2, 4, 8, 32, or 0 for a mixture")
    places = sides(model.stage.shapes, model.resolution)[-1]
    if tiles > places:
        raise ValueError(f"tiles={tiles}: the stage's last map has {places} places a side, take as many at most")
    task = getattr(model, "task", None)
    batches = [] if on_meta(model) or bits == 32 else calibration_batches(model, calibration_samples, seed)
    folded(model)
    stage, side = model.stage, model.resolution
    shapes = stage.shapes
    every = every_tile(shapes, side, tiles)
    if bits == 32:
        replaced(model, "stage", PatchedStage(stage, side, tiles, None, {}))
        return model
    maps = _maps(stage, batches)
    grids = {(i, b): grid_of(maps[i] if maps else None, b, stage) for i in range(len(shapes) + 1) for b in BITS}
    if bits or not maps:
        widths = [[bits or 8] * (len(shapes) + 1) for _ in every]
    else:
        entropies = [{b: entropy(grids[i, b].codes(each)) for b in BITS} for i, each in enumerate(maps)]
        special = outlying(maps[0], shapes, side, every, sigmas)
        widths = [
            [8] * (len(shapes) + 1) if odd else mixed(shapes, side, tile, entropies, weight, memory)
            for tile, odd in zip(every, special, strict=True)
        ]
    model.weight_sqnr_db = _rounded_weights(stage)  # type: ignore[assignment]
    made = PatchedStage(stage, side, tiles, widths, grids)
    replaced(model, "stage", made)
    model.execution, model.nominal_bits = "simulated", 8.0  # type: ignore[assignment]
    model.nominal_bit_operations = float(modelled_bit_operations(shapes, side, every, widths)) + _head_operations(model)  # type: ignore[assignment]
    model.task = task  # type: ignore[assignment]
    return model


def _rounded_weights(stage: Stage) -> float | None:
    """Round all weights of the stage to 8 bits in place; what they lost in decibels."""
    noise = Noise()
    for conv in stage.convs:
        exact: Tensor = conv.weight.detach()  # type: ignore[operator]
        rounded = nn.Parameter(rounded_weight(exact, 8, "channel", True))
        conv.weight = rounded
        noise.add(exact, rounded)
    return noise.db


def _head_operations(model: PatchNet) -> float:
    return 64.0 * model.head.weight.numel()


def _maps(stage: Stage, batches: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """The stage's input and every layer's output over all batches; nothing without batches."""
    if not batches:
        return []
    x = torch.cat([args[0] for args in batches])
    found = [x]
    with torch.no_grad():
        for conv, bend in zip(stage.convs, stage.bends, strict=True):
            x = conv(x)
            x = F.relu6(x) if bend else x
            found.append(x)
    return found


def grid_of(values: Tensor | None, bits: int, stage: Stage) -> Affine:
    """The grid of a map: of its ends times the share of least squared error; -1 to 1 without values."""
    like = stage.convs[0].weight
    if values is None:
        ones = torch.ones((), device=like.device)  # type: ignore[arg-type]
        return affine_grid(-ones, ones, bits)
    some, least, largest = sampled(values), values.amin(), values.amax()
    tried = [affine_grid(least * share, largest * share, bits) for share in SHARES]
    return min(tried, key=lambda grid: float((grid(some) - some).square().sum()))


def outlying(
    inputs: Tensor, shapes: list[StageLayer], side: int, tiles: list[tuple[Span, Span]], sigmas: float
) -> list[bool]:
    """Which tiles' regions of the input hold a value outside mean +- k sigma of all inputs."""
    mean, sigma = inputs.mean(), inputs.std()
    far = ((inputs - mean).abs() > sigmas * sigma).any(dim=1).any(dim=0)
    found = []
    for rows, columns in tiles:
        high, wide = spans_of(shapes, side, rows)[0], spans_of(shapes, side, columns)[0]
        found.append(bool(far[slice(*high), slice(*wide)].any()))
    return found


def entropy(codes: Tensor) -> float:
    """Shannon entropy of codes in bits."""
    counts = torch.unique(codes, return_counts=True)[1].double()
    share = counts / counts.sum()
    return float(-(share * share.log2()).sum())


def tile_memory(elements: list[int], bits: list[int]) -> float:
    """Largest bytes of a layer's input and output together."""
    return max(alive(elements, bits))


def alive(elements: list[int], bits: list[int]) -> list[float]:
    """Bytes of each layer's input and output together."""
    sizes = [count * width / 8 for count, width in zip(elements, bits, strict=True)]
    return [a + b for a, b in pairwise(sizes)]


def at_the_peak(elements: list[int], bits: list[int]) -> list[int]:
    """The maps that are alive, as a layer's input or its output, where these take `tile_memory`."""
    both = alive(elements, bits)
    return sorted({place + end for place, size in enumerate(both) if size == max(both) for end in (0, 1)})


def mixed(
    shapes: list[StageLayer],
    side: int,
    tile: tuple[Span, Span],
    entropies: list[dict[int, float]],
    weight: float,
    memory: float,
) -> list[int]:
    """Bits of a tile's maps: the best-scored step down of one that is at the peak, until the modelled memory fits."""
    elements = tile_elements(shapes, side, *tile)
    products = [*tile_macs(shapes, side, *tile), 0]
    bits = [8] * len(elements)
    limit = memory * tile_memory(elements, bits)
    whole = sum(64 * count for count in products)
    while tile_memory(elements, bits) > limit:
        best: tuple[float, int, int] | None = None
        for place in at_the_peak(elements, bits):
            now = bits[place]
            for lower in (b for b in BITS if b < now):
                saved = products[place] * 8 * (now - lower) / whole
                base = max(entropies[place][8], 1e-9)
                lost = (entropies[place][now] - entropies[place][lower]) / base
                score = -weight * lost + (1 - weight) * saved
                if best is None or score > best[0]:
                    best = (score, place, lower)
        if best is None:
            break
        bits[best[1]] = best[2]
    return bits


def modelled_bit_operations(
    shapes: list[StageLayer], side: int, tiles: list[tuple[Span, Span]], widths: list[list[int]], weight_bits: int = 8
) -> int:
    """MACs x weight bits x bits of the layer's input, over all tiles."""
    return sum(
        macs * weight_bits * bits
        for tile, each in zip(tiles, widths, strict=True)
        for macs, bits in zip(tile_macs(shapes, side, *tile), each[:-1], strict=True)
    )
