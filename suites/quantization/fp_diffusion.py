"""Low-bit floats for diffusion models: searched grids, learned rounding (Chen et al. 2024, arXiv 2408.06995).

A reconstruction. Per tensor the format (FP8: M = 2..4; FP4: M = 0..2) and range of the least squared error. Rounding
of weights is learned as in AdaRound on the float grid: w' = step (floor(w / step) + h(v)) with h a rectified sigmoid
that an annealed regulariser drives to 0 or 1; the loss is the squared error of the layer's output on pictures from all
times, inputs rounded meanwhile.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.quantization.cost import costed
from suites.quantization.grids import FloatFormat, float_rounded, float_step
from suites.quantization.layers import float_call
from suites.quantization.network import (
    Layer,
    calibration_batches,
    folded,
    needs_layers,
    observed_inputs,
    on_meta,
    say_inputs,
)
from suites.quantization.ranges import best_range, best_range_of_all, largest_of, places, sampled
from suites.quantization.rounding import FloatInputs, IntInputs, int_rounded, rounded_network

#: The rectified sigmoid reaches a little beyond 0 and 1, so that it can arrive there.
ZETA, GAMMA = 1.1, -0.1
#: What rounding is learned on: rows of a linear layer's inputs, pictures of a convolution's.
ROWS, PICTURES = 1024, 32


def formats_of(bits: int) -> list[FloatFormat]:
    """FP8: M = 2, 3, 4; FP4: M = 0, 1, 2."""
    return [FloatFormat(bits - 1 - m, m) for m in ((2, 3, 4) if bits == 8 else (0, 1, 2))]


def searched(x: Tensor, bits: int) -> tuple[FloatFormat, Tensor]:
    """Format and largest value of the least squared error for the numbers of x."""
    found, some, whole = [], sampled(x), largest_of(x.flatten())
    for form in formats_of(bits):
        largest = best_range(some, lambda y, top, form=form: float_rounded(y, form, top), whole=whole)  # type: ignore[misc]
        error = float((float_rounded(some, form, largest) - some).square().sum())
        found.append((error, form, largest.reshape(()).clone()))
    _, form, largest = min(found, key=lambda item: item[0])
    return form, largest


@costed
def fp_diffusion(
    model: nn.Module,
    *,
    bits: Literal[4, 8, 32] = 4,
    activation_bits: Literal[4, 8, 32] = 8,
    kind: Literal["fp", "int"] = "fp",
    rounding_steps: Count = 0,
    calibration_samples: PositiveInt = 64,
    seed: Count = 0,
) -> nn.Module:
    """The sampler's network with weights and activations in low-bit floats, or whole numbers beside them.

    Args:
        model: of linear layers and convolutions; 32 and 32 bits leave it as it is.
        bits: of a weight.
        activation_bits: of an activation.
        kind: floats of searched format, or symmetric whole numbers of searched range.
        rounding_steps: of each layer's learned rounding; 0 rounds to the nearest. Floats alone.
        calibration_samples: pictures on their way from noise that activations are taken from.
        seed: of the samples.

    Raises:
        ValueError: learned rounding of whole numbers.
    """
    if bits == activation_bits == 32:
        return model
    if kind == "int" and rounding_steps:
        raise ValueError("rounding_steps learns on float grids: set kind='fp'")
    folded(model)
    layers = needs_layers(model, "fp_diffusion")
    seen = (
        {} if on_meta(model) else observed_inputs(model, layers, calibration_batches(model, calibration_samples, seed))
    )
    weights, inputs = dict[str, Tensor](), dict[str, nn.Module | None]()
    for path, layer in layers.items():
        x = seen.get(path)
        inputs[path] = _inputs(layer, x, activation_bits, kind)
        weights[path] = layer.weight.detach()
        if bits != 32 and not layer.weight.is_meta:
            weights[path] = _weight(layer, x, inputs[path], bits, kind, rounding_steps)
    say_inputs(model, seen, inputs)
    model.zero_shares = {path: float((w == 0).double().mean()) for path, w in weights.items() if not w.is_meta}  # type: ignore[assignment]
    return rounded_network(
        model, layers, lambda path, _: weights[path], lambda path, _: inputs[path], bits, activation_bits
    )


def _inputs(layer: Layer, x: Tensor | None, bits: int, kind: str) -> nn.Module | None:
    if bits == 32:
        return None
    if x is None:
        ones = torch.ones((), device=layer.weight.device)
        return IntInputs(bits, ones) if kind == "int" else FloatInputs(formats_of(bits)[1], ones)
    if kind == "int":
        return IntInputs(bits, best_range_of_all(x, lambda y, top: int_rounded(y, bits, top)).reshape(()).clone())
    return FloatInputs(*searched(x, bits))


def _weight(layer: Layer, x: Tensor | None, inputs: nn.Module | None, bits: int, kind: str, steps: int) -> Tensor:
    weight = layer.weight.detach()
    if kind == "int":
        largest = best_range_of_all(weight, lambda y, top: int_rounded(y, bits, top)).reshape(())
        return int_rounded(weight, bits, largest)
    form, largest = searched(weight, bits)
    if not steps or x is None:
        return float_rounded(weight, form, largest)
    with torch.inference_mode(False), torch.enable_grad():
        return learned_rounding(layer, x.clone(), inputs, form, largest.clone(), steps)


class SoftRounding:
    """w' = step (floor(w / step) + h(v)) of a weight on a float grid."""

    def __init__(self, weight: Tensor, form: FloatFormat, largest: Tensor):
        clipped = torch.maximum(torch.minimum(weight, largest), -largest)
        self.largest = largest
        self.step = float_step(clipped, form, largest)
        self.floor = torch.floor(clipped / self.step)
        rest = (clipped / self.step - self.floor).clamp(1e-4, 1 - 1e-4)
        self.v = -torch.log((ZETA - GAMMA) / (rest - GAMMA) - 1)  # h(v) is the rest: it starts at the weight itself

    def height(self) -> Tensor:
        """h(v) in 0..1."""
        return ((ZETA - GAMMA) * torch.sigmoid(self.v) + GAMMA).clamp(0, 1)

    def weight(self, height: Tensor) -> Tensor:
        """The weight at a height of each rounding."""
        made = self.step * (self.floor + height)
        return torch.maximum(torch.minimum(made, self.largest), -self.largest)

    def hard(self) -> Tensor:
        """The weight with every rounding up or down."""
        return self.weight((self.height() >= 0.5).to(self.step.dtype))


