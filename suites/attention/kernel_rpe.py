"""Kernelised attention with relative positions through FFT (Luo et al. 2021, arXiv 2106.12566).

Wanted: z_i = sum_j exp(q_i . k_j + b_{j-i}) v_j over the same without v. With positive features f, exp(q . k) ~ f(q) .
f(k), and c_t = exp(b_t), numerator and denominator are f(q_i) times sum_j c_{j-i} f(k_j) [v_j ; 1]: a Toeplitz matrix
times a table of N x (m d_v + m) numbers, a circular convolution of length 2 N per column. Features f(x) = exp(W x -
|x|^2 / 2) / sqrt(m) with Gaussian rows, orthogonal by default. Queries and keys have length one first, which is what
lets it train from scratch.

Form softmax is what is approximated, with the same unit vectors and the same bias: the other side of the comparison.

Reconstructed: the temperature (a setting that multiplies the unit vectors' product; 1 by default).
Products: features, and f(q) with both brackets. The FFTs are vector work of 5 L log2 L each in the paper's account; the
instrument's `macs` holds transforms as well, and `fourier_operations` says how much of it they are.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.attention.operator import AttentionOperator


def orthogonal_gaussian(rows: int, size: int, generator: torch.Generator) -> Tensor:
    """`rows` Gaussian vectors, orthogonal within blocks of `size`, of Gaussian lengths, [rows, size]."""
    blocks = []
    for _ in range(-(-rows // size)):
        q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.double))
        blocks.append((q * r.diagonal().sign()).t())  # without the signs Q is not uniform, and the features are biased
    lengths = torch.randn(rows, size, generator=generator, dtype=torch.double).norm(dim=1, keepdim=True)
    return (torch.cat(blocks)[:rows] * lengths).float()


def features(x: Tensor, w: Tensor) -> Tensor:
    """exp(W x - |x|^2 / 2) / sqrt(m), [..., m]; w is [heads, m, size]."""
    projected = x @ w.transpose(-2, -1)
    return torch.exp(projected - x.square().sum(dim=-1, keepdim=True) / 2) * w.shape[-2] ** -0.5


def kernel_attention(
    *,
    length: PositiveInt = 512,
    heads: PositiveInt = 8,
    width: PositiveInt = 64,
    features: PositiveInt = 32,
    relative: bool = True,
    causal: bool = False,
    grid: bool = False,
    temperature: Positive = 1.0,
    orthogonal: bool = True,
    seed: Count = 0,
    form: Literal["fft", "direct", "softmax"] = "fft",
) -> KernelAttention:
    """The operator.

    Args:
        length: N; with `grid` a square number.
        heads: attention heads.
        width: numbers per head.
        features: m.
        relative: whether there is a relative bias, one number per offset and head, drawn small here and learned in a
            network.
        causal: whether later positions weigh nothing; not with `grid`.
        grid: two axes: offsets by row and column, an FFT over both.
        temperature: factor on the product of unit vectors.
        orthogonal: orthogonal feature vectors; else independent ones.
        seed: of feature vectors and bias.
        form: fft; direct is the N^2 sum of the same features; softmax the exponentials themselves, by the fused kernel.

    Raises:
        ValueError: a grid that is no square, or a causal one.
    """
    side = math.isqrt(length)
    if grid and (side * side != length or causal):
        raise ValueError(f"a grid of {length} tokens is no square, or causal: take a square number and causal=False")
    return KernelAttention(
        heads, length, width, features, relative, causal, grid, temperature, orthogonal, seed, form
    ).eval()


class KernelAttention(AttentionOperator):
    """Random-feature attention with a Toeplitz bias."""

    tolerance = 1e-3
    w: Tensor

    def __init__(
        self,
        heads: int,
        tokens: int,
        size: int,
        m: int,
        relative: bool,
        causal: bool,
        grid: bool,
        temperature: float,
        orthogonal: bool,
        seed: int,
        form: str,
    ):
        super().__init__(heads, tokens, size)
        self.m, self.causal, self.temperature, self.form = m, causal, temperature, form
        self.axes = (math.isqrt(tokens),) * 2 if grid else (tokens,)
        generator = torch.Generator().manual_seed(seed)
        with torch.device("cpu"):
            drawn = [orthogonal_gaussian(m, size, generator) for _ in range(heads)] if orthogonal else None
            w = torch.stack(drawn) if drawn else torch.randn(heads, m, size, generator=generator)
            offsets = tuple(2 * n - 1 for n in self.axes)
            bias = 0.5 * torch.randn(heads, *offsets, generator=generator)
        self.register_buffer("w", w)
        self.bias = nn.Parameter(bias) if relative else None

    def prepared(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Features of unit queries and keys."""
        root = math.sqrt(self.temperature)
        q, k = (F.normalize(x, dim=-1) * root for x in (q, k))
        return features(q, self.w), features(k, self.w)

    def weights(self) -> Tensor | None:
        """C per offset, [heads, 2 n - 1 per axis], zero after the query where causal; None where all are one."""
        if self.bias is None and not self.causal:
            return None
        c = self.w.new_ones(self.heads, 2 * self.tokens - 1) if self.bias is None else self.bias.exp()
        if self.causal:
            c = c.masked_fill(torch.arange(c.shape[-1], device=c.device) > self.tokens - 1, 0.0)
        return c

    def declares(self, q: Tensor, k: Tensor, v: Tensor) -> dict[str, float]:
        """Operations of the Fourier transforms, 2.5 L log2 L each: every column there and back, and c of every head."""
        if self.form != "fft" or (self.bias is None and not self.causal):
            return {"fourier_operations": 0.0}
        length, heads = math.prod(2 * n for n in self.axes), q.shape[1]
        transforms = 2 * len(q) * forward_ffts(heads, v.shape[-1], self.m) + heads
        return {"fourier_operations": transforms * 2.5 * length * math.log2(length)}

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What is attended."""
        if self.form == "softmax":
            return self._softmax(q, k, v)
        fq, fk = self.prepared(q, k)
        c = self.weights()
        if self.form == "direct":
            return self._direct(fq, fk, v, c)
        if c is None:
            return self._plain(fq, fk, v)
        outer = (fk[..., :, None] * v[..., None, :]).flatten(3)  # [batch, heads, tokens, m size]
        summed = toeplitz(c, torch.cat([outer, fk], dim=-1), self.axes)
        top, bottom = summed.split([self.m * self.size, self.m], dim=-1)
        top = (fq[..., None, :] @ top.unflatten(-1, (self.m, self.size)))[..., 0, :]
        return top / (fq[..., None, :] @ bottom[..., None])[..., 0]

    def _softmax(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """exp(q . k + b) over its sum, of unit vectors, by the fused kernel."""
        root = math.sqrt(self.temperature)
        q, k = (F.normalize(x, dim=-1) * root for x in (q, k))
        if self.bias is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=1.0)
        bias = toeplitz_square(self.bias, self.axes).to(q.dtype)
        if self.causal:
            bias = bias.masked_fill(torch.ones_like(bias[0], dtype=torch.bool).triu(1), -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same, pair by pair."""
        q, k = (F.normalize(x, dim=-1) for x in (q, k))
        weights = torch.exp(self.temperature * (q @ k.transpose(-2, -1)))
        return self._averaged(weights, v, self.weights())

    def _plain(self, fq: Tensor, fk: Tensor, v: Tensor) -> Tensor:
        return fq @ (fk.transpose(-2, -1) @ v) / (fq @ fk.sum(dim=2, keepdim=True).transpose(-2, -1))

    def _direct(self, fq: Tensor, fk: Tensor, v: Tensor, c: Tensor | None) -> Tensor:
        return self._averaged(fq @ fk.transpose(-2, -1), v, c)

    def _averaged(self, weights: Tensor, v: Tensor, c: Tensor | None) -> Tensor:
        """Values by the weights of pairs, each times that of its offset, over their sum."""
        if c is not None:
            weights = weights * c.flatten(1)[:, offsets_between(self.axes).to(c.device)]
        return weights @ v / weights.sum(dim=-1, keepdim=True)

    def required_bytes(self, q: Tensor, k: Tensor, v: Tensor) -> int:
        """Bytes of the columns, their spectrum of double length and their product, or of the direct sum's square."""
        if self.form in ("direct", "softmax"):
            return 2 * q.shape[:2].numel() * self.tokens**2 * q.element_size()
        columns = q.shape[:2].numel() * self.tokens * self.m * (self.size + 1)
        return columns * q.element_size() * (2 + 3 * 2 ** len(self.axes))

    def reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The N^2 sum over the same features, or over exponentials in the form softmax."""
        if self.form == "softmax":
            return self._written_out(q, k, v)
        return self._direct(*self.prepared(q, k), v, self.weights())


def offsets_between(axes: tuple[int, ...]) -> Tensor:
    """Place of the offset j - i in the flattened table of offsets, [tokens, tokens]."""
    index = torch.zeros(1, 1, dtype=torch.long)
    for n in axes:
        place = torch.arange(n)
        apart = place[None, :] - place[:, None] + n - 1
        index = (index[:, None, :, None] * (2 * n - 1) + apart[None, :, None, :]).flatten(2).flatten(0, 1)
    return index


def toeplitz_square(table: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The table [heads, 2 n - 1 per axis] as a square [heads, tokens, tokens] that holds the offset j - i at i, j."""
    for axis, n in enumerate(axes):
        table = table.unfold(1 + axis, n, 1)
    windows = table.flip([1 + axis for axis in range(len(axes))])  # a later query sees a window further back
    return windows.flatten(1, len(axes)).flatten(2)


