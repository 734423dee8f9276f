"""DeepRFTv2: sub-U-nets that exchange reversibly, and a blur kernel estimated between frequencies (arXiv:2511.21132).

A reconstruction from the abstract and a summary; there is no code. States x_l of three levels, width C 2^(l-1) and half
the size each. Sub-U-net j updates them from fine to coarse, x_l^j = a_l x_l^(j-1) + F_l^j(x_(l-1)^j, x_(l+1)^(j-1)),
with a learned scalar a_l of at least 0.1; it is undone from coarse to fine. F: its sources brought to the level's size
(means of 2 x 2, or nearest), two 3x3 convolutions with a GELU between them, and a gate of channels.

The kernel: r = FFT2 of a decoder's map, K by reversible residual blocks of 1x1 layers on (real, imaginary) of r, and
conv[IFFT2(K r); map]. `kernel=False` runs the same layers on places instead of frequencies, so that products are equal.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.tiny_memory.deblur_unet import LEVELS, Deblurring
from suites.tiny_memory.reversible import Chain, Move, Moves

__all__ = ["DeepRft", "SubUnets", "deeprftv2", "load_checkpoint"]


class Exchange(nn.Module):
    """F_l of its one or two neighbours, finer first."""

    def __init__(self, level: int, width: int, levels: int):
        super().__init__()
        self.level = level
        sources = _sources(level, levels)
        own = width * 2**level
        self.finer = [source < level for source in sources]
        self.conv1 = nn.Conv2d(sum(width * 2**source for source in sources), own, 3, padding=1)
        self.conv2 = nn.Conv2d(own, own, 3, padding=1)
        self.gate = nn.Conv2d(own, own, 1)

    def forward(self, *neighbours: Tensor) -> Tensor:
        """What is added to the level's map."""
        given = [
            F.avg_pool2d(x, 2) if finer else F.interpolate(x, scale_factor=2.0)
            for x, finer in zip(neighbours, self.finer, strict=True)
        ]
        y = self.conv2(F.gelu(self.conv1(torch.cat(given, dim=1))))
        return y * torch.sigmoid(self.gate(y.mean(dim=(2, 3), keepdim=True)))


def _sources(level: int, levels: int) -> list[int]:
    return [place for place in (level - 1, level + 1) if 0 <= place < levels]


class SubUnets(Chain):
    """Sub-U-nets on states of three levels."""

    def __init__(self, width: int, count: int, levels: int = LEVELS):
        super().__init__(
            [
                Moves(
                    [Move(Exchange(lv, width, levels), lv, _sources(lv, levels), scaled=True) for lv in range(levels)]
                )
                for _ in range(count)
            ]
        )


class Mixer(nn.Module):
    """A 1x1 layer with GELU between: what a reversible residual block adds to one of its halves."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return self.conv2(F.gelu(self.conv1(x)))


class KernelEstimator(nn.Module):
    """K from a map's frequencies by reversible residual blocks on (real, imaginary), and the map that it filters."""

    def __init__(self, width: int, frequencies: bool, blocks: int = 2):
        super().__init__()
        self.frequencies = frequencies
        self.chain = Chain([Moves([Move(Mixer(width), 0, [1]), Move(Mixer(width), 1, [0])]) for _ in range(blocks)])
        self.join = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return self.join(torch.cat([self.filtered(x), x], dim=1))

    def filtered(self, x: Tensor) -> Tensor:
        """IFFT2(K r) with r = FFT2(x); without frequencies K x, place by place.

        K is 1 and what the blocks add to r / (1 + |r|): with r itself the map would be squared from the start.
        """
        if not self.frequencies:
            bounded = x / (1 + x.abs())
            first, second = self.chain(bounded, bounded)
            return (1 + (first + second) / 2 - bounded) * x
        r = torch.fft.fft2(x, norm="ortho")
        bounded = r / (1 + r.abs())
        kernel = torch.complex(*self.chain(bounded.real.contiguous(), bounded.imag.contiguous()))
        return applied(1 + kernel - bounded, r)


def applied(kernel: Tensor, r: Tensor) -> Tensor:
    """The real part of IFFT2(K r): the map itself where K = 1."""
    return torch.fft.ifft2(kernel * r, norm="ortho").real


