"""Uniform affine quantization of whole networks, after training or during it (Krishnamoorthi 2018, arXiv 1806.08342).

Batch normalisations are folded first. Weights: symmetric or affine, one scale a tensor or an output channel (section
3.1). Activations: affine, one scale a tensor, ranges from calibration batches. With `training_steps` the network learns
under rounding: straight-through gradients, ranges as moving averages (section 3.2); norms are folded before, so that
their statistics are frozen from the start.

The kernel says what runs: `simulated` rounds in floats, `int8` multiplies whole numbers by torch's integer product,
`torch` is torch's own static int8, `onnxruntime` and `openvino` a file of int8 layers, the same one, for that runtime.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.finetuning import finetuned, teacher_for
from suites.quantization.cost import costed, told_elsewhere
from suites.quantization.grids import Affine, affine_grid, symmetric_grid
from suites.quantization.layers import IntLayer, LayerLike, Static, straight_through
from suites.quantization.network import (
    Layer,
    calibration_batches,
    folded,
    learning_loss,
    needs_layers,
    on_meta,
    put_codes,
    replaced,
    shown,
    watched,
)
from suites.quantization.ranges import Observer, grouped, ungrouped
from suites.quantization.rounding import rounded_network
from suites.quantization.runtime_int8 import runtime_int8
from suites.quantization.torch_int8 import static_int8

#: Kernels of another runtime, which read a file.
RUNTIMES = ("onnxruntime", "openvino")
#: Decay of ranges while learning.
DECAY = 0.99


@costed
def whitepaper(
    model: nn.Module,
    *,
    bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 8,
    activation_bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 8,
    granularity: Literal["tensor", "channel"] = "channel",
    symmetric: bool = True,
    kernel: Literal["simulated", "int8", "torch", "onnxruntime", "openvino"] = "simulated",
    percentile: Annotated[float, Field(gt=50, le=100)] = 100.0,
    calibration_samples: PositiveInt = 256,
    training_steps: Count = 0,
    seed: Count = 0,
) -> nn.Module:
    """The network with rounded weights and activations; 32 bits leave a side as it is, 32 and 32 the network.

    Args:
        model: of linear layers and convolutions.
        bits: of a weight.
        activation_bits: of an activation.
        granularity: one scale for a weight, or one for each of its output channels.
        symmetric: whether the weights' zero point is 0; activations are affine.
        kernel: what multiplies; all but `simulated` need 8 and 8 bits and symmetric weights. A row of a
            runtime's kernels runs with `backends: [onnxruntime]` or `[openvino]`.
        percentile: of the activations' magnitudes that their range keeps.
        calibration_samples: that the ranges are taken from.
        training_steps: batches of quantization-aware training; 0 for none.
        seed: of the calibration samples.

    Raises:
        ValueError: settings that no kernel has.
    """
    if bits == activation_bits == 32:
        return model
    if kernel != "simulated" and (bits != 8 or activation_bits != 8 or not symmetric):
        raise ValueError(f'kernel="{kernel}" multiplies symmetric 8-bit weights by 8-bit activations: set both to 8')
    if kernel in ("torch", *RUNTIMES) and training_steps:
        raise ValueError(f'kernel="{kernel}" calibrates by itself: learn with kernel="simulated" or "int8"')
    if kernel in ("torch", *RUNTIMES) and percentile != 100:
        raise ValueError(f'kernel="{kernel}" takes ranges by itself: leave percentile=100')
    if kernel == "torch" and granularity == "tensor":
        raise ValueError('kernel="torch" has a scale for each output channel: leave granularity="channel"')
    if kernel in RUNTIMES:
        return runtime_int8(model, granularity == "channel", calibration_samples, seed)
    teacher = teacher_for(folded(model), training_steps)
    layers = needs_layers(model, "whitepaper")
    batches = [] if on_meta(model) else calibration_batches(model, calibration_samples, seed)
    if kernel == "torch":
        return static_int8(model, batches)
    grids = activation_grids(model, layers, batches, activation_bits, percentile)
    if training_steps:
        settings = {"bits": bits, "activation_bits": activation_bits, "granularity": granularity}
        learned = settings | {"symmetric": symmetric, "percentile": percentile, "samples": calibration_samples}
        _learn(model, teacher, layers, grids, learned, training_steps)
        grids = {path: model.get_submodule(path).input_grid() for path in layers}  # type: ignore[operator]
        layers = {path: model.get_submodule(path).layer for path in layers}  # type: ignore[misc]
    if kernel == "int8":
        put_codes(model, layers, lambda path, layer: int_layer(layer, grids[path], granularity))
        model.execution = "real-int"  # type: ignore[assignment]
        return model
    return rounded_network(
        model,
        layers,
        lambda _, weight: rounded_weight(weight, bits, granularity, symmetric),
        lambda path, _: static(grids[path]),
        bits,
        activation_bits,
    )


def activation_grids(
    model: nn.Module, layers: dict[str, Layer], batches: list[tuple[Tensor, ...]], bits: int, percentile: float = 100.0
) -> dict[str, Affine | None]:
    """The affine grid of each layer's inputs from calibration batches; None for 32 bits.

    Without batches (shapes alone) a grid of ones stands in.
    """
    if bits == 32:
        return dict.fromkeys(layers)
    if not batches:
        like = next(iter(layers.values())).weight
        ones = torch.ones((), dtype=like.dtype, device=like.device)
        return {path: Affine(ones, torch.zeros_like(ones), 0, 2**bits - 1) for path in layers}
    observers = {path: Observer(percentile) for path in layers}
    with watched(layers, lambda path, x: observers[path].see(x)):
        shown(model, batches)
    return {path: _grid_of(seen, bits, layers[path]) for path, seen in observers.items()}


def static(grid: Affine | None) -> Static | None:
    """What rounds inputs to a grid; None without one."""
    return None if grid is None else Static(grid)


def _grid_of(seen: Observer, bits: int, layer: Layer) -> Affine:
    zero = torch.zeros((), dtype=layer.weight.dtype, device=layer.weight.device)
    if seen.least is None or seen.largest is None:  # a layer that calibration never ran
        return affine_grid(zero - 1, zero + 1, bits)
    return affine_grid(seen.least.clone(), seen.largest.clone(), bits)


def rounded_weight(weight: Tensor, bits: int, granularity: str, symmetric: bool, size: int = 128) -> Tensor:
    """A weight on the grid of its extremes, per tensor, output channel, group or block; 32 bits leave it."""
    if bits == 32:
        return weight
    groups = grouped(weight, granularity, size)
    return ungrouped(weight_grid(groups, bits, symmetric)(groups), weight, granularity, size)


def weight_grid(groups: Tensor, bits: int, symmetric: bool) -> Affine:
    """The min-max grid of numbers that share a scale in the last axis."""
    if symmetric:
        return symmetric_grid(groups.abs().amax(dim=-1, keepdim=True), bits)
    return affine_grid(groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True), bits)


def int_layer(layer: Layer, grid: Affine | None, granularity: str) -> IntLayer:
    """Symmetric int8 weights of a scale for each tensor or output channel; inputs by the grid, or dynamic without."""
    groups = grouped(layer.weight.detach(), granularity)
    found = weight_grid(groups, 8, True)
    codes, scale = ungrouped(found.codes(groups), layer.weight, granularity), found.scale.flatten()
    return IntLayer(layer, grid, codes, scale.expand(len(layer.weight)).clone())


# ---------------------------------------------------------------------------------------------- while learning


class LearningLayer(LayerLike):
    """A layer that learns under rounding: its float weight is rounded in every call, its inputs by a moving range."""

    least: Tensor
    largest: Tensor

    def __init__(self, layer: Layer, grid: Affine | None, bits: int, activation_bits: int, how: tuple[str, bool]):
        super().__init__()
        self.take_shape(layer)
        self.layer, self.bits, self.activation_bits = layer, bits, activation_bits
        self.granularity, self.symmetric = how
        least = torch.zeros(()) if grid is None else grid.values(grid.scale * 0 + grid.low)
        largest = torch.ones(()) if grid is None else grid.values(grid.scale * 0 + grid.high)
        self.register_buffer("least", least.clone())
        self.register_buffer("largest", largest.clone())

    @property
    def weight(self) -> Tensor:
        """The float weight."""
        return self.layer.weight

    def input_grid(self) -> Affine | None:
        """The grid of the inputs as it has been learned."""
        return None if self.activation_bits == 32 else affine_grid(self.least, self.largest, self.activation_bits)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs; while training, ranges move."""
        if self.training and self.activation_bits != 32:
            with torch.no_grad():
                self.least.mul_(DECAY).add_((1 - DECAY) * x.amin())
                self.largest.mul_(DECAY).add_((1 - DECAY) * x.amax())
        grid = self.input_grid()
        if grid is not None:
            least, largest = grid.values(grid.scale * 0 + grid.low), grid.values(grid.scale * 0 + grid.high)
            clipped = torch.minimum(torch.maximum(x, least), largest)
            x = straight_through(clipped, grid(x))
        weight = self.layer.weight
        rounded = rounded_weight(weight.detach(), self.bits, self.granularity, self.symmetric)
        return self.call(x, straight_through(weight, rounded), self.layer.bias)


