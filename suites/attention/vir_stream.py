"""ViR's blocks over a stream: one more token from a state of fixed size (Hatamizadeh et al. 2023, arXiv 2310.19731).

A step gives what one parallel pass over all tokens gives at that place, and keeps C d_h numbers a layer whatever came
before. LayerScale is one instead of 1e-5, so that at random weights a wrong retention would show in what is compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.attention.vir import Block, state_numbers
from suites.common.initial import draw


class RetentionStream(nn.Module):
    """A stack of retention blocks that takes tokens one by one, [batch, width], or all at once."""

    period = 1
    window = 197

    def __init__(self, width: int, heads: int, depth: int):
        super().__init__()
        self.width, self.heads = width, heads
        self.blocks = nn.ModuleList(Block(width, heads, chunk=0) for _ in range(depth))
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.ones_(module.scale1)
                nn.init.ones_(module.scale2)
            elif isinstance(module, nn.Linear):
                draw(module.weight)

    def forward(self, clip: Tensor) -> Tensor:
        """Features of every token of a clip [batch, tokens, width] in one parallel pass."""
        for block in self.blocks:
            clip = block(clip)
        return clip

    def offline(self, clip: Tensor) -> Tensor:
        """The same, as the workload `stream` calls it."""
        return self(clip)

    def init(self, batch: int) -> list[Tensor]:
        """Empty states, one [batch, heads, size, size] per layer."""
        size, like = self.width // self.heads, self.get_parameter("blocks.0.scale1")
        return [like.new_zeros(batch, self.heads, size, size) for _ in self.blocks]

    def step(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Features [batch, width] of one more token, and the states after it."""
        x, after = x[:, None], []
        for block, before in zip(self.blocks, state, strict=True):
            assert isinstance(block, Block)
            x, left = block.stream(x, before)
            after.append(left)
        return x[:, 0], after

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Random tokens, the same every time."""
        clip = torch.randn(batch, length, self.width, generator=torch.Generator().manual_seed(0))
        return clip.to(self.get_parameter("blocks.0.scale1"))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """A clip of the network's window."""
        return (self.example_clip(batch, self.window),)


def vir_stream(*, width: PositiveInt = 384, heads: PositiveInt = 6, depth: PositiveInt = 12) -> RetentionStream:
    """ViR's blocks in evaluation mode with random weights, as a stream of tokens.

    Args:
        width: features per token, a multiple of `heads`.
        heads: retention heads.
        depth: blocks.

    Raises:
        ValueError: a width that does not divide.
    """
    if width % heads:
        raise ValueError(f"width={width} is not a multiple of heads={heads}")
    return RetentionStream(width, heads, depth).eval()


def macs_per_step(width: int, heads: int, depth: int) -> int:
    """Products of one token: linear maps, and the state written and read."""
    return depth * (12 * width**2 + 2 * width * (width // heads))


def state_bytes(width: int, heads: int, depth: int, number: int = 4) -> int:
    """Bytes of the state of one stream."""
    return depth * state_numbers(width, heads) * number
