"""A plain vision state-space model: selective scans over the patches in both directions, in plain torch.

The block is that of Mamba (Gu and Dao 2023) as vision models use it (Zhu et al. 2024, "Vision Mamba"): one input
projection, per direction a depthwise convolution, input-dependent step, B and C, and a gate. It is a plain network of
that kind, not a copy of a published one. The tokens travel as in `suites.common.vit`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.vit import LAYER_NORM_EPS, PatchEmbed, Tokens

__all__ = ["ScanTokens", "VisionScan", "load_checkpoint", "selective_scan", "vision_scan"]

KERNEL = 4


@dataclass(frozen=True)
class ScanTokens(Tokens):
    """Patch tokens in raster order; `position` [batch, tokens] is where each stood in the full grid."""

    position: Tensor | None = None

    def gaps(self) -> Tensor | None:
        """Steps from the token before (1 where none is missing), [batch, tokens]; None while all patches are there."""
        if self.position is None:
            return None
        return torch.diff(self.position, dim=1, prepend=self.position[:, :1] - 1)


def selective_scan(decay: Tensor, drive: Tensor) -> Tensor:
    """All states h_t = decay_t h_(t-1) + drive_t, h_(-1) = 0, over dimension 1.

    Pairs of neighbours are combined and the scan of half the length is done the same way: work in proportion to the
    length, depth in proportion to its logarithm, no loop over tokens (Blelloch 1990, "Prefix Sums and Their
    Applications").
    """
    length = drive.shape[1]
    if length == 1:
        return drive
    paired = length // 2 * 2
    even_decay, odd_decay = decay[:, 0:paired:2], decay[:, 1::2]
    odd_drive = torch.addcmul(drive[:, 1::2], odd_decay, drive[:, 0:paired:2])
    odd = selective_scan(odd_decay * even_decay, odd_drive)
    later = torch.addcmul(drive[:, 2::2], decay[:, 2::2], odd if length % 2 else odd[:, :-1])
    even = torch.cat([drive[:, :1], later], dim=1)
    states = torch.stack([even[:, : length // 2], odd], dim=2).flatten(1, 2)
    return torch.cat([states, even[:, -1:]], dim=1) if length % 2 else states


class Direction(nn.Module):
    """One selective scan with its own convolution and input-dependent step, B and C."""

    def __init__(self, inner: int, state: int, rank: int):
        super().__init__()
        self.state, self.rank = state, rank
        self.conv = nn.Conv1d(inner, inner, KERNEL, groups=inner, padding=KERNEL - 1)
        self.select = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, inner)
        self.log_a = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))

    def forward(self, x: Tensor, gaps: Tensor | None) -> Tensor:
        """The scan's output for x [batch, tokens, inner]; with gaps the state decays once per missing token as well."""
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        low_step, b, c = self.select(x).split([self.rank, self.state, self.state], dim=-1)
        step = F.softplus(self.step(low_step))
        elapsed = step if gaps is None else step * gaps[..., None].to(step.dtype)
        decay = torch.exp(elapsed[..., None] * -self.log_a.exp())
        states = selective_scan(decay, (step * x)[..., None] * b[:, :, None, :])
        return (states @ c[..., None])[..., 0] + self.skip * x


class ScanBlock(nn.Module):
    """Residual block: norm, projection, a scan in either direction, gate, projection."""

    def __init__(self, width: int, inner: int, state: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        rank = max(1, width // 16)
        self.forth, self.back = Direction(inner, state, rank), Direction(inner, state, rank)
        self.leave = nn.Linear(inner, width, bias=False)
        self.prune: nn.Module | None = None
        self.align = "hold"

    def forward(self, tokens: ScanTokens) -> ScanTokens:
        """The tokens after the block, fewer if it prunes."""
        gaps = tokens.gaps() if self.align == "decay" else None
        x, gate = self.enter(self.norm(tokens.x)).chunk(2, dim=-1)
        y = self.forth(x, gaps) + self.back(x.flip(1), None if gaps is None else _reversed_gaps(gaps)).flip(1)
        tokens = replace(tokens, x=tokens.x + self.leave(y * F.silu(gate)))
        return tokens if self.prune is None else self.prune(tokens, y)


def _reversed_gaps(gaps: Tensor) -> Tensor:
    """Gaps seen from the other end: the first token from there has nothing before it."""
    return torch.cat([torch.ones_like(gaps[:, :1]), gaps.flip(1)[:, :-1]], dim=1)


class VisionScan(nn.Module):
    """Patches, positions, scan blocks, mean, head; `token_counts` are the tokens that leave each block."""

    def __init__(self, width: int, depth: int, patch: int, resolution: int, classes: int, expand: int, state: int):
        super().__init__()
        self.width, self.depth, self.resolution, self.classes = width, depth, resolution, classes
        self.grid = resolution // patch
        self.patch_embed = PatchEmbed(width, patch, 3)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2, width))
        self.blocks = nn.ModuleList(ScanBlock(width, expand * width, state) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(width, classes)
        self.protected = 0
        self.token_counts: list[int] = []
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes], of images [batch, 3, resolution, resolution]."""
        tokens = ScanTokens(self.patch_embed(images) + self.pos_embed, 0)
        counts = []
        for block in self.blocks:
            tokens = block(tokens)
            counts.append(tokens.count)
        self.token_counts = counts
        return self.head(self.norm(tokens.x).mean(dim=1))


def vision_scan(
    *,
    width: PositiveInt = 192,
    depth: PositiveInt = 24,
    patch: PositiveInt = 16,
    resolution: PositiveInt = 224,
    classes: PositiveInt = 1000,
    expand: PositiveInt = 2,
    state: PositiveInt = 16,
) -> VisionScan:
    """A vision state-space model in evaluation mode with random weights.

    Args:
        width: features per token.
        depth: number of blocks.
        patch: side of a patch in pixels.
        resolution: side of the input in pixels.
        classes: number of logits.
        expand: inner width over width.
        state: states per inner channel.

    Raises:
        ValueError: patch does not divide resolution.
    """
    if resolution % patch:
        raise ValueError(f"resolution={resolution} is not a multiple of patch={patch}: choose one that is")
    return VisionScan(width, depth, patch, resolution, classes, expand, state).eval()
