"""MCUNetV2's patch-based inference: the first blocks run tile by tile (Lin et al. 2021, arXiv:2110.15352).

The output of the stem and the first e blocks is cut into P x P tiles. For each tile the region that it needs is cut
from the picture and the blocks run on it; zeros are padded only where the region ends at the border of the map. What
halos overlap is computed again. Weights are untouched. The search for architectures is not built.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.engine_memory import patched_peak, regions, split
from suites.common.folding import fold_sequences
from suites.common.patches import Span, sides, whole_spans
from suites.tiny_memory.networks import ChainNet, chain_of, layer_of


@dataclass(frozen=True)
class Step:
    """A convolution and what follows it place by place."""

    conv: nn.Conv2d
    after: tuple[nn.Module, ...]


def steps_of(block: nn.Module) -> list[Step]:
    """The block's convolutions in order, each with its norm and activation."""
    found: list[tuple[nn.Conv2d, list[nn.Module]]] = []
    for part in block.modules():
        if next(part.children(), None) is not None:
            continue
        if isinstance(part, nn.Conv2d):
            found.append((part, []))
        elif not isinstance(part, nn.Identity):
            found[-1][1].append(part)
    return [Step(conv, tuple(after)) for conv, after in found]


class PatchedFeatures(nn.Module):
    """Features whose first blocks run tile by tile, and the others normally.

    Args:
        features: of a MobileNetV2.
        tiles: P, of a side.
        end: e, blocks after the stem.
    """

    def __init__(self, features: nn.Sequential, tiles: int, end: int):
        super().__init__()
        self.tiles = tiles
        blocks = list(features)
        self.stage, self.rest = nn.Sequential(*blocks[: 1 + end]), nn.Sequential(*blocks[1 + end :])
        self.chain = chain_of(self.stage)

    def forward(self, images: Tensor) -> Tensor:
        """Maps of the last layer, [batch, channels, h, w], of square pictures."""
        side = images.shape[-1]
        out = sides([layer for block in self.chain for layer in block.layers], side)[-1]
        channels = self.chain[-1].layers[-1].outputs
        whole = images.new_empty(len(images), channels, out, out)
        runs = whole_spans(out, self.tiles)
        for rows in runs:
            for columns in runs:
                whole[:, :, slice(*rows), slice(*columns)] = self.tile(images, rows, columns)
        return self.rest(whole)

    def tile(self, images: Tensor, rows: Span, columns: Span) -> Tensor:
        """One tile of the stage's output."""
        side = images.shape[-1]
        high, wide = regions(self.chain, side, rows), regions(self.chain, side, columns)
        x = images[:, :, slice(*high[0]), slice(*wide[0])]
        place = 0
        for block, form in zip(self.stage, self.chain, strict=True):
            before = x if form.shortcut else None
            start = place
            for step in steps_of(block):
                x = _region(x, step, (high[place], wide[place]), (high[place + 1], wide[place + 1]))
                place += 1
            if before is not None:
                x = x + _cut(before, (high[start], wide[start]), (high[place], wide[place]))
        return x


def _region(x: Tensor, step: Step, there: tuple[Span, Span], wanted: tuple[Span, Span]) -> Tensor:
    """The wanted region of a step's output from the region of its input that is there."""
    layer = layer_of(step.conv)
    pads = []
    for given, made in zip(reversed(there), reversed(wanted), strict=True):
        pads.append(given[0] - (made[0] * layer.stride - layer.padding))
        pads.append((made[1] - 1) * layer.stride - layer.padding + layer.kernel - given[1])
    if any(pads):
        x = F.pad(x, pads)
    x = F.conv2d(x, step.conv.weight, step.conv.bias, layer.stride, 0, 1, layer.groups)
    for part in step.after:
        x = part(x)
    return x


def _cut(x: Tensor, there: tuple[Span, Span], wanted: tuple[Span, Span]) -> Tensor:
    rows, columns = (slice(w[0] - t[0], w[1] - t[0]) for t, w in zip(there, wanted, strict=True))
    return x[:, :, rows, columns]


def mcunetv2(model: nn.Module, *, tiles: PositiveInt = 4, end: PositiveInt = 4, fold: bool = False) -> ChainNet:
    """The network with its stem and first blocks run patch by patch; the same function with the same weights.

    Args:
        model: a MobileNetV2 of this suite.
        tiles: P, of a side of the stage's output; 1 is the plain network.
        end: e, blocks after the stem that run by patches.
        fold: whether batch norms are folded first, as an engine has them.

    Raises:
        ValueError: not such a network, no block left behind, or more tiles than places.
    """
    net = chain_net(model, "mcunetv2")
    chain = chain_of(net.net.features)
    split(chain, net.resolution, end, tiles)
    if fold:
        fold_sequences(net)
    if tiles > 1:
        net.net.features = PatchedFeatures(net.net.features, tiles, end)
        net.engine_peak_bytes = float(patched_peak(chain, net.resolution, end, tiles))
    return net


def chain_net(model: nn.Module, method: str) -> ChainNet:
    """The model as what it is.

    Raises:
        ValueError: it is no MobileNetV2 of this suite, or its features run otherwise already.
    """
    if not isinstance(model, ChainNet) or not isinstance(model.net.features, nn.Sequential):
        raise ValueError(f"{method} works on the MobileNetV2 of the suite tiny_memory (mbv2_035_144 and its kin)")
    return model
