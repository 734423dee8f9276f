"""How depth, width and resolution share a factor of operations (Dollar et al. 2021, arXiv 2103.06877).

With weights (d, w, r) of sum S and a factor s of the operations: depth times s^(d/S), width times s^(w/2S), resolution
times s^(r/2S). Operations then grow by s, activations by s^((d + w/2 + r)/S). A strategy's name says the weights:
`d1_w8_r1`, or letters that share equally: `dwr`. Rounding as in the authors' code: widths to the nearest multiple of 8,
at least 8; depths to the nearest whole number, at least 1; resolutions to the nearest multiple of 4; a half goes to the
even side, as Python rounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Those of the paper; any other weights may be named likewise.
STRATEGIES = ("d", "w", "r", "dw", "wr", "dwr", "d1_w8_r1")
_LETTERS = re.compile(r"d?w?r?")
_WEIGHTED = re.compile(r"[dwr]\d+(\.\d+)?(_[dwr]\d+(\.\d+)?)*")


@dataclass(frozen=True)
class Factors:
    """What depth, width and resolution are multiplied with."""

    depth: float
    width: float
    resolution: float


def weights(strategy: str) -> tuple[float, float, float]:
    """Weights of depth, width and resolution by the strategy's name.

    Raises:
        ValueError: it is none.
    """
    if strategy and _LETTERS.fullmatch(strategy):
        return tuple(float(letter in strategy) for letter in "dwr")  # type: ignore[return-value]
    parts = strategy.split("_")
    if not _WEIGHTED.fullmatch(strategy) or len({part[0] for part in parts}) < len(parts):
        raise ValueError(f'strategy "{strategy}" is none: name letters of dwr, as in dw, or weights, as in d1_w8_r1')
    found = {part[0]: float(part[1:]) for part in parts}
    if not sum(found.values()):
        raise ValueError(f'strategy "{strategy}" has no weight above 0')
    return tuple(found.get(letter, 0.0) for letter in "dwr")  # type: ignore[return-value]


def factors(strategy: str, s: float) -> Factors:
    """Factors for s times the operations.

    Raises:
        ValueError: the strategy is none, or s is not above 0.
    """
    if not s > 0:
        raise ValueError(f"s={s}: the factor of the operations is above 0")
    depth, width, resolution = weights(strategy)
    total = depth + width + resolution
    return Factors(s ** (depth / total), s ** (width / total / 2), s ** (resolution / total / 2))


def activation_exponent(strategy: str) -> float:
    """The power of s that activations grow with: depth and resolution in full, width by half."""
    depth, width, resolution = weights(strategy)
    return (depth + width / 2 + resolution) / (depth + width + resolution)


def rounded_width(width: float, multiple: int = 8) -> int:
    """The nearest multiple, at least one."""
    return max(multiple, round(width / multiple) * multiple)


def rounded_depth(depth: float) -> int:
    """The nearest whole number, at least 1."""
    return max(1, round(depth))


def rounded_resolution(resolution: float) -> int:
    """The nearest multiple of 4, at least 4."""
    return max(4, round(resolution / 4) * 4)
