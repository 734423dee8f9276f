"""The kernel that a diagonal state space makes, as the baseline of learned ones (S4D, arXiv 2206.11893).

k[h, t] = 2 Re sum over n of C_n B_n exp(A_n dt t), A_n = -1/2 + i pi n (S4D-Lin), zero-order hold: a Vandermonde
product of L x N/2 complex numbers for each channel, which is the time that a kernel out of pieces or a table saves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class DiagonalKernel(nn.Module):
    """A kernel [channels, width, L] of `states` states, in conjugate pairs."""

    def __init__(self, channels: int, width: int, length: int, states: int = 64):
        super().__init__()
        self.length = length
        pairs = states // 2
        self.log_step = nn.Parameter(torch.rand(width) * math.log(100.0) + math.log(1e-3))
        self.log_decay = nn.Parameter(torch.full((width, pairs), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(pairs).float().repeat(width, 1))
        self.output = nn.Parameter(torch.randn(channels, width, pairs, 2) * 0.5**0.5)

    def forward(self) -> Tensor:
        """The kernel, in the dtype of its parameters; computed in fp32 or better."""
        exact = torch.promote_types(self.log_step.dtype, torch.float32)
        a = torch.complex(-self.log_decay.to(exact).exp(), self.frequency.to(exact))
        step = self.log_step.to(exact).exp()[:, None]
        weight = torch.view_as_complex(self.output.to(exact)) * (torch.exp(a * step) - 1) / a
        places = torch.arange(self.length, device=a.device, dtype=exact)
        powers = torch.exp((a * step)[..., None] * places)
        return 2 * torch.einsum("chn,hnt->cht", weight, powers).real.to(self.log_step.dtype)
