"""SGConv: a kernel as long as the sequence out of a few short ones (Li et al. 2022, arXiv 2210.09298).

scales = 1 + ceil(log2(L / kd)). Piece i is learned, [channels, H, kd], stretched linearly by 2^max(0, i - 1) and
multiplied with 2^(scales - 1 - i); one behind the other they have kd 2^(scales - 1) >= L taps, of which the first L are
taken. The whole is divided by its own norm as it was at its first use, which is kept. Two-sided there are twice as
many, the second half reaching forward. Then convolution, + D u, GELU, linear H -> H and an activation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.ops.long_layer import KernelLayer

MULTIPLIER = 2.0


def scales_for(length: int, size: int) -> int:
    """Pieces of a kernel of this length: 1 + ceil(log2(L / kd)), 1 where a piece is long enough."""
    return 1 if length <= size else 1 + math.ceil(math.log2(length / size))


class MultiscaleKernel(nn.Module):
    """The kernel [channels, width, L], or [channels, width, 2 L] where it is two-sided."""

    norm: Tensor

    def __init__(self, channels: int, width: int, length: int, size: int, *, two_sided: bool = False):
        super().__init__()
        self.length, self.size, self.channels, self.two_sided = length, size, channels, two_sided
        rows = 2 * channels if two_sided else channels
        count = scales_for(length, size)
        self.pieces = nn.ParameterList(nn.Parameter(torch.randn(rows, width, size)) for _ in range(count))
        self.register_buffer("norm", torch.zeros(rows, width, 1))
        self._frozen = False

    @property
    def taps(self) -> int:
        """Taps of a one-sided kernel before it is cut."""
        return int(self.size * 2 ** (len(self.pieces) - 1))

    def raw(self) -> Tensor:
        """The pieces, stretched, weighted and joined, cut or padded to the length, [rows, width, L]."""
        last = len(self.pieces) - 1
        parts = [stretched(piece, 2 ** max(0, i - 1)) * MULTIPLIER ** (last - i) for i, piece in enumerate(self.pieces)]
        joined = torch.cat(parts, -1)[..., : self.length]
        return F.pad(joined, (0, self.length - joined.shape[-1]))

    def freeze(self) -> None:
        """Take the norm of the kernel as it is now; nothing where it was taken before."""
        if self._frozen or self.norm.is_meta:
            return
        if not bool(self.norm.any()):  # else it came with a state that was loaded
            self.norm.copy_(self.raw().detach().norm(dim=-1, keepdim=True))
        self._frozen = True

    def forward(self) -> Tensor:
        """The kernel as it is used."""
        self.freeze()
        kernel = self.raw() / self.norm
        if not self.two_sided:
            return kernel
        forward, backward = kernel.chunk(2)
        return torch.cat([forward, backward.flip(-1)], -1)


def stretched(piece: Tensor, factor: int) -> Tensor:
    """A piece linearly interpolated to `factor` times its length."""
    return (
        piece if factor == 1 else F.interpolate(piece, scale_factor=float(factor), mode="linear", align_corners=False)
    )


class SGLayer(KernelLayer):
    """GELU, a linear map of all channels to the width, GELU."""

    def __init__(self, width: int, length: int, kernel: nn.Module, channels: int = 1, transform: str = "fft"):
        super().__init__(width, length, channels, kernel, transform)
        self.out = nn.Linear(channels * width, width)

    def mixed(self, y: Tensor) -> Tensor:
        """Features of the width."""
        return F.gelu(self.out(F.gelu(y).flatten(1, 2).transpose(1, 2))).transpose(1, 2)


def kernel_parameters(width: int, length: int, size: int, channels: int = 1, *, two_sided: bool = False) -> int:
    """Learned taps: 2^[two-sided] c H kd scales."""
    return (2 if two_sided else 1) * channels * width * size * scales_for(length, size)


def layer_parameters(width: int, length: int, size: int, channels: int = 1, *, two_sided: bool = False) -> int:
    """Kernel, skip c H, output c H H + H."""
    kernel = kernel_parameters(width, length, size, channels, two_sided=two_sided)
    return kernel + channels * width + channels * width * width + width
