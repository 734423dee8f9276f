"""What each kind of layer of a network reaches of the machine: its share of the time, of the peak and of the bandwidth.

With t the measured time of the layers of a kind, Tc their operations over the peak of their arithmetic and Tm their
bytes over the DRAM bandwidth (`bench.analysis.roofline`), the share of the peak is sum Tc / sum t and that of the
bandwidth sum Tm / sum t. Above 1 is possible and kept: data that stay in a cache, or an algorithm that multiplies less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.analysis.roofline import Bar, bar_of
from bench.analysis.roofline_of_record import layers_of
from bench.store.records import Record

CONVOLUTION, POINTWISE, GROUPED = "convolution", "pointwise convolution", "depthwise or grouped convolution"
TRANSPOSED, LINEAR, ATTENTION = "transposed convolution", "linear (matrix product)", "attention"
OF_ACTIVATIONS, FOURIER, MIXED = "product of activations", "Fourier transform", "several kinds of products"
NORM, SOFTMAX, ACTIVATION, POOLING = "normalisation", "softmax", "activation function", "pooling"
OTHER = "elementwise and moving"
#: Every kind in the order of tables: those with products first.
KINDS = (
    CONVOLUTION, POINTWISE, GROUPED, TRANSPOSED, LINEAR, ATTENTION, OF_ACTIVATIONS, FOURIER, MIXED, NORM, SOFTMAX,
    ACTIVATION, POOLING, OTHER,
)  # fmt: skip

_OF_WEIGHTS = frozenset({"addmm", "mm", "linear", "mv", "addmv", "matmul", "_int_mm", "_scaled_mm"})
_OF_TWO = frozenset({"bmm", "baddbmm"})
_ACTIVATIONS = frozenset({
    "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "silu", "silu_", "gelu", "gelu_", "hardswish", "hardswish_",
    "hardsigmoid", "hardsigmoid_", "sigmoid", "sigmoid_", "tanh", "tanh_", "leaky_relu", "leaky_relu_", "elu", "elu_",
    "mish", "mish_", "softplus", "prelu", "_prelu_kernel", "glu",
})  # fmt: skip
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


@dataclass(frozen=True)
class KindShare:
    """The layers of one kind and arithmetic in one network; times in ms, shares as fractions.

    `of_peak` is None where the kind makes no products or a peak is not known, `of_bandwidth` where bytes or the
    bandwidth are not known.
    """

    kind: str
    dtype: str
    layers: int
    time_ms: float
    of_time: float
    of_peak: float | None
    of_bandwidth: float | None


def shares(record: Record) -> list[KindShare]:
    """The kinds of layers of a record in the order of `KINDS`; empty where its layers have no times."""
    rows = record.get("layers") or []
    if not rows:
        return []
    members: dict[tuple[str, str], list[Bar]] = {}
    for row, layer in zip(rows, layers_of(record)[0], strict=True):
        if layer.time_ms is not None and math.isfinite(layer.time_ms):
            members.setdefault((kind_of(row), layer.dtype), []).append(bar_of(layer))
    whole = sum(bar.time_ms or 0.0 for bars in members.values() for bar in bars)
    if whole <= 0:
        return []
    return [
        _share(kind, dtype, bars, whole)
        for (kind, dtype), bars in sorted(members.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1]))
    ]


def _share(kind: str, dtype: str, bars: list[Bar], whole: float) -> KindShare:
    time = sum(bar.time_ms or 0.0 for bar in bars)
    compute = [bar.compute_ms for bar in bars]
    memory = [bar.memory_ms for bar in bars]
    makes_products = any(bar.ops for bar in bars)
    return KindShare(
        kind,
        dtype,
        len(bars),
        time,
        time / whole,
        _over(compute, time) if makes_products else None,
        _over(memory, time),
    )


def _over(parts: Iterable[float | None], time: float) -> float | None:
    known = list(parts)
    return None if time <= 0 or None in known else sum(part or 0.0 for part in known) / time


def kind_of(row: Mapping[str, Any]) -> str:
    """The kind of a record's layer row, by its operators and shapes; one of `KINDS`."""
    names = {str(name).removeprefix("aten::") for name in row.get("operators") or ()}
    products = {kind for name in names if (kind := _product(name)) is not None}
    if products == {CONVOLUTION}:
        return _convolution(row)
    if products == {OF_ACTIVATIONS}:
        return ATTENTION if any("softmax" in name for name in names) else OF_ACTIVATIONS
    if products:
        return products.pop() if len(products) == 1 else MIXED
    return _without_products(names)


def _without_products(names: set[str]) -> str:
    if any(name.endswith(_NORMS) for name in names):
        return NORM
    if any("softmax" in name for name in names):
        return SOFTMAX
    if any("pool" in name for name in names):
        return POOLING
    return ACTIVATION if names and names <= _ACTIVATIONS else OTHER


def _product(name: str) -> str | None:
    """Which products an operator makes; None where it makes none."""
    if "convolution" in name:
        return MIXED if "backward" in name else CONVOLUTION
    if "scaled_dot_product" in name or "flash_attention" in name or "efficient_attention" in name:
        return ATTENTION
    if "_fft_" in name:
        return FOURIER
    if name in _OF_WEIGHTS:
        return LINEAR
    return OF_ACTIVATIONS if name in _OF_TWO else None


def _convolution(row: Mapping[str, Any]) -> str:
    """Which convolution: with k weights per channel, a dense one has channels x k products per value of its output.

    One whose products per output are no multiple of its input channels is grouped. What can be told from counts ends
    there: a depthwise one of 9 channels and 3 x 3 weights counts as a pointwise one does.
    """
    if "Transpose" in str(row.get("op")):
        return TRANSPOSED
    given, made = (next(iter(row.get(key) or ()), None) for key in ("input_shapes", "output_shapes"))
    macs, calls = row.get("macs"), row.get("calls") or 1
    if not given or not made or len(given) < 3 or not macs:
        return CONVOLUTION
    each = macs / (math.prod(made) * calls)
    if each == given[1]:
        return POINTWISE
    return CONVOLUTION if each % given[1] == 0 else GROUPED
