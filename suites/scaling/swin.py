"""Windowed attention of Swin (arXiv 2103.14030) and Swin V2 (arXiv 2111.09883), small.

V2: x + LN(attention(x)), x + LN(MLP(x)); q and k of length 1, logits = cosine x exp(min(t, ln 100)) with a learned t a
head, plus 16 sigmoid of a small network over log-spaced offsets. V1: norms before the branches, scaled products, a
learned table of biases. Windows of w x w tokens, shifted by w / 2 in every second block; a map that is no larger than
the window is one window. Merging: 2 x 2 tokens side by side, linear 4 C -> 2 C without bias, norm behind it (V2) or
before (V1).

Biases: `log` is V2's; `linear` gives the network the offsets as they are; `table` is V1's, resized bicubically for
another window. Sizes of papers are timm's (`timm:swinv2_tiny_window8_256`); these are to be trained in a minute and
moved between windows.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.config.settings import Blocks, Count, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.scaling.position_bias import PositionBias, bias_macs

__all__ = ["Swin", "load_checkpoint", "swin"]

#: Largest factor that cosines are multiplied with.
LARGEST_SCALE = 100.0


class WindowAttention(nn.Module):
    """Attention inside windows [batch x windows, w^2, width]."""

    def __init__(self, width: int, heads: int, window: int, kind: str, version: int, *, cached: bool = False):
        super().__init__()
        self.heads, self.version = heads, version
        self.qkv = nn.Linear(width, 3 * width, bias=version == 1)
        self.proj = nn.Linear(width, width)
        self.bias = PositionBias(heads, window, kind, cached=cached)
        if version == 2:
            self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
            self.scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attended tokens; `mask` [windows, w^2, w^2] is added to the logits of shifted windows."""
        y = self.qkv(x)
        if self.version == 2:
            y = y + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = y.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.version == 2:
            logits = (
                F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.scale.clamp(max=math.log(LARGEST_SCALE)).exp()
            )
        else:
            logits = q * q.shape[-1] ** -0.5 @ k.mT
        logits = logits + self.bias()
        if mask is not None:
            logits = (logits.unflatten(0, (-1, mask.shape[0])) + mask[:, None]).flatten(0, 1)
        return self.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Windowed attention and an MLP of four times the width on a square map."""

    def __init__(
        self, width: int, heads: int, side: int, window: int, shifted: bool, kind: str, version: int, cached: bool
    ):
        super().__init__()
        self.version, self.shifted = version, shifted
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, min(side, window), kind, version, cached=cached)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, side, side, width] of the same shape."""
        if self.version == 1:
            x = x + self.attended(self.norm1(x))
            return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        x = x + self.norm1(self.attended(x))
        return x + self.norm2(self.fc2(F.gelu(self.fc1(x))))

    def attended(self, x: Tensor) -> Tensor:
        """The map with attention inside its windows."""
        side, w = x.shape[1], self.attention.bias.window
        if side % w:
            raise ValueError(
                f"a map of {side} x {side} tokens does not fall into windows of {w}: resize its windows with it"
            )
        shift = w // 2 if self.shifted and side > w else 0
        moved = x.roll((-shift, -shift), (1, 2)) if shift else x
        count = side // w
        windows = moved.unflatten(1, (count, w)).unflatten(3, (count, w)).transpose(2, 3).flatten(3, 4).flatten(0, 2)
        made = self.attention(windows, shift_mask(side, w, shift, x) if shift else None)
        made = made.unflatten(0, (-1, count, count)).unflatten(3, (w, w)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return made.roll((shift, shift), (1, 2)) if shift else made


def shift_mask(side: int, window: int, shift: int, like: Tensor) -> Tensor:
    """What is added to logits so that tokens from the other end of the map are not seen, [windows, w^2, w^2]."""
    places = torch.arange(side, device=like.device)
    part = (places >= side - window).long() + (places >= side - shift).long()
    region = (
        (part[:, None] * 3 + part)
        .unflatten(0, (-1, window))
        .unflatten(2, (-1, window))
        .transpose(1, 2)
        .flatten(2)
        .flatten(0, 1)
    )
    return torch.where(region[:, :, None] == region[:, None], 0.0, -100.0).to(like.dtype)


class Merge(nn.Module):
    """2 x 2 tokens as one of twice the width."""

    def __init__(self, width: int, version: int):
        super().__init__()
        self.version = version
        self.norm = nn.LayerNorm(2 * width if version == 2 else 4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of half the side."""
        joined = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        return self.norm(self.reduction(joined)) if self.version == 2 else self.reduction(self.norm(joined))


class Swin(nn.Module):
    """Patches of 4 x 4, stages of blocks, norm, mean, classifier."""

    def __init__(
        self, width: int, depths: list[int], heads: list[int], window: int, resolution: int, classes: int,
        channels: int, version: int, kind: str, cached: bool, checkpointed: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.resolution, self.classes, self.channels = resolution, classes, channels
        self.checkpointed = checkpointed
        self.patch, self.patch_norm = nn.Conv2d(channels, width, 4, 4), nn.LayerNorm(width)
        side, layers = resolution // 4, list[nn.Module]()
        for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            if stage:
                layers.append(Merge(width, version))
                width, side = 2 * width, side // 2
            layers += [Block(width, count, side, window, i % 2 == 1, kind, version, cached) for i in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)
        self.trained_at = (resolution, window)
        self.window = window

    def resize(self, resolution: int, window: int) -> None:
        """Move the same weights to another resolution and window; biases follow from their offsets.

        Raises:
            ValueError: maps that do not fall into windows.
        """
        side = resolution // 4
        for layer in self.layers:
            if isinstance(layer, Merge):
                side //= 2
                continue
            assert isinstance(layer, Block)
            if side < 1 or side % min(side, window):
                raise ValueError(
                    f"resolution={resolution}: a map of {side} x {side} tokens does not fall into windows of {window}"
                )
            layer.attention.bias.window = min(side, window)
        self.resolution, self.window = resolution, window

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        x = self.patch_norm(self.patch(images).permute(0, 2, 3, 1))
        for layer in self.layers:
            again = self.checkpointed and torch.is_grad_enabled() and isinstance(layer, Block)
            x = checkpoint(layer, x, use_reentrant=False) if again else layer(x)
        return self.head(self.norm(x).mean((1, 2)))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the network's own resolution."""
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(self.head.weight),)


def swin(
    *,
    width: PositiveInt = 32,
    depths: Blocks = [1, 1, 2, 1],  # noqa: B006  read from the source by the planner, never changed
    heads: Blocks = [1, 2, 4, 8],  # noqa: B006
    window: PositiveInt = 4,
    resolution: PositiveInt = 64,
    classes: PositiveInt = 10,
    channels: PositiveInt = 3,
    version: Literal[1, 2] = 2,
    bias: Literal["log", "linear", "table"] = "log",
    cached: bool = False,
    checkpointed: bool = False,
    trained_resolution: Count = 0,
    trained_window: Count = 0,
) -> Swin:
    """A Swin or Swin V2 in evaluation mode with random weights.

    Args:
        width: of the first stage; each further one has twice as much.
        depths: blocks of each stage.
        heads: of each stage.
        window: side of a window in tokens; a smaller map is one window.
        resolution: side of the square input, a multiple of 4 x 2^(stages - 1).
        classes: logits.
        channels: of the input.
        version: 1 or 2.
        bias: log and linear are networks over offsets, table is learned offset by offset.
        cached: biases are kept from run to run in evaluation.
        checkpointed: a step of training keeps what enters a block and runs it again in the backward pass.
        trained_resolution: at which the weights are made and trained; 0: at `resolution`.
        trained_window: likewise.

    Raises:
        ValueError: sides that do not divide.
    """
    at, of = trained_resolution or resolution, trained_window or window
    if len(depths) != len(heads):
        raise ValueError(f"depths has {len(depths)} stages and heads {len(heads)}")
    for stage, count in enumerate(heads):
        side, wide = at // 4 // 2**stage, width * 2**stage
        if at % (4 * 2 ** (len(depths) - 1)) or side % min(side, of) or wide % count:
            raise ValueError(
                f"stage {stage + 1} has a map of {side} x {side} tokens of {wide} numbers, which does not fall into "
                f"windows of {of} and {count} heads: change resolution={at}, window or heads"
            )
    model = Swin(width, depths, heads, of, at, classes, channels, version, bias, cached, checkpointed)
    model.resize(resolution, window)
    return model.eval()


def block_macs(tokens: int, width: int, window: int, heads: int, *, cached: bool = False) -> int:
    """Products of a V2 block: 12 N C^2 + 2 N w^2 C; (2w - 1)^2 (2 x 512 + 512 h) once, if the bias is not cached."""
    return 12 * tokens * width**2 + 2 * tokens * window**2 * width + (0 if cached else bias_macs(window, heads))
