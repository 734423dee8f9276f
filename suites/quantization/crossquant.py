"""CrossQuant: the step of an activation from its row's and its column's maximum (Liu et al. 2024, arXiv 2410.07505).

With t_i = max_j |x_ij| of a token and c_j = max_i |x_ij| of a channel the step is t_i^a c_j^(1-a) / (2^(N-1) - 1), a =
0.15. Nothing is clipped, since |x_ij| <= min(t_i, c_j). a = 1 rounds per token, a = 0 per channel. The share of numbers
that become zero, the paper's "quantization kernel", is `zero_share`.

`live` takes c from the sample at hand: simulated, because weights would have to be rounded anew for every sample.
`static` takes c from calibration: then c_j^(1-a) is multiplied into the weights before they are rounded, and what runs
is a product of whole numbers with a scale per token (codes beyond the calibrated c are clipped).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt, Rate
from suites.quantization.cost import costed
from suites.quantization.grids import SMALLEST
from suites.quantization.layers import IntLayer
from suites.quantization.network import calibration_batches, folded, layers_of, on_meta, put_codes, shown, watched
from suites.quantization.outliers import plant
from suites.quantization.rounding import rounded_network
from suites.quantization.whitepaper import rounded_weight

ALPHA = 0.15


def cross_step(x: Tensor, alpha: float, bits: int, column: Tensor | None = None) -> Tensor:
    """Steps of numbers [.., tokens, channels]; `column` [channels] stands for c where it is given."""
    row = x.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST)
    if column is None:
        column = x.abs().amax(dim=-2, keepdim=True)
    return row**alpha * column.clamp(min=SMALLEST) ** (1 - alpha) / (2 ** (bits - 1) - 1)


def cross_rounded(x: Tensor, alpha: float, bits: int) -> Tensor:
    """Numbers [.., tokens, channels] on their steps."""
    step = cross_step(x, alpha, bits)
    return torch.round(x / step) * step


def zero_share(x: Tensor, alpha: float, bits: int) -> float:
    """Share of the numbers of x that are rounded to zero, zeros themselves included."""
    return float((torch.round(x / cross_step(x, alpha, bits)) == 0).double().mean())


class CrossInputs(nn.Module):
    """Rounds inputs by rows and columns of the sample at hand; of inputs [batch, channels] each is a sample."""

    def __init__(self, alpha: float, bits: int):
        super().__init__()
        self.alpha, self.bits = alpha, bits

    def forward(self, x: Tensor) -> Tensor:
        """The rounded values."""
        return cross_rounded(as_samples(x), self.alpha, self.bits).reshape(x.shape)


def as_samples(x: Tensor) -> Tensor:
    """Inputs as [.., tokens, channels]: without an axis of tokens a sample has one, or a batch would share columns."""
    return x if x.ndim > 2 else x.unsqueeze(-2)


class CrossLayer(IntLayer):
    """Whole-number products with calibrated columns inside the weight and a scale per token."""

    column: Tensor

    def __init__(self, layer: nn.Linear, alpha: float, column: Tensor):
        scaled = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        power = column.clamp(min=SMALLEST) ** (1 - alpha)
        scaled.weight = nn.Parameter((layer.weight.detach() * power).detach())
        scaled.bias = layer.bias
        super().__init__(scaled)
        self.alpha = alpha
        self.register_buffer("column", power)

    def dense(self) -> Tensor:
        """The weight that the codes stand for, the columns taken out again."""
        return super().dense() / self.column

    def rounded_inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """int8 codes of the inputs, and the scale of each token."""
        scale = x.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST) ** self.alpha / 127
        return torch.round(x / (self.column * scale)).clamp(-127, 127).to(torch.int8), scale


@costed
def crossquant(
    model: nn.Module,
    *,
    bits: Literal[4, 6, 8, 32] = 8,
    alpha: Rate = ALPHA,
    weight_bits: Literal[4, 8, 32] = 8,
    group: PositiveInt = 128,
    form: Literal["live", "static"] = "live",
    outlier_channels: Count = 0,
    outlier_factor: Positive = 64.0,
    calibration_samples: PositiveInt = 32,
    seed: Count = 0,
) -> nn.Module:
    """The network with activations of its linear layers rounded by rows and columns; 32 and 32 bits leave it.

    Args:
        model: of linear layers.
        bits: of an activation.
        alpha: the row's power; 1 rounds per token, 0 per channel.
        weight_bits: of a weight: 8 per output channel, 4 in groups.
        group: inputs that share a scale of 4-bit weights.
        form: columns of the sample at hand (simulated), or of calibration (whole numbers, 8 and 8 bits).
        outlier_channels: planted in every norm by a rescale that leaves the network's function as it is.
        outlier_factor: of their values.
        calibration_samples: that static columns are taken from.
        seed: of the calibration samples and of the outliers' places.

    Of the network that comes back `zero_share` says how many of all calibration inputs are rounded to zero, in percent,
    and `zero_shares` what share of each layer's.

    Raises:
        ValueError: a form without a kernel, or no linear layer.
    """
    if form == "static" and (bits != 8 or weight_bits != 8):
        raise ValueError("form='static' multiplies int8 by int8: set bits=8 and weight_bits=8")
    plant(model, outlier_channels, outlier_factor, seed)
    if bits == weight_bits == 32:
        return model
    folded(model)
    layers = {path: layer for path, layer in layers_of(model).items() if isinstance(layer, nn.Linear)}
    if not layers:
        raise ValueError(f"crossquant rounds inputs of linear layers, and {type(model).__name__} has none")
    batches = [] if on_meta(model) or bits == 32 else calibration_batches(model, calibration_samples, seed)
    if form == "static":
        columns = column_maxima(model, layers, batches)
        _say_zeros(model, zero_counts(model, layers, batches, alpha, bits, columns))
        put_codes(model, layers, lambda path, layer: CrossLayer(layer, alpha, columns[path]))
        model.execution = "real-int"  # type: ignore[assignment]
        return model
    _say_zeros(model, zero_counts(model, layers, batches, alpha, bits))
    granularity = "group" if weight_bits == 4 else "channel"
    return rounded_network(
        model,
        layers,  # type: ignore[arg-type]
        lambda _, weight: rounded_weight(weight, weight_bits, granularity, True, group),
        lambda path, layer: None if bits == 32 else CrossInputs(alpha, bits),
        weight_bits,
        bits,
    )


def column_maxima(
    model: nn.Module, layers: dict[str, nn.Linear], batches: list[tuple[Tensor, ...]]
) -> dict[str, Tensor]:
    """C of each layer's inputs over calibration batches, [channels]; ones where there are shapes alone."""
    found = {path: torch.ones(layer.in_features, device=layer.weight.device) for path, layer in layers.items()}
    if not batches:
        return found
    seen: dict[str, Tensor] = {}

    def see(path: str, x: Tensor) -> None:
        largest = x.detach().abs().flatten(0, -2).amax(dim=0)
        seen[path] = torch.maximum(seen[path], largest) if path in seen else largest

    with watched(layers, see):
        shown(model, batches)
    return {**found, **seen}


