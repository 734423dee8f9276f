"""LLM-FP4: formats and ranges of 4-bit floats searched by a layer's output (Liu et al. 2023, arXiv 2310.16836).

Weights: one format a layer, M = 0, 1, 2 of 4 bits (E = 3 - M) or M = 2..6 of 8, and a range per output channel: the
bias that min-max gives, times 0.01 + 0.0119 i, i = 0..100, by the least squared error of the layer's output on
calibration samples; weights and activations in turn, three rounds. Activations: a tensor's bias, and whole numbers k on
top of it by channel, so that a channel's factor 2^k is folded into the weight's exponents and costs nothing at run
time. Products of queries with keys and of scores with values are rounded as well, and embeddings.

`variant`: `fpq` (all of it), `search` (without channels), `minmax_fp4` (E2M1), `minmax_int4`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.decoder import Decoder
from suites.common.decoder_cache import Keeper, Kept, behind
from suites.quantization.cost import costed
from suites.quantization.grids import FloatFormat, float_format, float_rounded
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
from suites.quantization.outliers import plant
from suites.quantization.ranges import places
from suites.quantization.rounding import FloatInputs, IntInputs, int_rounded, rounded_network


def formats_of(bits: int) -> list[FloatFormat]:
    """Candidates: M = 0, 1, 2 of 4 bits, M = 2..6 of 8.

    Raises:
        ValueError: other widths.
    """
    mantissas = {4: range(3), 8: range(2, 7)}.get(bits)
    if mantissas is None:
        raise ValueError(f"bits={bits}: LLM-FP4 searches formats of 4 and of 8 bits")
    return [FloatFormat(bits - 1 - m, m) for m in mantissas]


def candidates(bias: Tensor, count: int = 101) -> list[Tensor]:
    """Bias x (0.01 + 0.0119 i) for i = 0..100, or fewer evenly between."""
    if count == 1:
        return [bias]
    return [bias * (0.01 + 0.0119 * 100 * i / (count - 1)) for i in range(count)]


def channel_powers(largest: Tensor, form: FloatFormat, bias: Tensor | None = None) -> Tensor:
    """K of each channel: its rounded bias beside the tensor's rounded bias t, limited to 0..2^E - 1.

    Args:
        largest: max |x| of each channel.
        form: of the activations.
        bias: of the tensor; None for the smallest of the channels'.
    """
    own = torch.as_tensor(form.bias(largest.clamp(min=1e-20)))
    t = torch.round(own.min() if bias is None else bias)
    return (torch.round(own).clamp(min=t, max=t + 2**form.exponent - 1) - t).to(largest.dtype)


@costed
def llm_fp4(
    model: nn.Module,
    *,
    variant: Literal["fpq", "search", "minmax_fp4", "minmax_int4", "off"] = "fpq",
    bits: Literal[4, 8] = 4,
    activation_bits: Literal[4, 8] = 4,
    search: PositiveInt = 101,
    rounds: PositiveInt = 3,
    rows: PositiveInt = 128,
    outlier_channels: Count = 0,
    outlier_factor: Positive = 16.0,
    calibration_samples: PositiveInt = 32,
    seed: Count = 0,
) -> nn.Module:
    """The network in searched low-bit floats; "off" leaves it as it is.

    Args:
        model: of linear layers; a decoder's attention products are rounded too.
        variant: what is searched.
        bits: of a weight.
        activation_bits: of an activation.
        search: candidates of a bias.
        rounds: of weights and activations in turn.
        rows: of a layer's inputs that errors are taken on.
        outlier_channels: planted in every norm by a rescale that leaves the network's function as it is.
        outlier_factor: of their values.
        calibration_samples: whose activations are seen.
        seed: of the samples and of the outliers' places.
    """
    plant(model, outlier_channels, outlier_factor, seed)
    if variant == "off":
        return model
    folded(model)
    layers = needs_layers(model, "llm_fp4")
    seen = (
        {} if on_meta(model) else observed_inputs(model, layers, calibration_batches(model, calibration_samples, seed))
    )
    given = {path: Given(_rows(x, rows, layers[path]), channel_maxima(layers[path], x)) for path, x in seen.items()}
    weights: dict[str, Tensor] = {}
    inputs: dict[str, nn.Module] = {}
    for path, layer in layers.items():
        found = _searched(layer, given.get(path), variant, (bits, activation_bits), (search, rounds))
        inputs[path], weights[path] = found
    say_inputs(model, seen, inputs)
    rounded_network(model, layers, lambda path, _: weights[path], lambda path, _: inputs[path], bits, activation_bits)
    if isinstance(model, Decoder):
        _round_the_rest(model, variant, bits, activation_bits)
    return model


@dataclass(frozen=True)
class Given:
    """What a layer was given: some rows, which errors are taken on, and max |x| of each channel over all of them."""

    rows: Tensor
    most: Tensor


def _rows(x: Tensor, rows: int, layer: Layer) -> Tensor:
    """Rows of a layer's inputs, spread over all; whole pictures of a convolution."""
    flat = x if isinstance(layer, nn.Conv2d) else x.flatten(0, -2)
    count = min(len(flat), max(1, rows // 16) if isinstance(layer, nn.Conv2d) else rows)
    return flat[places(len(flat), count).to(flat.device)]


def channel_axis(layer: Layer, x: Tensor) -> int:
    """Where the channels of a layer's inputs are, and of its outputs."""
    return 1 if isinstance(layer, nn.Conv2d) else x.ndim - 1


def channel_maxima(layer: Layer, x: Tensor) -> Tensor:
    """Max |x| of each channel over all that a layer was given: a range by some rows would cut the others off."""
    axis = channel_axis(layer, x)
    return x.abs().amax(dim=[d for d in range(x.ndim) if d != axis])


def _searched(
    layer: Layer, given: Given | None, variant: str, bits: tuple[int, int], effort: tuple[int, int]
) -> tuple[nn.Module, Tensor]:
    """What rounds the inputs of a layer, and its rounded weight."""
    weight = layer.weight.detach()
    largest_w = weight.flatten(1).abs().amax(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
    largest_x = torch.ones((), device=weight.device) if given is None else given.most.max()
    if variant == "minmax_int4":
        return IntInputs(bits[1], largest_x), int_rounded(weight, bits[0], largest_w)
    plain = float_format("e2m1") if bits[0] == 4 else float_format("e4m3")
    plain_x = float_format("e2m1") if bits[1] == 4 else float_format("e4m3")
    if variant == "minmax_fp4" or given is None:
        return FloatInputs(plain_x, largest_x), float_rounded(weight, plain, largest_w)
    with torch.no_grad():
        return _Search(layer, given, variant == "fpq", bits, effort).found()


class _Search:
    """Formats and biases of one layer by the squared error of its output."""

    def __init__(self, layer: Layer, given: Given, channels: bool, bits: tuple[int, int], effort: tuple[int, int]):
        self.layer, self.x, self.most, self.channels = layer, given.rows, given.most, channels
        self.forms_w, self.forms_x = formats_of(bits[0]), formats_of(bits[1])
        self.count, self.rounds = effort
        self.weight = layer.weight.detach()
        self.wanted = self._call(self.x, self.weight)
        self.axis = channel_axis(layer, self.x)

    def found(self) -> tuple[nn.Module, Tensor]:
        """The inputs' rounding and the rounded weight after all rounds."""
        weight, inputs = self.weight, nn.Identity()
        for _ in range(self.rounds):
            weight = self._best_weight(inputs(self.x))
            inputs = self._best_inputs(weight)  # type: ignore[assignment]
        return inputs, weight

    def _call(self, x: Tensor, weight: Tensor) -> Tensor:
        return float_call(self.layer, x, weight, None)

    def _best_weight(self, x: Tensor) -> Tensor:
        """The weight in the one format of the least error, each output channel on the range of its own least error."""
        tried = [self._best_ranges(x, form) for form in self.forms_w]
        return min(tried, key=lambda each: each[0])[1]

    def _best_ranges(self, x: Tensor, form: FloatFormat) -> tuple[float, Tensor]:
        """The error of a format over all channels, and the weight in it."""
        shape = (-1, *[1] * (self.weight.ndim - 1))
        largest = self.weight.flatten(1).abs().amax(dim=1).clamp(min=1e-20)
        best = torch.full_like(largest, torch.inf)
        made = self.weight.clone()
        for bias in candidates(torch.as_tensor(form.bias(largest)), self.count):
            tried = float_rounded(self.weight, form, torch.as_tensor(form.largest(bias)).reshape(shape))
            error = (self._call(x, tried) - self.wanted).square()
            dims = [d for d in range(error.ndim) if d != self.axis]
            each = error.sum(dim=dims)
            better = (each < best) & each.isfinite()
            best = torch.where(better, each, best)
            made = torch.where(better.reshape(shape), tried, made)
        return float(best.sum()), made

    def _best_inputs(self, weight: Tensor) -> FloatInputs:
        """The inputs' format, bias and channel powers of the least error."""
        largest = self.most.clamp(min=1e-20)
        best, kept = torch.inf, FloatInputs(self.forms_x[0], largest.max())
        for form in self.forms_x:
            powers = channel_powers(largest, form) if self.channels else torch.zeros_like(largest)
            start = torch.as_tensor(form.bias(largest.max()))
            for bias in candidates(start, self.count):
                top = torch.as_tensor(form.largest(bias))
                shape = (-1, 1, 1) if self.axis == 1 and self.x.ndim == 4 else (-1,)
                grid = (top * torch.exp2(-powers)).reshape(shape) if self.channels else top
                error = float((self._call(float_rounded(self.x, form, grid), weight) - self.wanted).square().sum())
                if error < best:
                    best, kept = error, FloatInputs(form, grid)
        return kept


# ---------------------------------------------------------------------------------------------- the rest of a decoder


def _round_the_rest(model: Decoder, variant: str, bits: int, activation_bits: int) -> None:
    """Embeddings, and the operands of both attention products, by their extremes."""
    if not model.embed.weight.is_meta:
        rows = model.embed.weight.detach()
        largest = rows.abs().amax(dim=1, keepdim=True)
        model.embed.weight = nn.Parameter(_extremes(rows, variant, bits, largest))
    model.embed.nominal_bits = float(bits)  # type: ignore[assignment]
    for block in model.blocks:
        if isinstance(getattr(block.attention, "keeper", None), Keeper):
            block.attention.keeper = RoundedKeeper(variant, activation_bits)


def _extremes(x: Tensor, variant: str, bits: int, largest: Tensor) -> Tensor:
    if variant == "minmax_int4":
        return int_rounded(x, bits, largest)
    return float_rounded(x, float_format("e2m1" if bits == 4 else "e4m3"), largest)


class RoundedKeeper(Keeper):
    """A plain cache whose operands of both products are rounded, each token by its own maximum."""

    def __init__(self, variant: str, bits: int):
        super().__init__()
        self.variant, self.bits = variant, bits
        self.nominal_activation_bits = float(bits)

    def rounded(self, x: Tensor) -> Tensor:
        """Numbers on the grid of each token's maximum."""
        return _extremes(x, self.variant, self.bits, x.abs().amax(dim=-1, keepdim=True))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of a whole sequence."""
        return self._attended(q, k, v, behind(q.shape[2], k.shape[2], q.device))

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Any) -> tuple[Tensor, Kept]:
        """Attention of further tokens, and what is kept afterwards."""
        kept = kept.extended(k, v, self.room)
        mask = None if q.shape[2] == 1 else behind(q.shape[2], kept.used, q.device)
        return self._attended(q, kept.k.filled, kept.v.filled, mask), kept

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        shared = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(shared, dim=1) if shared > 1 else x for x in (k, v))
        scores = self.rounded(q) @ self.rounded(k).transpose(-2, -1) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else scores + mask
        return self.rounded(scores.softmax(dim=-1)) @ self.rounded(v)
