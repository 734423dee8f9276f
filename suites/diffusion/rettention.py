"""Re-ttention: window attention rescaled by the softmax mass it had; Chen et al. 2025, arXiv 2505.22918.

Per query row and head rho = (sum of exp inside the window) / (sum over all) is kept from the last full step, and R =
full - sparse output after the projection. A sparse step multiplies the window's softmax by rho, adds R, and lets rho
grow by a constant. Of a video, the window is one of places, the same in all frames. Ours: rho is clamped at 1, which
the released code lets it pass; the band is read by blocks (`suites.diffusion.banded`) where that code multiplies
everything and masks.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Field, PositiveInt, Rate
from suites.common.dit import Attention, Dit
from suites.common.rectified_flow import Course, FlowModel
from suites.common.video_dit import VideoDit
from suites.diffusion.banded import band_pairs, executed_pairs, half_width
from suites.diffusion.subjects import as_kind, is_of_diffusers, tell_pairs
from suites.diffusion.windows import Mode, Windows, windowed


def rettention(
    model: nn.Module,
    *,
    s: Annotated[float, Field(gt=0.0, le=2.0)] = 0.125,
    refresh: PositiveInt = 5,
    warmup: Count = 5,
    increment: Rate = 0.04,
    use_ratio: bool = True,
    use_residual: bool = True,
) -> nn.Module:
    """The transformer whose self-attention looks at a window between full steps; nothing is trained.

    Args:
        model: a diffusion transformer of this house, or one of diffusers.
        s: window over the tokens; 2 sees everything.
        refresh: a full step at `warmup` and every so many steps after it tells ratio and residual anew.
        warmup: first steps that are full.
        increment: added to the ratio after every sparse step.
        use_ratio: whether the window's softmax is rescaled.
        use_residual: whether the cached difference is added.

    Raises:
        ValueError: the model is no diffusion transformer.
    """
    if is_of_diffusers(model, "rettention"):
        from suites.diffusion.rettention_diffusers import with_windows

        windows = Windows(s, refresh, warmup, increment, use_ratio, use_residual)
        return with_windows(model, windows)  # type: ignore[arg-type]
    dit = as_kind(model, Dit, "rettention", "digit_dit256")
    for block in dit.blocks:
        block.attn = WindowAttention(block.attn, s, increment, use_ratio, use_residual, frames_of(dit))
    dit.course = Rettention(s, refresh, warmup, use_residual)
    return dit


def frames_of(model: Dit) -> int:
    """Frames of the videos that a network makes; 1 of pictures."""
    return model.frames if isinstance(model, VideoDit) else 1


class BandPass(nn.Module):
    """The extra pass over the window that a refresh makes: the method's own products."""

    charged_to = "method"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, half: int, frames: int) -> tuple[Tensor, Tensor]:
        """As `windowed`."""
        return windowed(q, k, v, half, frames)


