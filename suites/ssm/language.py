"""A language model of plain Mamba blocks: what it keeps of a text is as large after one token as after a million.

Source: Gu and Dao 2023, Mamba, arXiv:2312.00752, sections 3.4 and 4.2.1: embedding, blocks, RMSNorm, a linear head. A
prompt goes through the scan in one of its parallel forms and leaves every block's states and the last inputs of its
filter; each further token is one step of the recurrence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.checkpoint import load_checkpoint
from suites.common.decoder import Generator
from suites.common.decoder_cache import tensors_of
from suites.common.initial import draw
from suites.common.scan_forms import parse_form
from suites.ssm.mamba import KERNEL, MambaBlock, MixerState, residual

__all__ = ["ScanLm", "load_checkpoint", "scan_lm"]


@dataclass(frozen=True)
class ScanCache:
    """What every block keeps: states [1, batch, D, N] and the last three inputs of its filter, [batch, D, 3]."""

    kept: tuple[MixerState, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all of it, whatever the length of the text."""
        return sum(t.numel() * t.element_size() for t in tensors_of(self.kept))


class ScanLm(Generator):
    """Embedding, Mamba blocks, a norm, a head over the vocabulary."""

    def __init__(self, width: int, layers: int, state: int, vocabulary: int, form: str, *, tied: bool):
        super().__init__()
        self.vocabulary = vocabulary
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(MambaBlock(width, state, form, ring=KERNEL - 1) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, vocabulary, bias=False)
        draw(self.embed.weight)
        draw(self.head.weight)
        with torch.no_grad():  # so that the sum over blocks does not grow with their number
            for block in self._mamba():
                block.mixer.leave.weight.mul_(layers**-0.5)
        if tied:
            self.head.weight = self.embed.weight

    def _mamba(self) -> list[Any]:
        return list(self.blocks)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position, [batch, tokens, vocabulary]."""
        x = residual(self.embed(ids))
        for block in self._mamba():
            x = block(x)
        return self._answer(x)

    def _answer(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.to(self.head.weight.dtype)))

    def prefill(self, ids: Tensor) -> tuple[Tensor, ScanCache]:
        """Logits of the last position [batch, vocabulary] and the cache; the head runs on that position alone."""
        x, kept = residual(self.embed(ids)), []
        for block in self._mamba():
            x, left = block.read(x)
            kept.append(left)
        return self._answer(x[:, -1]), ScanCache(tuple(kept))

    def decode(self, ids: Tensor, cache: ScanCache) -> tuple[Tensor, ScanCache]:
        """Logits of the next position [batch, vocabulary] after one more token [batch, 1], and the cache."""
        token, kept = residual(self.embed(ids[:, 0])), []
        for block, past in zip(self._mamba(), cache.kept, strict=True):
            token, left = block.step(token, past)
            kept.append(left)
        return self._answer(token), ScanCache(tuple(kept))


def scan_lm(
    *,
    width: PositiveInt = 768,
    layers: PositiveInt = 24,
    state: PositiveInt = 16,
    vocabulary: PositiveInt = 50280,
    tied: bool = True,
    scan: str = "parallel",
) -> ScanLm:
    """A language model of scans in evaluation mode with random weights; the defaults are Mamba-130M.

    Args:
        width: of a token; the scans are twice as wide.
        layers: blocks.
        state: states N of a channel.
        vocabulary: number of token ids.
        tied: whether embedding and head are one table.
        scan: form in which a prompt is read: sequential, parallel, chunk=c, or the control identity.

    Raises:
        UsageError: no such form of scan, or the fused kernel, which leaves no state to write from.
    """
    if parse_form(scan)[0] == "mamba_ssm":
        raise UsageError("scan_lm: scan='mamba_ssm' leaves no state to write from: take scan='parallel' or 'chunk=64'")
    return ScanLm(width, layers, state, vocabulary, scan, tied=tied).eval()
