"""What a microcontroller's engine needs of memory, modelled: the convention of the papers on tiny networks.

int8 maps, weights in flash. An operator needs its input and its output; a depthwise convolution overwrites its input
and needs the larger of both; a block with a shortcut is added to in place, so that its input is there until the end of
the block and its last map needs no other place. The picture is decoded by rows and is not charged. kB is 1024 bytes.

With the first blocks run patch by patch (Lin et al. 2021, MCUNetV2, arXiv:2110.15352), each operator of a tile needs
what its region needs, and the whole output of these blocks is there besides. A region is what the tile needs of a map,
cut to the map; with `clipped=False` zeros outside the picture are computed as if they were real, which is wrong and is
seen in published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from suites.common.patches import Span, StageLayer, sides, whole_spans


@dataclass(frozen=True)
class ChainBlock:
    """Convolutions one after another, and whether the block's input is added to its output."""

    layers: tuple[StageLayer, ...]
    shortcut: bool = False


Chain = Sequence[ChainBlock]


def layers_of(chain: Chain) -> list[StageLayer]:
    """All convolutions in order."""
    return [layer for block in chain for layer in block.layers]


def map_sides(chain: Chain, side: int) -> list[int]:
    """Sides of the picture and of every convolution's output."""
    return sides(layers_of(chain), side)


def chain_macs(chain: Chain, side: int) -> int:
    """Products of all convolutions on a square picture."""
    maps = map_sides(chain, side)[1:]
    return sum(layer.macs_a_place * place**2 for layer, place in zip(layers_of(chain), maps, strict=True))


def _needs(chain: Chain, places: Sequence[int], first: bool, depthwise_in_place: bool) -> list[int]:
    """Bytes of every operator, from places of every map; `first`: the first map is the picture and free."""
    found, index = [], 0
    for block in chain:
        held = block.layers[0].inputs * places[index] if block.shortcut else 0
        for place, layer in enumerate(block.layers):
            given = 0 if first and index == 0 else layer.inputs * places[index]
            made = layer.outputs * places[index + 1]
            depthwise = layer.groups == layer.inputs == layer.outputs and layer.groups > 1
            free = depthwise_in_place and not (block.shortcut and place == 0)  # else the shortcut still reads its input
            need = max(given, made) if depthwise and free else given + made
            inside = 0 < place < len(block.layers) - 1
            found.append(need + (held if inside else 0))
            index += 1
    return found


def layer_needs(chain: Chain, side: int, *, depthwise_in_place: bool = True) -> list[int]:
    """Bytes that every convolution needs, run layer by layer."""
    return _needs(chain, [s * s for s in map_sides(chain, side)], True, depthwise_in_place)


def layer_by_layer_peak(chain: Chain, side: int, *, depthwise_in_place: bool = True) -> int:
    """Largest need of a convolution in bytes."""
    return max(layer_needs(chain, side, depthwise_in_place=depthwise_in_place))


def regions(chain: Chain, side: int, out: Span, *, clipped: bool = True) -> list[Span]:
    """Runs of the picture and of every map that a run of the last map needs."""
    layers, maps = layers_of(chain), map_sides(chain, side)
    found = [out]
    for layer, before in zip(reversed(layers), reversed(maps[:-1]), strict=True):
        low = found[-1][0] * layer.stride - layer.padding
        high = (found[-1][1] - 1) * layer.stride - layer.padding + layer.kernel
        found.append(layer.needed(found[-1], before) if clipped else (low, high))
    return found[::-1]


def axis_regions(chain: Chain, side: int, tiles: int, *, clipped: bool = True) -> list[list[Span]]:
    """`regions` of every tile along one axis."""
    runs = whole_spans(map_sides(chain, side)[-1], tiles)
    return [regions(chain, side, run, clipped=clipped) for run in runs]


def patched_macs(chain: Chain, side: int, tiles: int, *, clipped: bool = True) -> int:
    """Products of the blocks run tile by tile, halos computed again."""
    total = 0
    axis = axis_regions(chain, side, tiles, clipped=clipped)
    for place, layer in enumerate(layers_of(chain)):
        lengths = [spans[place + 1][1] - spans[place + 1][0] for spans in axis]
        total += layer.macs_a_place * sum(lengths) ** 2
    return total


def tile_peak(stage: Chain, side: int, tiles: int) -> int:
    """Largest need of an operator in a tile, without the buffer of the stage's whole output."""
    axis = axis_regions(stage, side, tiles)
    best = 0
    for rows in axis:
        for columns in axis:
            places = [(r[1] - r[0]) * (c[1] - c[0]) for r, c in zip(rows, columns, strict=True)]
            best = max(best, *_needs(stage, places, True, True))
    return best


def stage_buffer(stage: Chain, side: int) -> int:
    """Bytes of the stage's whole output."""
    return layers_of(stage)[-1].outputs * map_sides(stage, side)[-1] ** 2


def patched_peak(chain: Chain, side: int, end: int, tiles: int) -> int:
    """Peak with the stem and the first blocks run patch by patch, in bytes.

    Args:
        chain: the stem is its first block.
        side: of the picture.
        end: e, blocks after the stem that run patch by patch.
        tiles: P, of a side of the stage's output.

    Raises:
        ValueError: no block is left to run normally, or there are more tiles than places.
    """
    stage, rest = split(chain, side, end, tiles)
    inside = tile_peak(stage, side, tiles) + stage_buffer(stage, side)
    between = map_sides(stage, side)[-1]
    return max(inside, *_needs(rest, [s * s for s in map_sides(rest, between)], False, True))


def split(chain: Chain, side: int, end: int, tiles: int) -> tuple[Chain, Chain]:
    """The blocks that run patch by patch, and the rest.

    Raises:
        ValueError: as `patched_peak`.
    """
    if not 1 <= end < len(chain) - 1:
        raise ValueError(f"end={end}: the network has {len(chain) - 1} blocks after its stem, and some must be left")
    stage = chain[: 1 + end]
    out = map_sides(stage, side)[-1]
    if tiles > out:
        raise ValueError(f"tiles={tiles}: the output of the first {end} blocks is {out} x {out}")
    return stage, chain[1 + end :]


def patched_total_macs(chain: Chain, side: int, end: int, tiles: int) -> int:
    """Products of all convolutions with the first blocks run patch by patch."""
    stage, rest = split(chain, side, end, tiles)
    return patched_macs(stage, side, tiles) + chain_macs(rest, map_sides(stage, side)[-1])