class WindowAttention(Attention):
    """Attention in one of three modes; what it keeps lies in `memory`, which belongs to the run."""

    def __init__(
        self, plain: Attention, s: float, increment: float, use_ratio: bool, use_residual: bool, frames: int = 1
    ):
        nn.Module.__init__(self)
        self.heads, self.qkv, self.proj = plain.heads, plain.qkv, plain.proj
        self.s, self.frames = s, frames
        self.increment, self.use_ratio, self.use_residual = increment, use_ratio, use_residual
        self.extra = BandPass()
        self.mode: Mode = "full"
        self.memory: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Attended features, [batch, tokens, width]."""
        if self.mode == "full":
            return super().forward(x)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        half = half_width(x.shape[1] // self.frames, self.s)
        return self._refreshed(q, k, v, half) if self.mode == "refresh" else self._sparse(q, k, v, half)

    def _refreshed(self, q: Tensor, k: Tensor, v: Tensor, half: int) -> Tensor:
        scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        full = self._projected(scores.softmax(-1) @ v)
        inside, mass = self.extra(q, k, v, half, self.frames)
        ratio = (mass - scores.logsumexp(-1)).exp().clamp(max=1.0)
        if self.use_ratio:
            self.memory["ratio"] = ratio
            inside = inside * ratio[..., None]
        if self.use_residual:
            self.memory["residual"] = full - self._projected(inside)
        return full

    def _sparse(self, q: Tensor, k: Tensor, v: Tensor, half: int) -> Tensor:
        inside, _ = windowed(q, k, v, half, self.frames)
        if self.use_ratio:
            inside = inside * self.memory["ratio"][..., None]
            self.memory["ratio"] = (self.memory["ratio"] + self.increment).clamp(max=1.0)
        out = self._projected(inside)
        return out + self.memory["residual"] if self.use_residual else out

    def _projected(self, heads: Tensor) -> Tensor:
        # bias and all in both passes, so that it falls out of the difference
        return F.linear(heads.transpose(1, 2).flatten(2), self.proj.weight, self.proj.bias)


class Rettention(Course):
    """Full, refreshing and sparse steps; ratios and residuals live in the state of the run."""

    def __init__(self, s: float, refresh: int, warmup: int, residual: bool = True):
        self.s, self.residual = s, residual
        self.mode = Windows(s, refresh, warmup).mode

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """The plain grid, each step with its mode and MACs."""
        assert isinstance(model, Dit)
        masked = [mask_macs(model, self.mode(index), self.s, self.residual) for index in range(count)]
        tell_pairs(model, *(model.branches * sum(each) for each in zip(*masked, strict=True)))
        return [
            {**step, "mode": (mode := self.mode(step["index"])), "macs": model.branches * self._macs(model, mode)}
            for step in model.euler(count)
        ]

    def _macs(self, model: Dit, mode: Mode) -> int:
        return step_macs(model, mode, self.s, self.residual)

    def start(self, model: FlowModel, state: dict[str, Any]) -> dict[str, Any]:
        """The plain state and an empty memory for every block."""
        assert isinstance(model, Dit)
        return {**state, "memory": [{} for _ in model.blocks]}

    def step(self, model: FlowModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """A step in its mode, with the run's own memory lent to the blocks."""
        assert isinstance(model, Dit)
        for block, memory in zip(model.blocks, state["memory"], strict=True):
            block.attn.mode, block.attn.memory = self.mode(index), memory
        try:
            return super().step(model, index, state)
        finally:
            for block in model.blocks:
                block.attn.mode, block.attn.memory = "full", {}


def step_macs(model: Dit, mode: Mode, s: float, residual: bool = True, side: int | None = None) -> int:
    """MACs of one evaluation: 2 pairs C for attention; a refresh runs all pairs, the window, and projects twice."""
    frames, c, layers = frames_of(model), model.width, len(model.blocks)
    places = ((side or model.resolution) // model.patch) ** 2
    n = frames * places
    plain, window = model.evaluation_macs(side or model.resolution), executed_pairs(n, half_width(places, s), frames)
    if mode == "full":
        return plain
    if mode == "refresh":
        return plain + layers * (2 * window * c + (n * c**2 if residual else 0))
    return plain - layers * 2 * (n**2 - window) * c


def mask_macs(model: Dit, mode: Mode, s: float, residual: bool = True) -> tuple[int, int]:
    """MACs of one evaluation with nothing masked, and with the pairs alone that the mask keeps.

    What the method takes to decide, a refresh's pass over the window, is in neither.
    """
    frames, c, layers = frames_of(model), model.width, len(model.blocks)
    places = (model.resolution // model.patch) ** 2
    n = frames * places
    again = layers * n * c**2 if mode == "refresh" and residual else 0
    dense = model.evaluation_macs(model.resolution) + again
    kept = frames**2 * band_pairs(places, half_width(places, s))
    return dense, dense - (layers * 2 * (n**2 - kept) * c if mode == "sparse" else 0)


def cache_bytes(layers: int, branches: int, tokens: int, width: int, heads: int, size: int = 4) -> int:
    """Bytes that live between steps: a residual a token and channel, a ratio a token and head."""
    return layers * branches * (tokens * width + heads * tokens) * size
