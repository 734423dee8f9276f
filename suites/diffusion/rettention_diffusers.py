"""Re-ttention on transformers of diffusers: windows over a picture's or video's tokens, words dense (see `rettention`).

The residual is kept before the output projection and not behind it: that map is linear, so what comes out is the same,
and a refresh projects once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.diffusers_bridge import DiffusersCourse, DiffusersModel
from suites.diffusion.attending import Attending, Tokens, tokens_of
from suites.diffusion.banded import half_width
from suites.diffusion.patterns import joined, whole
from suites.diffusion.windows import Mode, Windows, windowed

#: Queries whose scores over all keys are written out together at a refresh.
ROWS = 1024


class WindowPass(nn.Module):
    """Attention of the video's tokens in their window and over the words; at a refresh that is the method's own."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, half: int, tokens: Tokens, padding: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Outputs [batch, heads, video, size] and the logarithm of each row's sum [batch, heads, video]."""
        t = tokens.words
        near = windowed(q[:, :, t:], k[:, :, t:], v[:, :, t:], half, tokens.frames)
        return joined(near, whole(q[:, :, t:], k[:, :, :t], v[:, :, :t], padding)) if t else near


class ExtraPass(WindowPass):
    """The extra pass of a refresh."""

    charged_to = "method"


def all_over(q: Tensor, k: Tensor, v: Tensor, everything: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention over all keys and the logarithm of each row's sum, some queries at a time."""
    parts = [whole(some, k, v, everything) for some in q.split(ROWS, dim=2)]
    return torch.cat([out for out, _ in parts], dim=2), torch.cat([mass for _, mass in parts], dim=2)


class WindowsOfDiffusers(DiffusersCourse):
    """Full, refreshing and sparse steps; ratios and residuals of every layer and branch live in the run's state."""

    def __init__(self, tokens: Tokens, windows: Windows):
        self.tokens, self.windows, self.half = tokens, windows, half_width(tokens.places, windows.share)

    def plan(self, model: DiffusersModel, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The scheduler's steps, each with its mode."""
        return [{**step, "mode": self.windows.mode(step["index"])} for step in steps]

    def start(self, model: DiffusersModel, state: dict[str, Any]) -> dict[str, Any]:
        """The plain state and nothing remembered."""
        return {**state, "memory": {}}

    def step(self, model: DiffusersModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """A step in its mode; calls are numbered through both branches, whose memories are their own."""
        mode, memory = self.windows.mode(index), dict(state["memory"])
        if mode == "full":
            return model.plain_step(index, state)
        numbers = iter(range(model.branches))
        attend = partial(self._attend, model, mode, memory)

        def around() -> Attending:
            return Attending(self.tokens, partial(_of_branch, attend, next(numbers)))

        model.around = around
        try:
            return {**model.plain_step(index, state), "memory": memory}
        finally:
            model.around = None

    def _attend(
        self, model: DiffusersModel, mode: Mode, memory: dict[tuple[int, int], dict[str, Tensor]],
        place: tuple[int, int], q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """What one layer of one branch attends to."""
        t, networks = self.tokens.words, model.get_submodule("windows")
        everything = None if padding is None else F.pad(padding, (0, self.tokens.all - t), value=True)
        if mode == "refresh":
            full, mass = all_over(q, k, v, everything)
            inside, own = networks.get_submodule("extra")(q, k, v, self.half, self.tokens, padding)
            memory[place] = self._kept(full[:, :, t:], inside, (own - mass[:, :, t:]).exp().clamp(max=1.0))
            return full
        told = F.scaled_dot_product_attention(q[:, :, :t], k, v, attn_mask=everything) if t else q[:, :, :0]
        inside, _ = networks.get_submodule("sparse")(q, k, v, self.half, self.tokens, padding)
        out, memory[place] = self._rescaled(inside, memory[place])
        return torch.cat([told, out], dim=2)

    def _kept(self, full: Tensor, inside: Tensor, ratio: Tensor) -> dict[str, Tensor]:
        """What a refresh leaves to the sparse steps behind it."""
        kept = {"ratio": ratio} if self.windows.use_ratio else {}
        scaled = inside * ratio[..., None] if self.windows.use_ratio else inside
        return {**kept, "residual": full - scaled} if self.windows.use_residual else kept

    def _rescaled(self, inside: Tensor, kept: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """A sparse output from what was kept, and what is kept from then on."""
        now = dict(kept)
        if self.windows.use_ratio:
            inside = inside * kept["ratio"][..., None]
            now["ratio"] = (kept["ratio"] + self.windows.increment).clamp(max=1.0)
        return (inside + kept["residual"] if self.windows.use_residual else inside), now


def _of_branch(attend: Any, branch: int, call: int, *inputs: Any) -> Tensor:
    return attend((branch, call), *inputs)


def with_windows(model: DiffusersModel, windows: Windows) -> DiffusersModel:
    """The network whose layers look at windows between full steps.

    Raises:
        ValueError: it is no transformer of pictures or videos.
    """
    tokens = tokens_of(model, "rettention")
    model.windows = nn.ModuleDict({"extra": ExtraPass(), "sparse": WindowPass()})
    model.course = WindowsOfDiffusers(tokens, windows)
    return model
