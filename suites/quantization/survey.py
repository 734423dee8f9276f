"""The axes of quantization as one factorial (Gholami et al. 2021, arXiv 2103.13630): no method of its own.

symmetry x granularity x bits x when ranges are taken x levels x simulated or integer-only. What does not exist is
refused: integer products need uniform symmetric weights of 8 bits and one scale a tensor or channel.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.quantization.cost import costed
from suites.quantization.grids import kmeans_grid, nearest, power_of_two_rounded
from suites.quantization.layers import Dynamic, IntLayer, Static
from suites.quantization.network import calibration_batches, folded, needs_layers, on_meta, put_codes
from suites.quantization.packing import effective_bits, matrix_bytes
from suites.quantization.ranges import grouped, ungrouped
from suites.quantization.rounding import rounded_network
from suites.quantization.whitepaper import activation_grids, int_layer, rounded_weight


@costed
def survey(
    model: nn.Module,
    *,
    bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 8,
    symmetric: bool = True,
    granularity: Literal["tensor", "channel", "group"] = "channel",
    group: PositiveInt = 32,
    ranges: Literal["static", "dynamic", "weight-only"] = "static",
    levels: Literal["uniform", "power2", "kmeans"] = "uniform",
    execution: Literal["simulated", "integer"] = "simulated",
    calibration_samples: PositiveInt = 256,
    seed: Count = 0,
) -> nn.Module:
    """The network at one point of the factorial; 32 bits leave it as it is.

    Args:
        model: of linear layers and convolutions.
        bits: of a weight; activations have as many.
        symmetric: weights without a zero point.
        granularity: what shares a scale of the weights.
        group: inputs that share one with `granularity="group"`.
        ranges: of activations: from calibration, of every input anew, or activations stay floats.
        levels: whole numbers, powers of two, or a code book by k-means.
        execution: rounded floats, or int8 products.
        calibration_samples: that static ranges are taken from.
        seed: of the calibration samples.

    Raises:
        ValueError: a point that no kernel has.
    """
    if bits == 32:
        return model
    integer = execution == "integer"
    if integer and (levels != "uniform" or bits != 8 or granularity == "group" or not symmetric):
        raise ValueError("execution='integer' needs uniform symmetric 8-bit weights, one scale a tensor or channel")
    if integer and ranges == "weight-only":
        raise ValueError("ranges='weight-only' leaves activations floats, which no product of whole numbers takes")
    if levels != "uniform" and not symmetric:
        raise ValueError(f"levels='{levels}' has no zero point that could move: leave symmetric=True")
    if levels == "kmeans" and granularity == "group":
        raise ValueError("levels='kmeans' has one code book a layer and no scales: leave granularity")
    folded(model)
    layers = needs_layers(model, "survey")
    batches = [] if on_meta(model) or ranges != "static" else calibration_batches(model, calibration_samples, seed)
    static = activation_grids(model, layers, batches, bits) if ranges == "static" else dict.fromkeys(layers)
    stored = {
        path: stored_bits(len(w.weight), w.weight[0].numel(), bits, granularity, group, symmetric, levels)
        for path, w in layers.items()
    }
    if integer:
        return _of_whole_numbers(model, layers, static, stored, granularity)

    def inputs(path: str, layer: nn.Module) -> nn.Module | None:
        grid = static[path]
        if ranges == "dynamic":
            return Dynamic(bits, whole=isinstance(layer, nn.Conv2d))
        return None if grid is None else Static(grid)

    return rounded_network(
        model,
        layers,
        lambda _, weight: levelled(weight, bits, symmetric, granularity, group, levels),
        inputs,
        stored,
        32 if ranges == "weight-only" else bits,
        bits,
    )


def levelled(weight: Tensor, bits: int, symmetric: bool, granularity: str, group: int, levels: str) -> Tensor:
    """A weight on its levels; a code book is one a layer."""
    if levels == "uniform":
        return rounded_weight(weight, bits, granularity, symmetric, group)
    if levels == "kmeans":
        return nearest(weight, kmeans_grid(weight, bits))
    groups = grouped(weight, granularity, group)
    made = power_of_two_rounded(groups, bits, groups.abs().amax(dim=-1, keepdim=True))
    return ungrouped(made, weight, granularity, group)


def stored_bits(
    rows: int, columns: int, bits: int, granularity: str, group: int, symmetric: bool, levels: str
) -> float:
    """Bits a weight that the point stores: codes, fp32 scales, one-byte zero points, or a code book of fp32."""
    if levels == "kmeans":
        return effective_bits(matrix_bytes(rows, columns, bits, scale_bytes=0) + 4 * 2**bits, rows * columns)
    zero = 0 if symmetric else 1
    stored = matrix_bytes(rows, columns, bits, granularity=granularity, group=group, zero_bytes=zero)
    return effective_bits(stored, rows * columns)


def _of_whole_numbers(
    model: nn.Module, layers: dict[str, Any], static: dict[str, Any], stored: dict[str, float], granularity: str
) -> nn.Module:
    """The network with int8 products in place of its layers, weights symmetric."""

    def made(path: str, layer: Any) -> IntLayer:
        found = int_layer(layer, static[path], granularity)
        found.nominal_bits = stored[path]
        return found

    put_codes(model, layers, made)
    model.execution = "real-int"  # type: ignore[assignment]
    return model
