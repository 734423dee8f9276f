"""A layer whose convolution kernel is learned directly, at full length (Fu et al. 2023, arXiv 2302.06646).

kernel ~ N(0, 0.002) of [channels, H, taps]; before use k = sign(k) max(|k| - lambda, 0), optionally smoothed (a moving
average of 7 taps in time, or a Gaussian in frequency). Then convolution, + D u, GELU, dropout, linear (channels H) -> 2
H, GLU. Two-sided layers have 2 L taps: those of the second half reach forward, because a circular convolution of 2 L
points wraps them around.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.ops import monarch
from suites.ops.butterfly import LearnedTransform, convolved_densely

Smoothing = Literal["none", "time", "frequency"]
MOVING_AVERAGE = 7
#: Width of the Gaussian over frequencies, as a share of the highest.
GAUSSIAN = 0.5
INITIAL = 0.002


class LongKernel(nn.Module):
    """A learned kernel [channels, width, taps], squashed and smoothed before use."""

    def __init__(
        self, channels: int, width: int, taps: int, threshold: float, smoothing: Smoothing, dropout: float = 0.0
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, width, taps) * INITIAL)
        self.threshold, self.smoothing, self.dropout = threshold, smoothing, dropout

    def forward(self) -> Tensor:
        """The kernel as it is used."""
        kernel = soft_threshold(smoothed(self.weight, self.smoothing), self.threshold)
        return F.dropout(kernel, self.dropout, self.training)


def soft_threshold(kernel: Tensor, threshold: float) -> Tensor:
    """sign(k) max(|k| - lambda, 0)."""
    return kernel.sign() * (kernel.abs() - threshold).clamp(min=0)


def smoothed(kernel: Tensor, how: Smoothing) -> Tensor:
    """The kernel with its fast changes damped."""
    if how == "time":
        return F.avg_pool1d(kernel, MOVING_AVERAGE, 1, MOVING_AVERAGE // 2)
    if how == "frequency":
        exact = torch.promote_types(kernel.dtype, torch.float32)
        spectrum = torch.fft.rfft(kernel.to(exact))
        places = torch.linspace(0, 1, spectrum.shape[-1], device=kernel.device, dtype=exact)
        return torch.fft.irfft(spectrum * torch.exp(-((places / GAUSSIAN) ** 2) / 2), n=kernel.shape[-1]).to(
            kernel.dtype
        )
    return kernel


class KernelLayer(nn.Module):
    """Convolutions with given kernels and a skip; a subclass says what becomes of their channels.

    `kernel` is a module whose forward gives [channels, width, taps]; with taps = 2 length a layer looks both ways.
    """

    def __init__(self, width: int, length: int, channels: int, kernel: nn.Module, transform: str = "fft"):
        super().__init__()
        self.width, self.length, self.channels, self.kernel, self.transform = width, length, channels, kernel, transform
        self.skip = nn.Parameter(torch.randn(channels, width))
        self.factors = monarch.factors_for(2 * length)
        self.learned = LearnedTransform(self.factors, width) if transform == "learned" else None

    def mixed(self, y: Tensor) -> Tensor:
        """Features [batch, width, positions] of [batch, channels, width, positions]."""
        raise NotImplementedError(f"{type(self).__name__} does not define mixed")

    def forward(self, u: Tensor) -> Tensor:
        """Features [batch, width, positions] of the same shape."""
        return self.mixed(self.convolved(u) + self.skip[:, :, None] * u[:, None])

    def convolved(self, u: Tensor) -> Tensor:
        """[batch, channels, width, positions]."""
        kernel, positions = self.kernel(), u.shape[-1]
        if self.learned is not None:
            return self.learned.convolved(u[:, None], kernel)
        if self.transform == "monarch":
            return monarch_convolution(u[:, None], kernel, self.factors)
        exact = torch.promote_types(u.dtype, torch.float32)
        size = 2 * self.length
        spectrum = torch.fft.rfft(u.to(exact), n=size)[:, None] * torch.fft.rfft(kernel.to(exact), n=size)
        return torch.fft.irfft(spectrum, n=size)[..., :positions].to(u.dtype)

    def by_definition(self, u: Tensor) -> Tensor:
        """The same with the convolution summed term by term around a circle of 2 L places."""
        if self.learned is not None:
            y = convolved_densely(self.learned, u, self.kernel())
            return self.mixed(y + self.skip[:, :, None] * u[:, None])
        kernel, places = self.kernel(), torch.arange(u.shape[-1], device=u.device)
        kernel = F.pad(kernel, (0, 2 * self.length - kernel.shape[-1]))
        around = (places[:, None] - places) % (2 * self.length)
        y = torch.stack([u[:, h, :] @ kernel[:, h][:, around].mT for h in range(self.width)], 2).transpose(0, 1)
        return self.mixed(y + self.skip[:, :, None] * u[:, None])


class LongLayer(KernelLayer):
    """GELU, a linear map of all channels to twice the width, and GLU."""

    def __init__(
        self, width: int, length: int, channels: int, kernel: nn.Module, transform: str = "fft", dropout: float = 0.0
    ):  # fmt: skip
        super().__init__(width, length, channels, kernel, transform)
        self.out = nn.Linear(channels * width, 2 * width)
        self.dropout = dropout

    def mixed(self, y: Tensor) -> Tensor:
        """Features of the width."""
        y = F.dropout(F.gelu(y), self.dropout, self.training).flatten(1, 2)
        return F.glu(self.out(y.transpose(1, 2)), -1).transpose(1, 2)


def monarch_convolution(u: Tensor, kernel: Tensor, factors: tuple[int, ...]) -> Tensor:
    """The circular convolution of inputs [..., positions] and kernels [..., taps] by dense products."""
    transform = monarch.Transform(factors, u.detach())
    size = math.prod(factors)
    both = [F.pad(value, (0, size - value.shape[-1])) for value in (u, kernel)]
    spectra = [transform.forward(torch.stack([value, torch.zeros_like(value)], -2)) for value in both]
    made = transform.inverse(monarch.products(spectra[0], spectra[1] * size**0.5, -1 - len(factors)))
    return made.select(-2, 0)[..., : u.shape[-1]]


def layer_parameters(width: int, length: int, channels: int, *, two_sided: bool) -> int:
    """Parameters of a layer: kernel c H L (2 L two-sided), skip c H, linear c H 2 H + 2 H."""
    taps = 2 * length if two_sided else length
    return channels * width * taps + channels * width + channels * width * 2 * width + 2 * width
