"""CacheQuant: a feature cache whose steps a dynamic program chooses, and rounding; Liu et al. 2025, arXiv 2503.01323.

The input of the last block upwards is kept; T steps are cut into ceil(T / I) groups whose features are nearest to
their first, and what is kept is corrected per step and channel by least squares. Ours: the calibration, of images of
the plain sampler; a skipped step of this U-Net also runs the one residual block at full resolution on its way down,
which makes its outer skip.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.rectified_flow import Course, FlowModel, noise
from suites.common.unet import Unet
from suites.diffusion.cache_schedule import Factors, chosen, corrected, even_firsts
from suites.diffusion.fake_quantised import calibrate, quantise
from suites.diffusion.subjects import as_kind, is_of_diffusers

BITS = {"fp32": None, "w8a8": (8, 8), "w4a8": (4, 8)}


def cachequant(
    model: nn.Module,
    *,
    interval: PositiveInt = 5,
    bits: Literal["fp32", "w8a8", "w4a8"] = "fp32",
    schedule: Literal["dp", "uniform"] = "dp",
    correction: bool = True,
    images: PositiveInt = 16,
) -> nn.Module:
    """The U-Net whose deep features are kept for some steps, and which may compute as if in few bits.

    Args:
        model: the U-Net of this house, or one of diffusers.
        interval: I; a full step for every I steps on average.
        bits: of weights and activations of convolutions and linear layers; numbers are rounded and multiplied in
            single precision, so that such a row has a quality and no time.
        schedule: full steps where the dynamic program puts them, or evenly.
        correction: of kept features, and of rounded layers' outputs, by least squares.
        images: of the calibration run.

    Raises:
        ValueError: the model is no U-Net, or one of diffusers that is to be rounded.
    """
    if is_of_diffusers(model, "cachequant"):
        from suites.diffusion.cachequant_diffusers import with_cache

        if bits != "fp32":
            raise ValueError("cachequant rounds networks of this house: set bits='fp32' for one of diffusers")
        return with_cache(model, interval, schedule, correction, images)  # type: ignore[arg-type]
    unet = as_kind(model, Unet, "cachequant", "digit_unet")
    unet.course = CacheQuant(interval, schedule, correction, images)
    widths = BITS[bits]
    if widths is not None:
        quantise(unet, *widths, images=images, correction=correction)
        unet.execution = "simulated"  # type: ignore[assignment]
        unet.nominal_bits, unet.nominal_activation_bits = widths  # type: ignore[assignment]
    return unet


class CacheQuant(Course):
    """Full steps keep a feature map per branch, the others use it; kept maps live in the state of the run."""

    def __init__(self, interval: int, schedule: str, correction: bool, images: int):
        self.interval, self.schedule, self.correction, self.images = interval, schedule, correction, images
        self._known: dict[tuple[int, float | None], tuple[list[int], Factors]] = {}
        self.factors: Factors = {}

    def plan(self, model: FlowModel, count: int) -> list[dict[str, Any]]:
        """Plain steps, each full or cached; the calibration runs here, once for each number of steps and guidance."""
        assert isinstance(model, Unet)
        key = (count, model.scale)
        if key not in self._known:
            self._known[key] = self._calibrated(model, count)
        calibrate(model, count)
        firsts, self.factors = self._known[key]
        skipped = model.branches * model.shallow_macs(model.resolution)
        return [
            step | ({"mode": "full"} if step["index"] in firsts else {"mode": "cached", "macs": skipped})
            for step in model.euler(count)
        ]

    def _calibrated(self, model: Unet, count: int) -> tuple[list[int], Factors]:
        """First steps of the groups, and factors and offsets of every skipped step; without values, even groups."""
        groups = math.ceil(count / self.interval)
        weight = next(model.parameters())
        if groups == count or weight.is_meta or (self.schedule == "uniform" and not self.correction):
            return even_firsts(count, groups), {}
        return chosen(features_of(model, count, self.images), self.interval, self.schedule, self.correction)

    def step(self, model: FlowModel, index: int, state: dict[str, Any]) -> dict[str, Any]:
        """An Euler step by the whole network, or by its outer part and the kept feature."""
        assert isinstance(model, Unet)
        now, kept = model.steps_planned[index], dict(state)

        def network(x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
            told = model.told(t)
            fine = model.beginning(x, told)
            if now["mode"] == "full":
                kept["feature"] = up = model.deep(fine, told, model.class_embed(classes)[:, None])
            else:
                up = corrected(state["feature"], self.factors.get(index))
            return model.ending(up, fine, told)

        _tell_step(model, index)
        velocity = model.guided(state["x"], now["t"], state["classes"], network)
        return {**kept, "x": state["x"] - now["dt"] * velocity}


def _tell_step(model: nn.Module, index: int) -> None:
    """Rounded layers have scales of their own for every step."""
    rounding = getattr(model, "rounding", None)
    if rounding is not None:
        rounding.step = index


@torch.no_grad()
def features_of(model: Unet, count: int, images: int) -> Tensor:
    """Deep features of every step of the plain sampler, [steps, images x branches, channels, side, side]."""
    x = noise(range(images), 1, (model.channels, model.resolution, model.resolution)).to(next(model.parameters()))
    classes = (torch.arange(images) % model.classes).to(x.device)
    found = []

    def network(x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        told = model.told(t)
        fine = model.beginning(x, told)
        found.append(model.deep(fine, told, model.class_embed(classes)[:, None]))
        return model.ending(found[-1], fine, told)

    for step in model.euler(count):
        x = x - step["dt"] * model.guided(x, step["t"], classes, network)
    return torch.stack(found)


def cache_bytes(branches: int, channels: int, side: int, size: int = 4) -> int:
    """Bytes that live between steps: one feature map a branch."""
    return branches * channels * side**2 * size


def plan_macs(count: int, interval: int, full: int, skipped: int) -> int:
    """MACs of a chain: K full steps and T - K skipped ones, K = ceil(T / I)."""
    groups = math.ceil(count / interval)
    return groups * full + (count - groups) * skipped
