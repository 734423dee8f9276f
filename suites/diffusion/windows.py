"""Which steps of Re-ttention look at everything, and attention in a window over the places of pictures and videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from suites.diffusion.banded import banded_attention

Mode = Literal["full", "refresh", "sparse"]


@dataclass(frozen=True)
class Windows:
    """How a chain looks at windows.

    Attributes:
        share: window over the tokens of a picture or the places of a frame.
        refresh: steps from one refreshing step to the next.
        warmup: first steps that are full.
        increment: added to the ratio after every sparse step.
        use_ratio: whether the window's softmax is rescaled.
        use_residual: whether the cached difference is added.
    """

    share: float
    refresh: int
    warmup: int
    increment: float = 0.0
    use_ratio: bool = True
    use_residual: bool = True

    def mode(self, index: int) -> Mode:
        """What step `index` does: full ones first, then a refreshing one and sparse ones behind it, again and again."""
        if index < self.warmup:
            return "full"
        return "sparse" if (index - self.warmup) % self.refresh else "refresh"


def windowed(q: Tensor, k: Tensor, v: Tensor, half: int, frames: int) -> tuple[Tensor, Tensor]:
    """Attention in the window and the logarithm of each row's sum; of a video, tokens come frame by frame."""
    if frames == 1:
        return banded_attention(q, k, v, half)
    places = q.shape[2] // frames
    q, k, v = (each.unflatten(2, (frames, places)).transpose(2, 3).flatten(2, 3) for each in (q, k, v))
    out, mass = banded_attention(q, k, v, half, frames)
    out, mass = (each.unflatten(2, (places, frames)).transpose(2, 3).flatten(2, 3) for each in (out, mass))
    return out, mass
