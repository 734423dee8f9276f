"""Causal convolutions as long as the sequence, by every way that there is (FlashFFTConv, arXiv 2311.05908).

y[b, h, t] = sum over s <= t of k[h, s] u[b, h, t - s], then D[h] u where there is a skip; gated: y = g_out conv(k, g_in
u). It is the first L values of a circular convolution of size n >= L + K - 1. Forms:

fft            torch's transforms of real numbers, in fp32 or better
fft_half       the same in the dtype of the row: fp16 on a GPU, which a CPU has not; in a row of fp32 it is fft
monarch        transforms as dense products (`suites.ops.monarch`), the kernel's in fp32
monarch_fused  the paper's package: CUDA, fp16 or bf16, gates inside the kernel
direct         a depthwise convolution of L taps
partial        the kernel's first `taps` alone, by transforms of `taps` + `block` points that slide over the input
sparse         monarch with a spectrum of the kernel of which `kept` rows of each axis are left; whole sub-products fall
away

`packed` makes monarch's transforms of half as many complex numbers (`suites.ops.packed`), as the paper does for 512 and
2048.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, PositiveInt
from suites.common.operators import Operator
from suites.ops import monarch
from suites.ops.long_conv_costs import costs_of
from suites.ops.packed import Packed

LONGEST_DEFINITION = 1024


def long_conv(
    *,
    form: Literal["fft", "fft_half", "monarch", "monarch_fused", "direct", "partial", "sparse"] = "fft",
    length: PositiveInt = 1024,
    width: PositiveInt = 64,
    gated: bool = False,
    skip: bool = False,
    factors: Blocks | None = None,
    kept: Blocks | None = None,
    taps: Count = 0,
    block: Count = 0,
    packed: bool = False,
    cached: bool = False,
    backward: bool = False,
) -> LongConv:
    """A causal convolution of `width` channels, one kernel each, as an operator on [batch, width, length].

    Args:
        form: how it is computed.
        length: positions, L; the kernel has as many taps unless `taps` says fewer.
        width: channels, H.
        gated: multiplies the input and the output with further inputs.
        skip: adds the input times one learned number a channel.
        factors: of the transform in the forms monarch and sparse, in any order; null takes the paper's.
        kept: rows of each axis of the spectrum that the form sparse keeps; null takes all, which removes nothing.
        taps: of the kernel, 0 for L; the form partial needs no longer transforms for longer inputs.
        block: outputs that the form partial makes at once, 0 for as many as taps.
        packed: the form monarch transforms two real numbers as one complex one; its factors are those of half the size.
        cached: the kernel's spectrum is kept from call to call, as at inference.
        backward: a run also takes the gradients.

    Raises:
        ValueError: factors that do not reach over input and kernel, rows that the spectrum has not, a setting of
            another form.
        NotImplementedError: a form that this machine cannot run.
    """
    if cached and (backward or form in ("direct", "partial", "monarch_fused")):
        raise ValueError(f"cached=True keeps a spectrum: form={form} with backward={backward} has none to keep")
    if (kept is not None) and form != "sparse":
        raise ValueError(f"kept is a setting of form='sparse', not of form={form!r}")
    if factors is not None and form not in ("monarch", "sparse"):
        raise ValueError(f"factors are a setting of the forms monarch and sparse, not of {form}")
    if packed and form != "monarch":
        raise ValueError(f"packed is a setting of form='monarch', not of form={form!r}")
    if block and form != "partial":
        raise ValueError(f"block is a setting of form='partial', not of form={form!r}")
    if taps > length:
        raise ValueError(
            f"taps={taps} is more than length={length}: a causal kernel reaches back to the first position"
        )
    return LongConv(
        form, length, width, gated, skip, taps or length, block, factors, kept, packed, cached, backward
    ).eval()


class LongConv(Operator):
    """The convolution, its kernel a parameter [width, taps]."""

    def __init__(
        self, form: str, length: int, width: int, gated: bool, skip: bool, taps: int, block: int,
        factors: Sequence[int] | None, kept: Sequence[int] | None, packed: bool, cached: bool, backward: bool,
    ):  # fmt: skip
        super().__init__(form=form, backward=backward)
        self.length, self.width, self.gated, self.taps, self.cached = length, width, gated, taps, cached
        self.packed = packed
        self.weight = nn.Parameter(torch.randn(width, taps) * taps**-0.5)
        self.skip = nn.Parameter(torch.randn(width)) if skip else None
        self.block = block or taps
        self.size = self.taps + self.block if form == "partial" else 2 * length
        self.factors = self._factors(factors)
        self.kept = tuple(kept) if kept is not None else self.factors
        if len(self.kept) != len(self.factors) or any(k > f for k, f in zip(self.kept, self.factors, strict=False)):
            raise ValueError(f"kept={list(self.kept)} does not fit the factors {list(self.factors)} of the transform")
        self._made: tuple[torch.device, torch.dtype, monarch.Transform] | None = None
        self._spectrum: tuple[int, Tensor] | None = None
        self._fused: dict[torch.dtype, nn.Module] = {}
        if form == "monarch_fused":
            check_package()

    def _factors(self, factors: Sequence[int] | None) -> tuple[int, ...]:
        if factors is None:
            return monarch.factors_for(self.size // 2 if self.packed else self.size)
        self.size = math.prod(factors) * (2 if self.packed else 1)
        if self.size < self.length + self.taps - 1:
            raise ValueError(
                f"factors={list(factors)} make a transform of {self.size} points; {self.length} inputs and {self.taps} "
                f"taps need {self.length + self.taps - 1}, else the end wraps into the beginning"
            )
        return tuple(factors)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random inputs [batch, width, length], with both gates behind them where there are any."""
        shape = (batch, self.width, self.length)
        return tuple(torch.randn(shape).to(self.like) for _ in range(3 if self.gated else 1))

    def check_args(self, seed: int) -> tuple[Tensor, ...]:
        """One sample of at most 1024 positions: the transform's size stays, so that a wrap at its end would show."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, self.width, min(self.length, LONGEST_DEFINITION))
        device = self.like.device if not self.like.is_meta else "cpu"
        return tuple(
            torch.randn(shape, generator=generator).to(self.like.dtype).to(device)
            for _ in range(3 if self.gated else 1)
        )

    def function(self, u: Tensor, gate_in: Tensor | None = None, gate_out: Tensor | None = None) -> Tensor:
        """The convolved input, [batch, width, positions]."""
        if self.form == "monarch_fused" and gate_in is not None and gate_out is not None and self.skip is None:
            return self.package(u)(u, self.weight.float(), gate_in, gate_out)
        x = u if gate_in is None else gate_in * u
        y = getattr(self, f"_{self.form.removesuffix('_half')}")(x)
        y = y if self.skip is None else y + self.skip[:, None] * x
        return y if gate_out is None else gate_out * y

    def _fft(self, x: Tensor) -> Tensor:
        exact = x.dtype if self.form == "fft_half" else torch.promote_types(x.dtype, torch.float32)
        if exact is torch.bfloat16 or (exact is torch.float16 and x.device.type == "cpu"):
            raise NotImplementedError(
                f"torch.fft has no {exact} on {x.device.type}: take form='fft', whose transforms are in fp32, or fp16 "
                "with device=cuda"
            )
        made = torch.fft.irfft(torch.fft.rfft(x.to(exact), n=self.size) * self._kernel_spectrum(exact), n=self.size)
        return made[..., : x.shape[-1]].to(x.dtype)

    def _kernel_spectrum(self, dtype: torch.dtype) -> Tensor:
        return self._kept_spectrum(lambda weight: torch.fft.rfft(weight.to(dtype), n=self.size))

    def _kept_spectrum(self, make: Callable[[Tensor], Tensor]) -> Tensor:
        """The kernel's spectrum: made in every call, or where it is cached once for each state of the kernel."""
        if not self.cached:
            return make(self.weight)
        state = hash((self.weight._version, self.weight.data_ptr(), self.weight.dtype, self.weight.device))
        if self._spectrum is None or self._spectrum[0] != state:
            self._spectrum = (state, make(self.weight.detach()))
        return self._spectrum[1]

    def _direct(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (self.taps - 1, 0))
        return F.conv1d(padded, self.weight.flip(-1)[:, None], groups=self.width)

    def _monarch(self, x: Tensor) -> Tensor:
        transform = self.transform(x)
        if self.packed:
            packed = Packed(transform, x)
            spectrum = packed.forward(F.pad(x, (0, self.size - x.shape[-1])))
            made = packed.inverse(monarch.products(spectrum, self._monarch_spectrum(x), -2))
            return made[..., : x.shape[-1]]
        spectrum = transform.forward(pairs(x, self.size))
        kernel = self._monarch_spectrum(x)
        y = transform.inverse(monarch.products(spectrum, kernel, -1 - len(self.factors)))
        return y.select(-2, 0)[..., : x.shape[-1]]

    _sparse = _monarch

    def _monarch_spectrum(self, x: Tensor) -> Tensor:
        """The kernel's spectrum, not unitary, made in fp32 or better, in the dtype of the input."""
        exact = torch.promote_types(x.dtype, torch.float32)
        transform = self.transform(x) if exact == x.dtype else self._new_transform(x.to(exact))

        def made(kernel: Tensor) -> Tensor:
            if self.packed:
                whole = F.pad(kernel.to(exact), (0, self.size - kernel.shape[-1]))
                return (Packed(transform, whole).forward(whole) * transform.size**0.5).to(x.dtype)
            return (transform.forward(pairs(kernel.to(exact), self.size)) * self.size**0.5).to(x.dtype)

        return self._kept_spectrum(made)

    def transform(self, x: Tensor) -> monarch.Transform:
        """The matrices in the dtype and on the device of the input, made once."""
        if self._made is None or self._made[:2] != (x.device, x.dtype):
            self._made = (x.device, x.dtype, self._new_transform(x))
        return self._made[2]

    def _new_transform(self, like: Tensor) -> monarch.Transform:
        return monarch.Transform(self.factors, like.detach(), self.kept)

    def _partial(self, x: Tensor) -> Tensor:
        """Overlapping pieces of `taps` + `block` inputs, of which the last `block` outputs are whole."""
        positions, block = x.shape[-1], self.block
        count = -(-positions // block)
        padded = F.pad(x, (self.taps, count * block - positions))
        pieces = padded.unfold(-1, self.taps + block, block)
        exact = torch.promote_types(x.dtype, torch.float32)
        spectrum = torch.fft.rfft(self.weight.to(exact), n=self.size)[:, None]
        y = torch.fft.irfft(torch.fft.rfft(pieces.to(exact)) * spectrum, n=self.size)[..., self.taps :]
        return y.flatten(-2)[..., :positions].to(x.dtype)

    def _monarch_fused(self, x: Tensor) -> Tensor:
        return self.package(x)(x, self.weight.float())

    def package(self, x: Tensor) -> nn.Module:
        """The paper's kernel for the dtype of the input, made once for each."""
        if x.dtype not in self._fused:
            self._fused[x.dtype] = fused_convolution(self.size, x.dtype).to(x.device)
        return self._fused[x.dtype]

    def definition(self, u: Tensor, gate_in: Tensor | None = None, gate_out: Tensor | None = None) -> Tensor:
        """Position by position: a row of the Toeplitz matrix of the kernel times the input, channel by channel."""
        x = u if gate_in is None else gate_in * u
        found = self._circular(x) if self.form == "sparse" else self._toeplitz(x)
        found = found if self.skip is None else found + self.skip[:, None] * x
        return found if gate_out is None else gate_out * found

    def _toeplitz(self, x: Tensor) -> Tensor:
        positions = x.shape[-1]
        kernel = self.weight[:, :positions]
        kernel = F.pad(kernel, (0, positions - kernel.shape[1]))
        places = torch.arange(positions, device=x.device)
        back = places[:, None] - places
        rows = [torch.where(back >= 0, kernel[h][back.clamp(min=0)], 0.0) @ x[:, h].T for h in range(self.width)]
        return torch.stack([row.T for row in rows], 1)

    def spoiled_kernel(self) -> Tensor:
        """The kernel that the form sparse stands for, over all points of the transform: the real part of the rest."""
        spectrum = torch.fft.fft(F.pad(self.weight, (0, self.size - self.taps)))
        axes = len(self.factors)
        stacked = spectrum.reshape(self.width, *reversed(self.factors)).permute(0, *range(axes, 0, -1))
        mask = torch.zeros(self.factors, device=spectrum.device, dtype=torch.bool)
        mask[tuple(slice(rows) for rows in self.kept)] = True
        left = (stacked * mask).permute(0, *range(axes, 0, -1)).reshape(self.width, self.size)
        return torch.fft.ifft(left).real

    def _circular(self, x: Tensor) -> Tensor:
        """The circular convolution with the spoiled kernel, which is not causal any more, term by term."""
        kernel, positions = self.spoiled_kernel(), torch.arange(x.shape[-1], device=x.device)
        turned = (positions[:, None] - positions) % self.size
        return torch.einsum("hts,bhs->bht", kernel[:, turned], x)

    def costs(self, x: Tensor, *gates: Tensor) -> dict[str, float | str]:
        """Operations of transforms, products between spectra, and buffers, of the whole call."""
        return costs_of(self, x.shape[0], x.shape[-1])


def pairs(x: Tensor, size: int) -> Tensor:
    """Real numbers [..., m] as pairs [..., 2, size], zeros behind them."""
    padded = F.pad(x, (0, size - x.shape[-1]))
    return torch.stack([padded, torch.zeros_like(padded)], -2)


def check_package() -> None:
    """Raise NotImplementedError unless the paper's package and CUDA are there."""
    if find_spec("flashfftconv") is None or not torch.cuda.is_available():
        raise NotImplementedError(
            "monarch_fused is FlashFFTConv's own package, CUDA only: install it from "
            "github.com/HazyResearch/flash-fft-conv and run with device=cuda, or take form='monarch', "
            "the same transforms without fusion"
        )


def fused_convolution(size: int, dtype: torch.dtype) -> nn.Module:
    """The paper's kernel for this size of transform, called with input, kernel and both gates or none.

    Raises:
        NotImplementedError: without its package or without CUDA, or in another dtype than its own two.
    """
    check_package()
    if dtype not in (torch.float16, torch.bfloat16):
        raise NotImplementedError(f"FlashFFTConv's kernels are fp16 and bf16, not {dtype}: set dtypes=[fp16]")
    from flashfftconv import FlashFFTConv

    return FlashFFTConv(size, dtype=dtype)