def toeplitz(c: Tensor, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """sum_j c_{j-i} x_j for every column of x [batch, heads, tokens, columns], by FFTs of length 2 n per axis."""
    lengths, dims = [2 * n for n in axes], tuple(range(-len(axes) - 1, -1))
    exact = torch.promote_types(x.dtype, torch.float32)
    kernel = c.to(exact)
    for axis, n in enumerate(axes):  # offset t stands at -t mod 2 n, so that the convolution sums c_{j-i} x_j
        kernel = kernel.flip(1 + axis)
        first, last = kernel.narrow(1 + axis, n - 1, n), kernel.narrow(1 + axis, 0, n - 1)
        gap = torch.zeros_like(first.narrow(1 + axis, 0, 1))
        kernel = torch.cat([first, gap, last], dim=1 + axis)
    spectrum = torch.fft.rfftn(kernel, dim=tuple(range(1, len(axes) + 1)))
    images = x.to(exact).unflatten(2, axes)
    product = torch.fft.rfftn(images, s=lengths, dim=dims) * spectrum[None, ..., None]
    full = torch.fft.irfftn(product, s=lengths, dim=dims)
    for axis, n in enumerate(axes):
        full = full.narrow(2 + axis, 0, n)
    return full.flatten(2, 1 + len(axes)).to(x.dtype)


def macs(tokens: int, heads: int, size: int, m: int, relative: bool = True) -> int:
    """Products of the operator: features of queries and keys; then f(q) in both forms, or the plain linear one.

    A causal one without a bias has the weights of a bias, one or zero, and costs as much.
    """
    projected = 2 * tokens * m * size * heads
    if relative:
        return projected + tokens * (m * size + m) * heads
    return projected + 2 * tokens * m * size * heads + tokens * m * heads


def forward_ffts(heads: int, size: int, m: int) -> int:
    """Real FFTs of length 2 N that the columns take (and as many back)."""
    return heads * (m * size + m)


def fft_operations(length: int, count: int) -> float:
    """Vector operations of `count` real sequences: 5 L log2 L each."""
    return count * 5 * length * math.log2(length)