class DeepRft(Deblurring):
    """Takes the blur from pictures [batch, 3, side, side]; the picture is added to the answer."""

    def __init__(self, width: int, sub_unets: int, kernel: bool, resolution: int):
        super().__init__(width, resolution)
        self._width, self._sub_unets = width, sub_unets
        widths = [width * 2**level for level in range(LEVELS)]
        self.stems = nn.ModuleList(nn.Conv2d(3 * 4**level, w, 3, padding=1) for level, w in enumerate(widths))
        self.body = SubUnets(width, sub_unets)
        self.ups = nn.ModuleList(nn.Conv2d(w, width, 1) for w in widths[1:])
        self.estimator = KernelEstimator(width, kernel)

    def forward(self, pictures: Tensor) -> Tensor:
        """The pictures without their blur; sides are multiples of 4."""
        states = tuple(stem(F.pixel_unshuffle(pictures, 2**level)) for level, stem in enumerate(self.stems))
        states = self.body(*states)
        x = states[0]
        for up, state in zip(self.ups, states[1:], strict=True):
            x = x + F.interpolate(up(state), size=x.shape[2:])
        return pictures + self.head(self.estimator(x))

    @property
    def promised_saved_bytes(self) -> float:
        """Bytes that autograd keeps of the sub-U-nets on one picture by `saved_bytes`; stems and decoder apart."""
        kept = len(self.body.blocks) if self.body.keeps == "checkpoint" else self._sub_unets
        return float(saved_bytes(self._width, self.resolution, kept, self.body.keeps))


def deeprftv2(
    *,
    width: PositiveInt = 16,
    sub_unets: PositiveInt = 4,
    kernel: bool = True,
    resolution: PositiveInt = 64,
) -> DeepRft:
    """The network in evaluation mode with random weights; its chains run by ordinary autograd until `reversible`.

    Args:
        width: C of the finest level; each below has twice as many channels.
        sub_unets: how many update the levels.
        kernel: whether the blur is estimated between frequencies; else the same layers run on places.
        resolution: side of example pictures, a multiple of 4.

    Raises:
        ValueError: another side.
    """
    return DeepRft(width, sub_unets, kernel, resolution).eval()


def state_bytes(width: int, side: int, levels: int = LEVELS, element: int = 4) -> int:
    """Bytes of the states of one picture, which is all that the reversible chain keeps: sum of C 2^l (H / 2^l)^2."""
    return element * sum(width * 2**level * (side // 2**level) ** 2 for level in range(levels))


def saved_bytes(
    width: int, side: int, count: int, how: str = "ordinary", levels: int = LEVELS, element: int = 4
) -> int:
    """Bytes that autograd keeps of so many sub-U-nets on one picture.

    `reversible` keeps the last states, `checkpoint` those that every segment begins with. Ordinarily a level of w
    channels, whose neighbours have g, keeps in every sub-U-net g + 3 w numbers a place (the sources joined, both sides
    of the GELU, what the gate multiplies), its state before, 2 w of the gate and its scale; and the means of two
    neighbours keep the last states of all levels but the coarsest.

    Args:
        width: of the finest level.
        side: of the picture.
        count: of sub-U-nets; with `checkpoint` of segments.
        how: see above.
        levels: of states.
        element: bytes of a number.

    Raises:
        ValueError: another way.
    """
    states = state_bytes(width, side, levels, element)
    if how in ("reversible", "checkpoint"):
        return states * (count if how == "checkpoint" else 1)
    if how != "ordinary":
        raise ValueError(f"how={how!r} is unknown: use ordinary, checkpoint or reversible")
    inside = last = 0
    for level in range(levels):
        own, places = width * 2**level, (side // 2**level) ** 2
        inside += places * (sum(width * 2**source for source in _sources(level, levels)) + 3 * own) + 2 * own + 1
        last += own * places if level < levels - 1 else 0
    return count * (states + element * inside) + element * last


def exchange_macs(width: int, side: int, levels: int = LEVELS) -> int:
    """Products of a forward of one sub-U-net on one picture."""
    total = 0
    for level in range(levels):
        own, places = width * 2**level, (side // 2**level) ** 2
        given = sum(width * 2**source for source in _sources(level, levels))
        total += places * 9 * own * (given + own) + own * own
    return total


def fourier_operations(width: int, side: int) -> float:
    """5 H W log2(H W) a channel and transform, of which there are two; they are no products of the network."""
    places = side * side
    return 2 * width * 5 * places * math.log2(places)
