"""Plain one-way Mamba blocks that run over a whole sequence or token by token.

Source: Gu and Dao 2023, Mamba, arXiv:2312.00752, section 3.4. Residuals are kept in float32 or finer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.scan_forms import Selective
from suites.ssm.ss2d import rank_of

KERNEL = 4


@dataclass
class MixerState:
    """What a mixer keeps of the past: its last inputs [batch, D, ring] and its states [1, batch, D, N]."""

    ring: Tensor
    states: Tensor


class MambaMixer(nn.Module):
    """d -> 2 D, causal depthwise filter of 4 with bias, SiLU, one scan, times SiLU(gate), D -> d.

    `ring` is how many inputs of the filter are kept between steps: 3 are needed, the released code keeps all 4.
    """

    def __init__(self, width: int, state: int, form: str, ring: int, expand: int = 2):
        super().__init__()
        self.inner, self.state, self.ring = expand * width, state, ring
        self.enter = nn.Linear(width, 2 * self.inner, bias=False)
        self.filter = nn.Conv1d(self.inner, self.inner, KERNEL, groups=self.inner)
        self.selective = Selective(self.inner, state, rank_of(width), 1, form)
        self.leave = nn.Linear(self.inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, tokens, width]; padded on the left by hand, so that no output is computed twice."""
        return self._over(x)[0]

    def read(self, x: Tensor) -> tuple[Tensor, MixerState]:
        """The same, and the state after the last token, from which `step` goes on."""
        y, seen, states = self._over(x)
        before = self.init(len(x))
        kept = before.states if states is None else states
        # views would keep the whole sequence alive
        return y, MixerState(seen[..., seen.shape[-1] - self.ring :].clone(), kept.clone())

    def _over(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Outputs, the filter's inputs [batch, D, 3 + tokens] with the zeros before them, and the last states."""
        x, gate = self.enter(x).chunk(2, dim=-1)
        seen = F.pad(x.transpose(1, 2), (KERNEL - 1, 0))
        y, states = self.selective.run(F.silu(self.filter(seen).transpose(1, 2))[None], None)
        return self.leave(y[0] * F.silu(gate)), seen, states

    def init(self, batch: int) -> MixerState:
        """The state before the first token."""
        like = self.enter.weight
        dtype = torch.promote_types(like.dtype, torch.float32)
        ring = torch.zeros(batch, self.inner, self.ring, dtype=like.dtype, device=like.device)
        states = torch.zeros(1, batch, self.inner, self.state, dtype=dtype, device=like.device)
        return MixerState(ring, states)

    def step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One token [batch, width]."""
        x, gate = self.enter(x).chunk(2, dim=-1)
        seen = torch.cat([state.ring, x[..., None]], dim=-1)
        x = F.silu(self.filter(seen[..., -KERNEL:])[..., 0])
        y, states = self.selective.run(x[None, :, None], state.states)
        kept = state.states if states is None else states
        ring = seen[..., -self.ring :].clone()  # a view would keep the input that has left as well
        return self.leave(y[0, :, 0] * F.silu(gate)), MixerState(ring, kept)


class MambaBlock(nn.Module):
    """x + mixer(RMSNorm x)."""

    def __init__(self, width: int, state: int, form: str, ring: int = KERNEL):
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.mixer = MambaMixer(width, state, form, ring)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, tokens, width], in float32 or finer."""
        return x + self.mixer(self._seen(x)).to(x.dtype)

    def read(self, x: Tensor) -> tuple[Tensor, MixerState]:
        """The same, and the state after the last token."""
        y, state = self.mixer.read(self._seen(x))
        return x + y.to(x.dtype), state

    def step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One token [batch, width]."""
        y, state = self.mixer.step(self._seen(x), state)
        return x + y.to(x.dtype), state

    def _seen(self, x: Tensor) -> Tensor:
        return self.norm(x.to(self.norm.weight.dtype))


def residual(x: Tensor) -> Tensor:
    """The features as residuals are kept: in float32 or finer."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
