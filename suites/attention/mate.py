"""LinGen's MATE block (Wang et al. 2024, arXiv 2412.09856).

Bidirectional Mamba2 over rotating scan orders beside a temporal window. The block's self-attention becomes MA(x) +
TE(x). MA puts the (t, h, w) tokens into one of four orders, another one each layer, sets review tokens (means of the
latent on a coarse grid) before them, runs two Mamba2 scans, forwards and backwards, and sums them; review tokens are
dropped and the order is undone. TE is attention in small windows that span neighbouring frames, moved by half a window
in time every second layer. Cross-attention and the feed-forward network stay.

A reconstruction: width 256, expansion 2, state 64, head 64, convolution 4; windows of 4 frames x 4 x 4; 16 review
tokens. A scan is S_t = a_t S_{t-1} + dt_t x_t B_t^T, y_t = S_t C_t + D x_t with one decay per head, then a gated norm
and the output map; in chunks the square stays inside a chunk and the state goes across.

Products per token and direction: C (2 d + 2 S + d / head) + 4 (d + 2 S) + d C for maps and convolution, with d = 2 C;
the scan 2 d S one by one, or Q S + Q d + 2 d S in chunks of Q.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.dit import Attention
from suites.common.initial import draw

#: Orders of the axes (t, h, w): row- and column-major inside a frame, and time first over rows or columns.
ORDERS = ((0, 1, 2), (0, 2, 1), (1, 2, 0), (2, 1, 0))


def ordered(x: Tensor, sizes: tuple[int, int, int], order: int) -> Tensor:
    """Tokens [batch, t h w, width] of raster order in scan order `order`."""
    axes = ORDERS[order % len(ORDERS)]
    grid = x.unflatten(1, sizes)
    return grid.permute(0, *(1 + axis for axis in axes), 4).flatten(1, 3)


def restored(x: Tensor, sizes: tuple[int, int, int], order: int) -> Tensor:
    """Tokens of scan order `order` back in raster order."""
    axes = ORDERS[order % len(ORDERS)]
    grid = x.unflatten(1, tuple(sizes[axis] for axis in axes))
    back = [axes.index(axis) for axis in range(3)]
    return grid.permute(0, *(1 + place for place in back), 4).flatten(1, 3)


def sequential_scan(x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """y_t = S_t c_t with S_t = exp(log_decay_t) S_{t-1} + x_t b_t^T, token by token.

    Shapes: x [batch, tokens, heads, head], log_decay [batch, tokens, heads], b and c [batch, tokens, state].
    """
    state, out = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], b.shape[2]), []
    for t in range(x.shape[1]):
        driven = x[:, t][..., None] @ b[:, t, None, None, :]
        state = log_decay[:, t].exp()[..., None, None] * state + driven
        out.append((state @ c[:, t, None, :, None])[..., 0])
    return torch.stack(out, dim=1)


def chunked_scan(x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, chunk: int) -> Tensor:
    """The same with the square inside chunks and the state across (Mamba2's dual form)."""
    state, out = None, []
    for start in range(0, x.shape[1], chunk):
        rows = slice(start, start + chunk)
        y, state = _scan_chunk(x[:, rows], log_decay[:, rows], b[:, rows], c[:, rows], state)
        out.append(y)
    return torch.cat(out, dim=1)


def _scan_chunk(x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """One chunk and the state [batch, heads, head, state] after it."""
    total = log_decay.cumsum(dim=1).transpose(1, 2)  # [batch, heads, tokens]
    apart = total[..., :, None] - total[..., None, :]
    seen = torch.ones_like(apart[0, 0], dtype=torch.bool).tril()
    decay = apart.masked_fill(~seen, -torch.inf).exp()
    scores = (c @ b.transpose(1, 2))[:, None] * decay
    values = x.transpose(1, 2)  # [batch, heads, tokens, head]
    y = scores @ values
    faded = values * (total[..., -1:] - total).exp()[..., None]
    own = faded.transpose(-2, -1) @ b[:, None]
    if state is not None:
        y = y + (c[:, None] @ state.transpose(-2, -1)) * total.exp()[..., None]
        own = own + total[..., -1].exp()[..., None, None] * state
    return y.transpose(1, 2), own


class Mamba2(nn.Module):
    """One direction: input map, causal depth-wise convolution, scan, gated norm, output map."""

    def __init__(self, width: int, expand: int, state: int, head: int, kernel: int, chunk: int):
        super().__init__()
        self.inner, self.state, self.heads, self.head, self.chunk = (
            expand * width,
            state,
            expand * width // head,
            head,
            chunk,
        )
        self.into = nn.Linear(width, 2 * self.inner + 2 * state + self.heads, bias=False)
        channels = self.inner + 2 * state
        self.conv = nn.Conv1d(channels, channels, kernel, padding=kernel - 1, groups=channels)
        self.log_rate = nn.Parameter(torch.linspace(0, 2.7, self.heads))
        self.step_bias = nn.Parameter(torch.full((self.heads,), -2.0))
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(self.inner, eps=1e-6)
        self.out = nn.Linear(self.inner, width, bias=False)
        draw(self.into.weight)
        draw(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape, [batch, tokens, width]."""
        gate, mixed, step = self.into(x).split([self.inner, self.inner + 2 * self.state, self.heads], dim=-1)
        mixed = F.silu(self.conv(mixed.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        values, b, c = mixed.split([self.inner, self.state, self.state], dim=-1)
        step = F.softplus(step + self.step_bias)
        values = values.unflatten(-1, (self.heads, self.head))
        decay = -step * self.log_rate.exp()
        driven = values * step[..., None]
        y = sequential_scan(driven, decay, b, c) if self.chunk == 1 else chunked_scan(driven, decay, b, c, self.chunk)
        y = (y + self.skip[:, None] * values).flatten(2)
        return self.out(self.norm(y * F.silu(gate)))


class Bidirectional(nn.Module):
    """Two scans summed: one forwards, one backwards."""

    def __init__(self, width: int, expand: int, state: int, head: int, kernel: int, chunk: int):
        super().__init__()
        self.ahead = Mamba2(width, expand, state, head, kernel, chunk)
        self.back = Mamba2(width, expand, state, head, kernel, chunk)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return self.ahead(x) + self.back(x.flip(1)).flip(1)


class TemporalWindow(nn.Module):
    """Attention in windows of (frames, rows, columns), moved by half a window in time in odd layers."""

    def __init__(self, width: int, heads: int, window: tuple[int, int, int], shifted: bool):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, window[0] // 2 if shifted else 0
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        draw(self.qkv.weight)
        draw(self.proj.weight)

    def forward(self, x: Tensor, sizes: tuple[int, int, int]) -> Tensor:
        """Features of the same shape; a last window that is not full attends to what is there."""
        padding = [
            -(size + shift) % window for size, window, shift in zip(sizes, self.window, (self.shift, 0, 0), strict=True)
        ]
        edges = (0, 0, 0, padding[2], 0, padding[1], self.shift, padding[0])
        there = F.pad(x.new_ones(1, *sizes, 1), edges)
        windows = self._windows(F.pad(x.unflatten(1, sizes), edges))
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None
        if any(padding) or self.shift:
            seen = self._windows(there)[..., 0] > 0
            mask = seen.repeat(x.shape[0], 1)[:, None, None, :] | ~seen.any(-1).repeat(x.shape[0])[:, None, None, None]
        out = self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        whole = self._grid(out, x.shape[0], tuple(there.shape[1:4]))  # type: ignore[arg-type]
        t, h, w = sizes
        return whole[:, self.shift : self.shift + t, :h, :w].flatten(1, 3)

    def _windows(self, grid: Tensor) -> Tensor:
        """[batch x windows, tokens of a window, width]."""
        a, b, c = self.window
        parts = grid.unflatten(3, (-1, c)).unflatten(2, (-1, b)).unflatten(1, (-1, a))
        return parts.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(0, 3)

    def _grid(self, windows: Tensor, batch: int, sizes: tuple[int, int, int]) -> Tensor:
        counts = [size // window for size, window in zip(sizes, self.window, strict=True)]
        parts = windows.reshape(batch, *counts, *self.window, -1)
        return parts.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def review_tokens(x: Tensor, sizes: tuple[int, int, int], count: int) -> Tensor:
    """About `count` means of the whole latent on a coarse grid, [batch, count, width]; none for 0."""
    if count == 0:
        return x[:, :0]
    grid = x.unflatten(1, sizes).permute(0, 4, 1, 2, 3)
    side = max(1, round((count / 4) ** 0.5))
    coarse = (min(sizes[0], max(1, count // side**2)), min(sizes[1], side), min(sizes[2], side))
    return F.adaptive_avg_pool3d(grid, coarse).flatten(2).transpose(1, 2)


class MateBlock(nn.Module):
    """Self-attention (MATE, or full attention for the plain row), cross-attention to text, feed-forward network."""

    def __init__(self, width: int, layer: int, chunk: int, review: int, mate: bool, text: int):
        super().__init__()
        self.order, self.review = layer, review
        heads = max(1, width // 64)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.scan = Bidirectional(width, 2, 64, 64, 4, chunk) if mate else None
        self.window = TemporalWindow(width, heads, (4, 4, 4), shifted=layer % 2 == 1) if mate else None
        self.full = None if mate else Attention(width, heads)
        self.cross = nn.MultiheadAttention(width, heads, kdim=text, vdim=text, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, text: Tensor, sizes: tuple[int, int, int]) -> Tensor:
        """Features, [batch, t h w, width]."""
        h = self.norm1(x)
        x = x + (self.mixed(h, sizes) if self.full is None else self.full(h))
        x = x + self.cross(self.norm2(x), text, text, need_weights=False)[0]
        return x + self.fc2(F.gelu(self.fc1(self.norm3(x))))

    def mixed(self, x: Tensor, sizes: tuple[int, int, int]) -> Tensor:
        """MA + TE."""
        assert self.scan is not None and self.window is not None
        review = review_tokens(x, sizes, self.review)
        scanned = self.scan(torch.cat([review, ordered(x, sizes, self.order)], dim=1))[:, review.shape[1] :]
        return restored(scanned, sizes, self.order) + self.window(x, sizes)


class MateDenoiser(nn.Module):
    """Blocks over a video latent; one forward is one call of a denoiser without its time embedding."""

    def __init__(
        self,
        frames: int,
        side: int,
        width: int,
        layers: int,
        chunk: int,
        review: int,
        mate: bool,
        text: int,
        channels: int,
    ):
        super().__init__()
        self.sizes, self.text, self.channels = (frames, side, side), text, channels
        self.embed, self.out = nn.Linear(channels, width), nn.Linear(width, channels)
        self.blocks = nn.ModuleList(MateBlock(width, i, chunk, review, mate, text) for i in range(layers))
        self.norm = nn.LayerNorm(width)

    def example_inputs(self, batch: int) -> tuple[Tensor, Tensor]:
        """A random latent [batch, channels, frames, side, side] and text features [batch, 16, text]."""
        like = self.embed.weight
        latent = torch.randn(batch, self.channels, *self.sizes).to(like)
        return latent, torch.randn(batch, 16, self.text).to(like)

    def forward(self, latent: Tensor, text: Tensor) -> Tensor:
        """A latent of the same shape."""
        sizes = (latent.shape[2], latent.shape[3], latent.shape[4])
        x = self.embed(latent.flatten(2).transpose(1, 2))
        for block in self.blocks:
            x = block(x, text, sizes)
        return self.out(self.norm(x)).transpose(1, 2).unflatten(2, sizes)


def mate_denoiser(
    *,
    frames: PositiveInt = 8,
    side: PositiveInt = 16,
    width: PositiveInt = 256,
    layers: PositiveInt = 1,
    chunk: PositiveInt = 64,
    review: Count = 16,
    attention: Literal["mate", "full"] = "mate",
    text: PositiveInt = 64,
    channels: PositiveInt = 4,
) -> MateDenoiser:
    """One or more blocks over a synthetic video latent, in evaluation mode with random weights.

    Args:
        frames: of the latent.
        side: of a frame.
        width: features per token, a multiple of 64.
        layers: blocks; the scan order turns with them.
        chunk: tokens of a chunk of the scan; 1 goes token by token.
        review: review tokens before the sequence, about.
        attention: mate, or the full attention of the plain block.
        text: features of the text that is cross-attended.
        channels: of the latent.

    Raises:
        ValueError: a width that does not part into heads of 64.
    """
    if width % 64:
        raise ValueError(f"width={width} does not part into heads of 64")
    return MateDenoiser(frames, side, width, layers, chunk, review, attention == "mate", text, channels).eval()


def mamba_macs_per_token(width: int, state: int = 64, head: int = 64, kernel: int = 4, chunk: int = 1) -> int:
    """Products of one token in one direction: maps and convolution, and the scan token by token or in whole chunks."""
    inner = 2 * width
    linear = width * (2 * inner + 2 * state + inner // head) + kernel * (inner + 2 * state) + inner * width
    scan = 2 * inner * state if chunk == 1 else chunk * state + chunk * inner + 2 * inner * state
    return linear + scan
