"""A pattern of Sparse-vDiT in every head of a video transformer of diffusers, in every forward; words dense.

What the papers chose head by head follows from trained weights and is not known: a row of one pattern tells what that
pattern costs in the released network, blocks that run among it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from suites.common.diffusers_bridge import DiffusersModel
from suites.diffusion.attending import Attending, tokens_of
from suites.diffusion.patterns import Layout, attend_beside_words


@dataclass(frozen=True)
class InPattern:
    """Attention in one pattern, whatever the layer."""

    pattern: str
    layout: Layout
    words: int

    def __call__(self, call: int, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None) -> Tensor:
        """What is attended, words first."""
        return attend_beside_words(self.pattern, q, k, v, self.layout, self.words, padding)


def with_pattern(model: DiffusersModel, pattern: str, band: int, near: int, columns: int) -> DiffusersModel:
    """The network whose heads all attend in one pattern.

    Raises:
        ValueError: it is no transformer of videos.
    """
    tokens = tokens_of(model, "sparse_vdit")
    if tokens.frames < 2:
        raise ValueError("sparse_vdit works on videos, and this network makes pictures: take cogvideox1_5_5b")
    layout = Layout(tokens.frames, tokens.places, band, near, columns)
    model.around = partial(Attending, tokens, InPattern(pattern, layout, tokens.words))
    return model
