"""A network with every layer's weights and inputs rounded by given rules: what all simulated rows are made by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from suites.quantization.grids import SMALLEST, FloatFormat, float_rounded, symmetric_grid
from suites.quantization.layers import RoundedLayer
from suites.quantization.network import Layer, replaced
from suites.quantization.noise import Noise

WeightRule = Callable[[str, Tensor], Tensor]
InputRule = Callable[[str, Layer], nn.Module | None]


def rounded_network(
    model: nn.Module,
    layers: dict[str, Layer],
    weights: WeightRule,
    inputs: InputRule,
    weight_bits: float | dict[str, float],
    activation_bits: float | dict[str, float],
    code_bits: float | None = None,
) -> nn.Module:
    """The network with its layers replaced, labelled `simulated`; it says what its weights lost.

    Args:
        model: changed in place.
        layers: by path.
        weights: the rounded weight of a path.
        inputs: what rounds the inputs of a path; None leaves them.
        weight_bits: nominal, one number or by path.
        activation_bits: nominal, one number or by path.
        code_bits: of a weight without its share of scales, where `weight_bits` has that in it.
    """
    noise = Noise()
    for path, layer in layers.items():
        with torch.no_grad():
            made = layer.weight if layer.weight.is_meta else weights(path, layer.weight.detach())
        noise.add(layer.weight.detach(), made)
        layer.weight = nn.Parameter(made.to(layer.weight.dtype).detach().clone(memory_format=torch.contiguous_format))
        bits = weight_bits[path] if isinstance(weight_bits, dict) else weight_bits
        width = activation_bits[path] if isinstance(activation_bits, dict) else activation_bits
        replaced(model, path, RoundedLayer(layer, bits, inputs(path, layer), width, code_bits))
    model.execution, model.weight_sqnr_db = "simulated", noise.db  # type: ignore[assignment]
    return model


class FloatInputs(nn.Module):
    """Rounds inputs to a float grid whose largest value was fixed by calibration."""

    largest: Tensor

    def __init__(self, form: FloatFormat, largest: Tensor):
        super().__init__()
        self.form = form
        self.register_buffer("largest", largest)

    def get_extra_state(self) -> Tensor:
        """The format, for the state: exponent and mantissa."""
        return torch.tensor([self.form.exponent, self.form.mantissa])

    def set_extra_state(self, state: Tensor) -> None:
        """Take the format from a state."""
        self.form = FloatFormat(int(state[0]), int(state[1]))

    def forward(self, x: Tensor) -> Tensor:
        """The rounded values."""
        return float_rounded(x, self.form, self.largest)


class IntInputs(nn.Module):
    """Rounds inputs to a symmetric whole-number grid whose largest value was fixed by calibration."""

    largest: Tensor

    def __init__(self, bits: int, largest: Tensor):
        super().__init__()
        self.bits = bits
        self.register_buffer("largest", largest)

    def forward(self, x: Tensor) -> Tensor:
        """The rounded values."""
        return symmetric_grid(self.largest, self.bits)(x)


def int_rounded(x: Tensor, bits: int, largest: Tensor | float) -> Tensor:
    """X on the symmetric whole-number grid with this largest value."""
    high = 2 ** (bits - 1) - 1
    scale = (torch.as_tensor(largest, dtype=x.dtype, device=x.device) / high).clamp(min=SMALLEST)
    return torch.round(x / scale).clamp(-high, high) * scale


def output_error(layer: Any, x: Tensor, rounded: Tensor) -> float:
    """Squared error of a layer's outputs with other weights."""
    with torch.no_grad():
        wanted = layer(x)
        own = layer.weight.data
        layer.weight.data = rounded
        error = float((layer(x) - wanted).double().square().sum())
        layer.weight.data = own
    return error