def zero_counts(
    model: nn.Module,
    layers: dict[str, nn.Linear],
    batches: list[tuple[Tensor, ...]],
    alpha: float,
    bits: int,
    columns: dict[str, Tensor] | None = None,
) -> dict[str, tuple[int, int]]:
    """Of each layer's inputs over all batches how many are rounded to zero, the paper's explanatory variable, and all.

    Args:
        model: not rounded yet.
        layers: whose inputs are looked at, by path.
        batches: arguments of calibration.
        alpha: the token's power.
        bits: of an activation.
        columns: c of each layer where it was fixed by calibration; None for that of the sample at hand.
    """
    zeros, numbers = dict.fromkeys(layers, 0), dict.fromkeys(layers, 0)

    def see(path: str, x: Tensor) -> None:
        x = as_samples(x.detach())
        step = cross_step(x, alpha, bits, None if columns is None else columns[path])
        zeros[path] += int((torch.round(x / step) == 0).sum())
        numbers[path] += x.numel()

    with watched(layers, see):
        shown(model, batches)
    return {path: (zeros[path], count) for path, count in numbers.items() if count}


def _say_zeros(model: nn.Module, found: dict[str, tuple[int, int]]) -> None:
    """Leave on the network the share of each layer's inputs that become zero, and that of all in percent."""
    model.zero_shares = {path: zeros / count for path, (zeros, count) in found.items()}  # type: ignore[assignment]
    if found:
        zeros, count = (sum(each) for each in zip(*found.values(), strict=True))
        model.zero_share = 100 * zeros / count
