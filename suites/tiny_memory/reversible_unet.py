"""A 3D U-Net whose levels are chains of reversible mobile inverted bottlenecks (arXiv:2104.09648).

Coupling on halves of h = C/2 channels: y1 = x1 + F(x2), y2 = x2 + G(y1), F and G: 1x1x1 to t h channels, norm, ReLU,
3x3x3 depthwise, norm, ReLU, 1x1x1 back, norm; instance norms with a scale and shift, no convolution bias.

A reconstruction in its layout: a 3x3x3 stem; per level a chain of L couplings and a convolution of stride 2 to twice
the channels; on the way up a transposed convolution, the skip added, and a chain again; a 1x1x1 head. The halves are
two tensors: views of one storage would keep half a map more in every block.

Formulas, V voxels, fp32, activations in place, statistics neglected, are below.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.tiny_memory.reversible import Chain, Move, Moves, States

__all__ = ["Coupling", "ReversibleUnet", "load_checkpoint", "reversible_unet"]


class Bottleneck3d(nn.Sequential):
    """A 3D mobile inverted bottleneck on maps [batch, channels, d, h, w], without a shortcut of its own."""

    def __init__(self, channels: int, expansion: int):
        hidden = expansion * channels
        super().__init__(
            nn.Conv3d(channels, hidden, 1, bias=False),
            nn.GroupNorm(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.GroupNorm(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Conv3d(hidden, channels, 1, bias=False),
            nn.GroupNorm(channels, channels),
        )


class Coupling(Moves):
    """y1 = x1 + F(x2), y2 = x2 + G(y1)."""

    def __init__(self, width: int, expansion: int):
        half = width // 2
        first, second = (Bottleneck3d(half, expansion) for _ in range(2))
        super().__init__([Move(first, 0, [1]), Move(second, 1, [0])])


class Level(Chain):
    """A chain of couplings on whole maps of an even width."""

    def __init__(self, width: int, couplings: int, expansion: int):
        super().__init__([Coupling(width, expansion) for _ in range(couplings)])

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Maps of the same shape."""
        if not len(self.blocks):
            return x
        return torch.cat(super().forward(*self.states_of(x)), dim=1)

    def states_of(self, *given: Tensor) -> States:
        """Both halves of the channels, each a tensor of its own."""
        first, second = given[0].chunk(2, dim=1)
        return first.clone(), second.clone()


class ReversibleUnet(nn.Module):
    """The network on volumes [batch, channels, side, side, side]."""

    def __init__(self, widths: list[int], couplings: int, expansion: int, side: int, channels: int, classes: int):
        super().__init__()
        self.side, self.channels, self.classes = side, channels, classes
        self._widths, self._couplings, self._expansion = widths, couplings, expansion
        self.stem = nn.Conv3d(channels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(Level(width, couplings, expansion) for width in widths)
        pairs = list(pairwise(widths))
        self.downs = nn.ModuleList(nn.Conv3d(fine, coarse, 2, 2) for fine, coarse in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, 2) for fine, coarse in reversed(pairs))
        self.decoder = nn.ModuleList(Level(fine, couplings, expansion) for fine, _ in reversed(pairs))
        self.head = nn.Conv3d(widths[0], classes, 1)

    def forward(self, volumes: Tensor) -> Tensor:
        """Logits, [batch, classes, side, side, side]."""
        x = self.stem(volumes)
        skips = []
        for level, down in zip(self.encoder, self.downs, strict=False):
            x = level(x)
            skips.append(x)
            x = down(x)
        x = self.encoder[-1](x)
        for up, level in zip(self.ups, self.decoder, strict=True):
            x = level(up(x) + skips.pop())
        return self.head(x)

    @property
    def promised_saved_bytes(self) -> float:
        """Bytes that autograd keeps of all chains on one volume by `saved_bytes`; all else of the network apart."""
        levels = [*range(len(self.encoder)), *reversed(range(len(self.decoder)))]
        return float(sum(map(self._promised, levels, [*self.encoder, *self.decoder])))

    def _promised(self, level: int, chain: nn.Module) -> int:
        assert isinstance(chain, Level)
        if not self._couplings:
            return 0
        count = len(chain.blocks) if chain.keeps == "checkpoint" else self._couplings  # of segments, or of couplings
        return saved_bytes(self._widths[level], self._expansion, (self.side >> level) ** 3, count, chain.keeps)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random volumes."""
        like = self.head.weight
        return (torch.randn(batch, self.channels, self.side, self.side, self.side).to(like),)


def reversible_unet(
    *,
    width: PositiveInt = 16,
    couplings: Count = 2,
    expansion: PositiveInt = 4,
    levels: PositiveInt = 3,
    side: PositiveInt = 16,
    channels: PositiveInt = 1,
    classes: PositiveInt = 2,
) -> ReversibleUnet:
    """The network in evaluation mode with random weights; its chains run by ordinary autograd until `reversible`.

    Args:
        width: C of the finest level, even; each level below has twice as many channels.
        couplings: L, of every chain; 0 is the plain net without chains.
        expansion: t.
        levels: of the U.
        side: of the cubic volume in voxels, a multiple of 2^(levels - 1).
        channels: of the volume.
        classes: logits of a voxel.

    Raises:
        ValueError: an odd width, or a side that cannot be halved so often.
    """
    if width % 2:
        raise ValueError(f"width={width}: halves of the channels are coupled, so it must be even")
    if side % 2 ** (levels - 1) or side < 2 ** (levels - 1) * 2:
        raise ValueError(f"side={side}: {levels} levels halve it {levels - 1} times, to 2 voxels or more")
    widths = [width * 2**level for level in range(levels)]
    return ReversibleUnet(widths, couplings, expansion, side, channels, classes).eval()


def coupling_parameters(width: int, expansion: int) -> int:
    """2 [2 h^2 t + 27 h t] + 4 (2 h t + h) with h = C/2."""
    half = width // 2
    return 2 * (2 * half**2 * expansion + 27 * half * expansion) + 4 * (2 * half * expansion + half)


def coupling_macs(width: int, expansion: int, voxels: int) -> int:
    """Products of a forward of one coupling: 2 V (2 h^2 t + 27 h t)."""
    half = width // 2
    return 2 * voxels * (2 * half**2 * expansion + 27 * half * expansion)


def saved_bytes(
    width: int, expansion: int, voxels: int, couplings: int, how: str = "ordinary", element: int = 4
) -> int:
    """Bytes that autograd keeps of a chain on one volume.

    Args:
        width: C.
        expansion: t.
        voxels: V.
        couplings: L.
        how: `ordinary`: L C (2 + 4 t) V; `checkpoint`, of every block: L C V; `reversible`: C V, whatever L.
        element: bytes of a number.

    Raises:
        ValueError: another way.
    """
    maps = {"ordinary": couplings * (2 + 4 * expansion), "checkpoint": couplings, "reversible": 1}
    if how not in maps:
        raise ValueError(f"how={how!r} is unknown: use {', '.join(maps)}")
    return element * width * voxels * maps[how]


def transient_bytes(width: int, expansion: int, voxels: int, element: int = 4) -> int:
    """Bytes that the reversible backward needs besides: half a block (1 + 2 t) C V, and 2 C V rebuilt and gradient."""
    return element * width * voxels * (1 + 2 * expansion + 2)


def step_forwards(how: str) -> int:
    """Forwards' worth of products in a training step of a chain: 3, or 4 where it is computed again.

    Raises:
        KeyError: another way.
    """
    return {"ordinary": 3, "checkpoint": 4, "reversible": 4}[how]
