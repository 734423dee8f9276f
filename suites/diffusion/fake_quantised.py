"""Layers that round weights and inputs to whole numbers and multiply them in single precision: a quality, no time.

Weights have a scale per output channel, inputs one scale per layer and step of the sampler; each scale is the one of
a few shares of the largest magnitude with the least squared error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.rectified_flow import FlowModel, noise

#: Shares of the largest magnitude that are tried as the end of the range.
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


class Rounding:
    """Which step of which plan is running; shared by the layers of a model, calibrated once for each plan."""

    def __init__(self, images: int, correction: bool):
        self.images, self.correction = images, correction
        self.step = 0
        self.learning: str | None = None
        self.known: tuple[int, float | None] | None = None


class Rounded(nn.Module):
    """A convolution or linear layer in few bits; `scales` and `fits` are by step."""

    weight: Tensor

    def __init__(self, plain: Any, weight_bits: int, bits: int, rounding: Rounding):
        super().__init__()
        self.plain: Any = plain
        self.bits, self.rounding = bits, rounding
        weight: Tensor = plain.weight.data
        self.register_buffer("weight", rounded(weight, best_scale(weight.flatten(1), weight_bits), weight_bits))
        self.scales: dict[int, Tensor] = {}
        self.fits: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """What the plain layer gives, of rounded weights and inputs."""
        step = self.rounding.step
        if self.rounding.learning == "scales":
            self.scales[step] = best_scale(x.flatten()[None], self.bits)
            return self.plain(x)
        scale = self.scales.get(step)
        inner = x if scale is None else rounded(x, scale, self.bits)
        out = self._run(inner)
        if self.rounding.learning == "fits":
            wanted = self.plain(x)
            self.fits[step] = _fit(out, wanted)
            return wanted
        fit = self.fits.get(step)
        return out if fit is None else _applied(out, fit)

    def _run(self, x: Tensor) -> Tensor:
        plain = self.plain
        if isinstance(plain, nn.Conv2d):
            return F.conv2d(x, self.weight, plain.bias, plain.stride, plain.padding)
        return F.linear(x, self.weight, plain.bias)


def rounded(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The nearest of 2^bits - 1 values; `scale` has one number for each row of `x`, or one for all."""
    top = 2 ** (bits - 1) - 1
    wide = scale.view(-1, *[1] * (x.dim() - 1)) if scale.numel() > 1 else scale.view([1] * x.dim())
    return (x / wide).round().clamp(-top, top) * wide


def best_scale(rows: Tensor, bits: int) -> Tensor:
    """The step size of each row, [rows], with the least squared error among a few ranges."""
    top = 2 ** (bits - 1) - 1
    largest = rows.abs().amax(dim=1).clamp(min=1e-12)
    tried = torch.stack([largest * clip / top for clip in CLIPS])
    errors = torch.stack([(rounded(rows, scale, bits) - rows).square().sum(dim=1) for scale in tried])
    return tried.gather(0, errors.argmin(dim=0)[None])[0]


def _fit(out: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares per channel (of a convolution) or feature (of a linear layer)."""
    axis = 1 if out.dim() == 4 else -1
    x, y = (each.transpose(axis, 0).flatten(1).double() for each in (out, wanted))
    mean_x, mean_y = x.mean(1), y.mean(1)
    spread = (x - mean_x[:, None]).square().mean(1)
    together = ((x - mean_x[:, None]) * (y - mean_y[:, None])).mean(1)
    a = torch.where(spread > 0, together / spread.clamp(min=1e-30), torch.ones_like(spread))
    return a.to(out.dtype), (mean_y - a * mean_x).to(out.dtype)


def _applied(out: Tensor, fit: tuple[Tensor, Tensor]) -> Tensor:
    a, b = (each.to(out) for each in fit)
    return out * a[:, None, None] + b[:, None, None] if out.dim() == 4 else out * a + b


def quantise(model: FlowModel, weight_bits: int, bits: int, *, images: int, correction: bool) -> None:
    """Put rounded layers in place of every convolution and linear layer; calibrated when a plan is first made."""
    rounding = Rounding(images, correction)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d | nn.Linear):
                setattr(parent, name, Rounded(child, weight_bits, bits, rounding))
    model.rounding = rounding  # type: ignore[assignment]


def calibrate(model: FlowModel, count: int) -> None:
    """Scales and corrections for a plan of so many steps, unless they are there or tensors hold no values."""
    rounding: Rounding | None = getattr(model, "rounding", None)
    key = (count, model.scale)
    if rounding is not None and rounding.known != key and not next(model.parameters()).is_meta:
        _calibrate(model, count)
        rounding.known = key


@torch.no_grad()
def _calibrate(model: FlowModel, count: int) -> None:
    """Scales, then output corrections, of every layer and step on images of the plain sampler."""
    rounding: Any = model.rounding
    for what in ("scales", "fits") if rounding.correction else ("scales",):
        with _learning(rounding, what):
            x = noise(range(rounding.images), 1, (model.channels, model.resolution, model.resolution))
            x = x.to(next(model.parameters()))
            classes = (torch.arange(rounding.images) % model.classes).to(x.device)
            for step in model.euler(count):
                rounding.step = step["index"]
                x = x - step["dt"] * model.guided(x, step["t"], classes)
    rounding.step = 0


@contextmanager
def _learning(rounding: Rounding, what: str) -> Iterator[None]:
    rounding.learning = what
    try:
        yield
    finally:
        rounding.learning = None
