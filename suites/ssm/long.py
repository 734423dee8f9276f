"""Long convolutions in the place of the scan: kernels as long as the map's paths, which do not look at the input.

Source: Li et al. 2022, SGConv, "What Makes Convolutional Models Great on Long Sequence Modeling?", arXiv:2210.09298,
section 3: a kernel is a row of sub-kernels of a few learned numbers, each stretched to twice the length of the one
before it and weighted by half of that, so that parameters do not depend on the length. y = x * kernel by Fourier
transforms of 2 L points: L log L work, where a scan has L N. Ours: the paths are those of the scan, so that nothing but
the recurrence is exchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.ssm.orders import Orders

#: Learned numbers of a sub-kernel, how many there are (32,768 tokens; the kernel is zero beyond), and their decay.
TAPS, SCALES, DECAY = 4, 14, 0.5
#: Standard deviation at which a kernel starts with an energy of about one: 1 / sqrt(4 + 2).
START = 6**-0.5


class PathConvolution(nn.Module):
    """Causal convolutions of a map [batch, height, width, D] along the paths of `orders`, brought back and summed."""

    def __init__(self, inner: int, orders: Orders):
        super().__init__()
        self.orders = orders
        self.weight = nn.Parameter(torch.randn(len(orders.names), inner, SCALES, TAPS) * START)

    def kernel(self, length: int) -> Tensor:
        """The kernels of all paths, [K, D, length]; a longer one begins with the shorter one."""
        parts, filled = list[Tensor](), 0
        for place in range(SCALES):
            if filled < length:
                size = TAPS << max(0, place - 1)
                stretched = F.interpolate(self.weight[:, :, place], size=size, mode="linear", align_corners=False)
                parts.append(DECAY**place * stretched)
                filled += size
        return F.pad(torch.cat(parts, dim=-1)[..., :length], (0, max(0, length - filled)))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; transforms are made in float32 or finer."""
        height, width = x.shape[1:3]
        exact = torch.promote_types(x.dtype, torch.float32)
        given = self.orders.apart(x).transpose(2, 3).to(exact)  # [K, batch, D, tokens]
        length = given.shape[-1]
        kernel = self.kernel(length).to(exact)
        spectrum = torch.fft.rfft(given, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)[:, None]
        made = torch.fft.irfft(spectrum, n=2 * length)[..., :length].to(x.dtype)
        return self.orders.together(made.transpose(2, 3), height, width)