def _learn(
    model: nn.Module,
    teacher: nn.Module | None,
    layers: dict[str, Layer],
    grids: dict[str, Affine | None],
    settings: dict[str, Any],
    steps: int,
) -> None:
    how = (settings["granularity"], settings["symmetric"])
    for path, layer in layers.items():
        made = LearningLayer(layer, grids[path], settings["bits"], settings["activation_bits"], how)
        replaced(model, path, made)
    with told_elsewhere():
        finetuned(model, teacher, whitepaper, settings, steps, loss=learning_loss(model))


# ---------------------------------------------------------------------------------------------- a planted failure


def blown_up(first: nn.Conv2d, second: nn.Conv2d, channel: int, factor: float) -> None:
    """Multiply one output channel of a convolution and divide it out in the next: the same network with an outlier.

    Exact with a ReLU between them and a positive factor. One scale for the whole weight then fails, one per channel
    does not. The second may be depthwise: then its own filter of that channel is divided.

    Raises:
        ValueError: the factor is not positive.
    """
    if factor <= 0:
        raise ValueError(f"factor={factor}: a ReLU lets only positive factors through")
    with torch.no_grad():
        first.weight[channel] *= factor
        if first.bias is not None:
            first.bias[channel] *= factor
        if second.groups == 1:
            second.weight[:, channel] /= factor
        else:
            second.weight[channel] /= factor
