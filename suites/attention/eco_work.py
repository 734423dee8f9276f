"""What EcoFormer's networks cost by the authors' counter: multiplications and additions (Liu et al. 2022, arXiv
2209.09004).

Products with codes of +-1 are additions. Per coded layer of N tokens, H heads and c = C / H numbers, with m = 25
anchors and 16 bits: H N (2 m + 16 m + 16 + 1 + c) multiplications and H N (2 m c + 16 m + 32 + 32 c + c) additions; per
softmax layer 2 N^2 C + H N^2 and 2 N^2 C. Everything else has as many of both as multiply-accumulates; biases of
convolutions count per position, those of linear maps once, and a norm 2 an element. The joules of one operation each
are those of bench/meters/stated_work.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.meters.stated_work import joules
from suites.attention.ecoformer import ANCHORS, BITS

NOTE = "the authors' counter (arXiv 2209.09004): products with codes are additions; codes run as floats here"


@dataclass(frozen=True)
class Work:
    """Multiplications and additions of one sample."""

    multiplications: int
    additions: int

    def __add__(self, other: Work) -> Work:
        return Work(self.multiplications + other.multiplications, self.additions + other.additions)

    @property
    def joules(self) -> float:
        """Modelled energy."""
        return joules(self.multiplications, self.additions)

    def stated(self) -> dict[str, Any]:
        """What a network states of itself, for the readings of its row."""
        return {"multiplications": self.multiplications, "additions": self.additions, "note": NOTE}


@dataclass(frozen=True)
class Pyramid:
    """Widths, heads, MLP ratios and depths of the four stages."""

    widths: tuple[int, ...] = (32, 64, 160, 256)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    ratios: tuple[int, ...] = (8, 8, 4, 4)
    depths: tuple[int, ...] = (2, 2, 2, 2)


_WIDE = (64, 128, 320, 512)
PVT = {
    "b0": Pyramid(),
    "b1": Pyramid(_WIDE),
    "b2": Pyramid(_WIDE, depths=(3, 4, 6, 3)),
    "b3": Pyramid(_WIDE, depths=(3, 4, 18, 3)),
    "b4": Pyramid(_WIDE, depths=(3, 8, 27, 3)),
}


def coded_work(tokens: int, width: int, heads: int, bits: int = BITS, anchors: int = ANCHORS) -> Work:
    """One coded attention without its projections."""
    c = width // heads
    return Work(
        heads * tokens * (2 * anchors + bits * anchors + bits + 1 + c),
        heads * tokens * (2 * anchors * c + bits * anchors + 2 * bits + 2 * bits * c + c),
    )


def softmax_work(tokens: int, width: int, heads: int) -> Work:
    """One softmax attention without its projections."""
    return Work(2 * tokens**2 * width + heads * tokens**2, 2 * tokens**2 * width)


def attention_work(tokens: int, width: int, heads: int, coded: bool) -> Work:
    """One attention with its linear maps: queries and keys share one where they become codes."""
    maps = (3 if coded else 4) * (tokens * width**2 + width)
    return (coded_work if coded else softmax_work)(tokens, width, heads) + _both(maps)


def pvt_work(
    size: str | Pyramid = "b0", coded: bool = True, resolution: int = 224, classes: int = 1000, channels: int = 3
) -> Work:
    """A whole PVTv2 without spatial reduction, by name or by its numbers; its first three stages are coded or not."""
    shape = PVT[size] if isinstance(size, str) else size
    total, before = Work(0, 0), channels
    for stage, (width, heads, ratio, depth) in enumerate(
        zip(shape.widths, shape.heads, shape.ratios, shape.depths, strict=True)
    ):
        tokens = (resolution // (4 * 2**stage)) ** 2
        kernel = 7 if stage == 0 else 3
        hidden = ratio * width
        total += _both(kernel**2 * before * width * tokens + width * tokens + 4 * tokens * width)
        mlp = 2 * tokens * width * hidden + hidden + width + 10 * hidden * tokens
        for _ in range(depth):
            total += attention_work(tokens, width, heads, coded and stage < 3)
            total += _both(mlp + 4 * tokens * width)
        before = width
    return total + _both(before * classes + classes)


def digits_work(tokens: int, width: int, heads: int, depth: int, classes: int, coded: bool) -> Work:
    """The digits network with coded or softmax attention: pixels of one number, MLPs of four times the width."""
    block = attention_work(tokens, width, heads, coded)
    block += _both(8 * tokens * width**2 + 5 * width + 4 * tokens * width)
    ends = _both(tokens * width + width + 2 * tokens * width + width * classes + classes)
    return sum((block for _ in range(depth)), ends)


def _both(count: int) -> Work:
    return Work(count, count)
