"""A stack of causal Mamba blocks that also runs one sample at a time: an exact online network without a window.

Offline it is a scan over the whole sequence, online one recurrence; both begin in zero states, so they agree from the
first step on. A layer keeps D N states and the last 3 D inputs of its filter, whatever the length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.ssm.mamba import KERNEL, MambaBlock, MixerState, residual

__all__ = ["SsmStream", "load_checkpoint", "ssm_stream"]


class SsmStream(nn.Module):
    """Logits at every sample of a sequence; of a picture, read pixel by pixel, those at its end."""

    period, time_dim, output_dim, transient = 1, 1, 1, 0

    def __init__(self, width: int, depth: int, state: int, resolution: int, classes: int, form: str):
        super().__init__()
        self.resolution, self.channels, self.classes = resolution, 1, classes
        self.window = resolution**2
        self.embed = nn.Linear(1, width)
        self.blocks = nn.ModuleList(MambaBlock(width, state, form, ring=KERNEL - 1) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits [batch, classes] of pictures [batch, 1, side, side] in raster order."""
        return self._answer(self._features(pictures.flatten(1)[..., None])[:, -1])

    def offline(self, clip: Tensor) -> Tensor:
        """Logits [batch, samples, classes] of a sequence [batch, samples, 1]."""
        return self._answer(self._features(clip))

    def _features(self, clip: Tensor) -> Tensor:
        x = residual(self.embed(clip))
        for block in self.blocks:
            x = block(x)
        return x

    def _answer(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.to(self.head.weight.dtype)))

    def init(self, batch: int) -> list[MixerState]:
        """The state before the first sample: nothing seen yet."""
        return [block.mixer.init(batch) for block in self.blocks]  # type: ignore[union-attr,operator]

    def step(self, x: Tensor, state: list[MixerState]) -> tuple[Tensor, list[MixerState]]:
        """Logits [batch, classes] of one more sample [batch, 1], and the state after it."""
        token, after = residual(self.embed(x)), []
        for block, past in zip(self.blocks, state, strict=True):
            token, now = block.step(token, past)  # type: ignore[operator]
            after.append(now)
        return self._answer(token), after

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Seeded slow waves with noise, [batch, length, 1]."""
        with torch.device("cpu"):
            generator = torch.Generator().manual_seed(0)
            speed = torch.rand(batch, 1, generator=generator) * 0.5 + 0.05
            series = (torch.arange(length) * speed).sin() + 0.1 * torch.randn(batch, length, generator=generator)
        return series[..., None].to(self.head.weight)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Seeded pictures of the network's side."""
        clip = self.example_clip(batch, self.window)
        return (clip.reshape(batch, 1, self.resolution, self.resolution),)


def ssm_stream(
    *,
    width: PositiveInt = 32,
    depth: PositiveInt = 2,
    state: PositiveInt = 16,
    side: PositiveInt = 8,
    classes: PositiveInt = 10,
    scan: str = "parallel",
) -> SsmStream:
    """An online network in evaluation mode with random weights.

    Args:
        width: of a token; the scans are twice as wide.
        depth: blocks.
        state: states N of a channel.
        side: of the pictures that are read pixel by pixel.
        classes: number of logits.
        scan: form of the offline scan: sequential, parallel, chunk=c, mamba_ssm, or the control identity.

    Raises:
        UsageError: no such form of scan.
    """
    return SsmStream(width, depth, state, side, classes, scan).eval()