def regulariser(height: Tensor, beta: float) -> Tensor:
    """Sum of 1 - |2 h - 1|^beta: zero where every height is 0 or 1."""
    return (1 - (2 * height - 1).abs().pow(beta)).sum()


def learned_rounding(
    layer: Layer, x: Tensor, inputs: nn.Module | None, form: FloatFormat, largest: Tensor, steps: int
) -> Tensor:
    """The rounding of a weight with the least squared error of the layer's output.

    On what it saw it is never worse than rounding to the nearest.
    """
    weight = layer.weight.detach().clone()
    sample = x if isinstance(layer, nn.Conv2d) else x.flatten(0, -2)
    count = min(len(sample), PICTURES if isinstance(layer, nn.Conv2d) else ROWS)
    sample = sample[places(len(sample), count).to(sample.device)]
    rounded_x = sample if inputs is None else inputs(sample)
    wanted = float_call(layer, sample, weight, layer.bias).detach()
    soft = SoftRounding(weight, form, largest)
    soft.v.requires_grad_(True)
    optimizer = torch.optim.Adam([soft.v], lr=1e-2)
    for step in range(steps):
        height = soft.height()
        error = (float_call(layer, rounded_x.detach(), soft.weight(height), layer.bias) - wanted).square().mean()
        beta = 20 - 18 * step / max(1, steps - 1)
        loss = error / wanted.square().mean().clamp(min=1e-12) + 1e-2 * regulariser(height, beta) / weight.numel()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        tried = [float_rounded(weight, form, largest), soft.hard()]
        errors = [float((float_call(layer, rounded_x, each, layer.bias) - wanted).square().sum()) for each in tried]
    return tried[int(errors[1] < errors[0])].detach()


def same_noise_sqnr(plain: Any, rounded: Any, batch: int = 8, steps: int = 10) -> float:
    """SQNR in dB of final pictures against the plain network's own from the same noise."""
    from suites.quantization.grids import sqnr_db

    made = []
    for each in (plain, rounded):
        model = copy.copy(each)
        plan = model.plan({"steps": steps})
        state = model.start(model.example_noise(batch, 0), model.example_cond(batch))
        with torch.no_grad():
            for step in plan:
                state = model.step(step["index"], state)
        made.append(model.finish(state))
    return sqnr_db(made[0], made[1])
