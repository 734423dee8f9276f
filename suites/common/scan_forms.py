"""Selective scans in several forms that give the same numbers, and the operator around them.

h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t, y_t = C_t . h_t (Gu and Dao 2023, "Mamba", arXiv:2312.00752, algorithm
2). The contraction with C is written as a matrix product, so that a trace counts one multiply-accumulate for every
state; decay and drive are vector operations.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.errors import UsageError, did_you_mean
from suites.common.scan import selective_scan

FORMS = ("sequential", "parallel", "chunk", "mamba_ssm", "identity")
#: Tokens of a chunk where `chunk` names none.
CHUNK = 64
#: Steps start log-uniform in this range, and never below the floor (Gu and Dao 2023, section 3.6).
FASTEST, SLOWEST, FLOOR = 0.1, 0.001, 1e-4


def parse_form(scan: str) -> tuple[str, int]:
    """The form's name and the tokens of a chunk (0 for forms without chunks) of a setting `scan`.

    Raises:
        UsageError: no such form, or chunks of no tokens.
    """
    name, equals, size = scan.partition("=")
    if name not in FORMS or (equals and name != "chunk"):
        raise UsageError(f'scan="{scan}" is unknown{did_you_mean(name, FORMS)}: take {", ".join(FORMS)}, or chunk=64')
    if name != "chunk":
        return name, 0
    if equals and not (size.isdecimal() and int(size) > 0):
        raise UsageError(f'scan="{scan}": a chunk has one token or more, as in chunk=64')
    return name, int(size) if equals else CHUNK


class Scan(nn.Module):
    """The recurrence alone, in one of `FORMS`; what it multiplies is counted as `macs_scan`.

    - `sequential` walks along the sequence: the definition, and the reference of the others;
    - `parallel` combines neighbours, in depth of the logarithm of the length; holds all states several times;
    - `chunk=c` is parallel inside chunks of c tokens and carries the state across, so that memory is bounded; while it
      trains, chunks are computed again in the backward;
    - `mamba_ssm` is that package's fused kernel, which keeps states on the chip of a GPU; a trace cannot see inside;
    - `identity` gives x back: no method, but what everything except the scan costs.
    """

    counts_as = "macs_scan"

    def __init__(self, form: str = "parallel"):
        super().__init__()
        self.form, self.chunk = parse_form(form)
        if self.form == "mamba_ssm":
            self.kernel = "runtime"
            _fused_kernel()

    def forward(
        self, x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, carried: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Y of the same shape as x and the last state [K, batch, D, N], both in float32 or finer.

        The fused kernel and `identity` give no state of their own.

        Args:
            x: inputs [K, batch, L, D]: K independent scans with parameters of their own.
            delta: positive steps [K, batch, L, D].
            a: rates of decay, negative, [K, D, N].
            b: what enters the states, [K, batch, L, N].
            c: what is read from them, [K, batch, L, N].
            carried: the state before the first token; None for zeros.
        """
        if self.form == "identity":
            return x, carried
        dtype = torch.promote_types(x.dtype, torch.float32)
        x, delta, a, b, c = (value.to(dtype) for value in (x, delta, a, b, c))
        if self.form == "mamba_ssm" and carried is None:
            return _fused(x, delta, a, b, c), None
        if self.form == "sequential":
            return _sequential(x, delta, a, b, c, carried)
        if self.form == "chunk":
            return self._chunked(x, delta, a, b, c, carried)
        return _parallel(x, delta, a, b, c, carried)

    def extra_repr(self) -> str:
        """The form."""
        return f"{self.form}={self.chunk}" if self.chunk else self.form

    def _chunked(
        self, x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, carried: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        again = self.training and torch.is_grad_enabled()
        outputs = []
        for start in range(0, x.shape[2], self.chunk):
            part = [value[:, :, start : start + self.chunk] for value in (x, delta, b, c)]
            given = (part[0], part[1], a, part[2], part[3], carried)
            y, carried = checkpoint(_parallel, *given, use_reentrant=False) if again else _parallel(*given)
            outputs.append(y)
        return torch.cat(outputs, dim=2), carried


def _decay_and_drive(x: Tensor, delta: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """exp(delta A) and delta B x, both [K, batch, L, D, N]."""
    decay = torch.exp(delta[..., None] * a[:, None, None])
    return decay, (delta * x)[..., None] * b[..., None, :]


def _read(states: Tensor, c: Tensor) -> Tensor:
    """C . h of states [..., D, N] and c [..., N]: one product for every state."""
    return (states @ c[..., None])[..., 0]


def _sequential(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, carried: Tensor | None
) -> tuple[Tensor, Tensor]:
    state = torch.zeros_like(x[:, :, 0, :, None] * a[:, None]) if carried is None else carried
    outputs = []
    for place in range(x.shape[2]):
        decay = torch.exp(delta[:, :, place, :, None] * a[:, None])
        drive = (delta[:, :, place] * x[:, :, place])[..., None] * b[:, :, place, None, :]
        state = decay * state + drive
        outputs.append(_read(state, c[:, :, place]))
    return torch.stack(outputs, dim=2), state


class _Recurrence(torch.autograd.Function):
    """All states of a recurrence, whose gradient is one more recurrence from the end: no level of the tree is kept."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor) -> Tensor:
        states = selective_scan(decay, drive)
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        decay, states = ctx.saved_tensors
        # l_t = g_t + decay_(t+1) l_(t+1), read from the end; the first factor there meets no state
        later = torch.cat([torch.zeros_like(decay[:, :1]), decay[:, 1:].flip(1)], dim=1)
        adjoint = selective_scan(later, gradients[0].flip(1)).flip(1)
        before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
        return adjoint * before, adjoint


def _parallel(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, carried: Tensor | None
) -> tuple[Tensor, Tensor]:
    """All outputs, and the last state [K, batch, D, N], of a sequence that begins in a carried state."""
    decay, drive = _decay_and_drive(x, delta, a, b)
    if carried is not None:
        first = torch.addcmul(drive[:, :, :1], decay[:, :, :1], carried[:, :, None])
        drive = torch.cat([first, drive[:, :, 1:]], dim=2)
    states = _Recurrence.apply(decay.flatten(0, 1), drive.flatten(0, 1)).unflatten(0, x.shape[:2])
    return _read(states, c), states[:, :, -1]


def _fused_kernel() -> Any:
    """The package's scan.

    Raises:
        NotImplementedError: there is no GPU.
        UsageError: the package is not installed.
    """
    if not torch.cuda.is_available():
        raise NotImplementedError("scan='mamba_ssm' is a GPU kernel, and there is no GPU: take scan='parallel'")
    if importlib.util.find_spec("mamba_ssm") is None:
        raise UsageError("scan='mamba_ssm' needs the package mamba_ssm, which is not installed: take scan='parallel'")
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn


def _fused(x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The package takes [batch, channels, L] in groups that share B and C: here a group for each of the K scans."""
    inner = [value.permute(1, 0, 3, 2) for value in (x, delta, b, c)]
    flat = [value.flatten(1, 2).contiguous() for value in inner[:2]]
    y = _fused_kernel()(flat[0], flat[1], a.flatten(0, 1).contiguous(), *(v.contiguous() for v in inner[2:]))
    return y.unflatten(1, (x.shape[0], x.shape[3])).permute(1, 0, 3, 2)


class Selective(nn.Module):
    """K selective scans with parameters of their own: step, B and C of every token from the token itself.

    Parameters: x_proj D -> R + 2 N without bias, dt_proj R -> D with bias, A_log D x N, skip D, each K times.
    """

    def __init__(self, inner: int, state: int, rank: int, scans: int = 1, form: str = "parallel"):
        super().__init__()
        self.inner, self.state, self.rank, self.scans = inner, state, rank, scans
        self.x_proj = nn.Parameter(torch.empty(scans, rank + 2 * state, inner))
        self.dt_proj = nn.Parameter(torch.empty(scans, inner, rank))
        self.dt_bias = nn.Parameter(torch.empty(scans, inner))
        self.A_log = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(scans, inner, 1))
        self.skip = nn.Parameter(torch.ones(scans, inner))
        self.scan = Scan(form)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """softplus(bias) log-uniform in [0.001, 0.1]; weights of the step uniform in +-R^-0.5."""
        self.x_proj.uniform_(-(self.inner**-0.5), self.inner**-0.5)
        self.dt_proj.uniform_(-(self.rank**-0.5), self.rank**-0.5)
        step = torch.rand(self.dt_bias.shape) * (math.log(FASTEST) - math.log(SLOWEST)) + math.log(SLOWEST)
        step = step.exp().clamp(min=FLOOR)
        self.dt_bias.copy_(step + (-torch.expm1(-step)).log())

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the K scans of x [K, batch, L, D], of the same shape and dtype."""
        return self.run(x, None)[0]

    def run(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The same from a carried state [K, batch, D, N] on, and the state after the last token."""
        delta, a, b, c = self.select(x)  # for `identity` as well: that control takes away the recurrence alone
        y, state = self.scan(x, delta, a, b, c, carried)
        if self.scan.form == "identity":
            return x, state
        return (y + self.skip[:, None, None].to(y.dtype) * x).to(x.dtype), state

    def select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Delta [K, batch, L, D], A [K, D, N], and B and C [K, batch, L, N]; delta and A in float32 or finer."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        shape = x.shape[:3]
        chosen = torch.bmm(x.flatten(1, 2), self.x_proj.mT)
        low, b, c = chosen.split([self.rank, self.state, self.state], dim=-1)
        raw = torch.bmm(low, self.dt_proj.mT).to(dtype) + self.dt_bias[:, None].to(dtype)
        a = -torch.exp(self.A_log.to(dtype))
        return F.softplus(raw).unflatten(1, shape[1:]), a, b.unflatten(1, shape[1:]), c.unflatten(1, shape[1:])


def macs_of_scans(inner: int, state: int, length: int, scans: int) -> int:
    """S: states that are updated and read, summed over the scans."""
    return scans * inner * state * length
