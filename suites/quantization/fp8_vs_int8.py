"""The same bits as a whole-number or as a float grid (van Baalen et al. 2023, arXiv 2303.17951).

Per layer the range with the least squared error (a line search), weights per output channel, activations per tensor.
With `training_steps` the network learns on, straight-through. Which grid is better follows from the distribution
(`sqnr_of`): whole numbers where values are spread evenly, floats where there are outliers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.finetuning import finetuned, teacher_for
from suites.quantization.cost import costed, told_elsewhere
from suites.quantization.grids import float_format, float_rounded, sqnr_db
from suites.quantization.layers import LayerLike, straight_through
from suites.quantization.network import (
    Layer,
    calibration_batches,
    folded,
    learning_loss,
    needs_layers,
    observed_inputs,
    on_meta,
    replaced,
)
from suites.quantization.noise import Noise
from suites.quantization.ranges import best_range, best_range_of_all, grouped, ungrouped
from suites.quantization.rounding import FloatInputs, IntInputs, int_rounded, rounded_network


def rounding_of(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """`rounding(x, largest)` of a format: int<b> or e<E>m<M>."""
    if name.startswith("int"):
        bits = int(name[3:])
        return lambda x, largest: int_rounded(x, bits, largest)
    form = float_format(name)
    return lambda x, largest: float_rounded(x, form, largest)


def bits_of(name: str) -> int:
    """Bits of a number of the format."""
    return int(name[3:]) if name.startswith("int") else float_format(name).bits


@costed
def fp8_vs_int8(
    model: nn.Module,
    *,
    format: Literal["int8", "e2m5", "e3m4", "e4m3", "e5m2", "int4", "e1m2", "e2m1", "e3m0", "off"] = "e4m3",
    calibration_samples: PositiveInt = 64,
    training_steps: Count = 0,
    seed: Count = 0,
) -> nn.Module:
    """The network with weights and activations on one grid; "off" leaves it as it is.

    Args:
        model: of linear layers and convolutions.
        format: whole numbers or exponent and mantissa.
        calibration_samples: that the activations' ranges are searched on.
        training_steps: batches to learn from under rounding; 0 for none.
        seed: of the calibration samples.
    """
    if format == "off":
        return model
    teacher = teacher_for(folded(model), training_steps)
    layers, rounding = needs_layers(model, "fp8_vs_int8"), rounding_of(format)
    largest = input_ranges(model, layers, rounding, calibration_samples, seed)
    if training_steps:
        for path, layer in layers.items():
            replaced(model, path, LearningRounded(layer, rounding, largest[path]))
        settings = {"format": format, "samples": calibration_samples}
        with told_elsewhere():
            finetuned(model, teacher, fp8_vs_int8, settings, training_steps, loss=learning_loss(model))
        layers = {path: model.get_submodule(path).layer for path in layers}  # type: ignore[misc]

    def inputs(path: str, _: Layer) -> nn.Module:
        if format.startswith("int"):
            return IntInputs(bits_of(format), largest[path])
        return FloatInputs(float_format(format), largest[path])

    return rounded_network(
        model, layers, lambda _, w: best_weight(w, rounding), inputs, bits_of(format), bits_of(format)
    )


def best_weight(weight: Tensor, rounding: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A weight on the grid of the best range of each output channel."""
    groups = grouped(weight, "channel")
    return ungrouped(rounding(groups, best_range(groups, rounding)), weight, "channel")


def input_ranges(
    model: nn.Module, layers: dict[str, Layer], rounding: Callable[[Tensor, Tensor], Tensor], samples: int, seed: int
) -> dict[str, Tensor]:
    """The best largest value of each layer's inputs, and on the network what they lose; ones for shapes alone."""
    if on_meta(model):
        return {path: torch.ones((), device="meta") for path in layers}
    seen = observed_inputs(model, layers, calibration_batches(model, samples, seed))
    found, noise = {}, Noise()
    for path in layers:
        x = seen.get(path, torch.ones(1)).flatten()
        found[path] = best_range_of_all(x, rounding).reshape(()).clone()
        noise.add(x, rounding(x, found[path]))
    model.activation_sqnr_db = noise.db  # type: ignore[assignment]
    return found


class LearningRounded(LayerLike):
    """A layer that learns under rounding with fixed input ranges; weights by the range of each channel's maximum."""

    largest: Tensor

    def __init__(self, layer: Layer, rounding: Callable[[Tensor, Tensor], Tensor], largest: Tensor):
        super().__init__()
        self.take_shape(layer)
        self.layer, self.rounding = layer, rounding
        self.register_buffer("largest", largest)

    @property
    def weight(self) -> Tensor:
        """The float weight."""
        return self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        x = x.clamp(-self.largest, self.largest)
        weight = self.layer.weight
        groups = grouped(weight.detach(), "channel")
        made = ungrouped(self.rounding(groups, groups.abs().amax(dim=-1, keepdim=True)), weight, "channel")
        return self.call(
            straight_through(x, self.rounding(x.detach(), self.largest)),
            straight_through(weight, made),
            self.layer.bias,
        )


def sqnr_of(x: Tensor, name: str, shares: int = 400) -> float:
    """SQNR in dB of numbers on a format's grid of the best range.

    Args:
        x: numbers.
        name: of the format.
        shares: candidates of the range, evenly between nothing and max |x|.
    """
    rounding = rounding_of(name)
    flat = x.flatten()
    candidates = tuple((i + 1) / shares for i in range(shares))
    return sqnr_db(flat, rounding(flat, best_range(flat, rounding, candidates)))
