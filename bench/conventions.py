"""How papers count: each convention a named, pure function of a record's readings and layer rows.

A claim names one with `counted_as`; what was counted here is then converted to the paper's way before the two are
compared, and the claim's page says so. A function raises `Unknown` where the record does not hold what it needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]

#: Products of activations with each other, by operator; the fused ones are attention and nothing else.
ATTENTION = (
    "aten::bmm",
    "aten::baddbmm",
    "scaled_dot_product",
    "flex_attention",
    "_efficient_attention",
    "_flash_attention",
)
#: Operators that hold attention and its projections at once.
INSEPARABLE = ("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
POOLING = ("avg_pool", "max_pool", "adaptive_")
BITS = {"float64": 64, "float32": 32, "bfloat16": 16, "float16": 16, "int8": 8}


class Unknown(ValueError):
    """The record does not hold what the convention needs; the message says what."""


@dataclass(frozen=True)
class Counts:
    """What a convention is a function of: readings of one part, per sample, and its layer rows, of the whole batch."""

    readings: Mapping[str, float]
    layers: tuple[Mapping[str, Any], ...]
    batch: int

    def value(self, metric: str) -> float:
        """A reading; raises Unknown where there is none."""
        if metric not in self.readings:
            raise Unknown(f"{metric} was not counted")
        return self.readings[metric]


def counts_of(record: Record, part: str) -> Counts:
    """What conventions need of a record's part; layer rows of the whole run stand at the record's top.

    Args:
        record: as it was read.
        part: of the workload; the whole run's own name for the whole.
    """
    known = {
        row["metric"]: float(row["value"])
        for row in record["readings"]
        if row["value"] is not None and row.get("part", "") in ("", part)
    }
    further = (record.get("part_layers") or {}).get(part)
    layers = further.get("layers") if further else record.get("layers")
    return Counts(known, tuple(layers or ()), int(record["case"].get("batch") or 1))


def _layers(counts: Counts) -> tuple[Mapping[str, Any], ...]:
    if not counts.layers:
        raise Unknown("the record has no layers")
    return counts.layers


def _matmul(counts: Counts) -> float:
    return counts.value("macs")


def _flops(counts: Counts) -> float:
    return 2 * counts.value("macs")


def _fvcore(counts: Counts) -> float:
    return counts.value("macs_fvcore")


def _with_method(counts: Counts) -> float:
    return counts.value("macs") + counts.value("macs_method")


def _all(counts: Counts) -> float:
    return _with_method(counts) + counts.value("vector_ops")


def _without_attention(counts: Counts) -> float:
    """Products less those of activations with each other, found by the operators of each layer row."""
    if counts.readings.get("macs_method"):
        raise Unknown("the method's own products cannot be told from attention's")
    left_out = 0.0
    for row in _layers(counts):
        operators = [name for name in row.get("operators") or () if row.get("macs")]
        if any(part in name for name in operators for part in INSEPARABLE):
            raise Unknown(f"{row['module_path'] or 'the network'} runs attention and its projections as one operator")
        attends = [name for name in operators if any(part in name for part in ATTENTION)]
        if attends and any(name.endswith(("::mm", "::addmm", "::convolution", "::linear")) for name in operators):
            raise Unknown(f"{row['module_path'] or 'the network'} runs attention and other products in one module")
        left_out += row["macs"] if attends else 0.0
    return counts.value("macs") - left_out / counts.batch


def _with_biases(counts: Counts) -> float:
    """One more per output of every layer that adds a bias: a layer whose weights hold one value a channel more."""
    added = sum(_bias_additions(row) for row in _layers(counts))
    return counts.value("macs") + added / counts.batch


def _bias_additions(row: Mapping[str, Any]) -> float:
    """Outputs of a linear layer or convolution with a bias, over all its calls; 0 of anything else.

    With P output positions of N channels a layer of M MACs a call has M / P weights; N more stored are the bias.
    """
    shapes = row.get("output_shapes") or []
    if not row.get("macs") or not shapes or not str(row.get("op", "")).startswith(("Linear", "Conv")):
        return 0.0
    shape = shapes[0]
    channels = shape[-1] if str(row["op"]).startswith("Linear") else shape[1]
    width = BITS.get(str(row.get("dtype")))
    if width is None or not row.get("calls") or row.get("tokens_per_call"):
        raise Unknown(f"whether {row['module_path']} has a bias cannot be told from its bytes")
    outputs = math.prod(shape)
    weights = row["macs"] / row["calls"] / (outputs / channels)
    stored = 8 * row["weight_bytes"] / row["calls"] / width
    return float(outputs * row["calls"]) if round(stored - weights) == channels else 0.0


def _with_pooling(counts: Counts) -> float:
    """One more per entry of every pooling window."""
    added = 0.0
    for row in _layers(counts):
        pools = [name for name in row.get("operators") or () if any(part in name for part in POOLING)]
        if pools and not str(row.get("op", "")).startswith(("AdaptiveAvg", "Avg", "Max", "AdaptiveMax")):
            raise Unknown(f"{row['module_path'] or 'the network'} pools beside other work in one module")
        added += row["vector_ops"] if pools else 0.0
    return counts.value("macs") + added / counts.batch


def _without_fourier(counts: Counts) -> float:
    """Products less the half of the declared operations of Fourier transforms that `macs` holds, per sample."""
    return counts.value("macs") - counts.value("fourier_operations") / 2 / counts.batch


def _without_scans(counts: Counts) -> float:
    """Products without those of scans, plus what fvcore charges for normalisation."""
    return counts.value("macs_fvcore") - counts.value("macs_scan")


def _vmamba(counts: Counts) -> float:
    """The same plus 9 K D N L + K D L of every scan layer: operations and MACs mixed."""
    return _without_scans(counts) + 9 * counts.value("macs_scan") + counts.value("scan_outputs")


#: Name -> what the paper's number counts, and the function.
CONVENTIONS: dict[str, tuple[str, Callable[[Counts], float]]] = {
    "macs": ("multiply-accumulates of matrix products and convolutions", _matmul),
    "macs_called_flops": ("the paper's FLOPs are multiply-accumulates, one each", _matmul),
    "flops": ("two operations per multiply-accumulate", _flops),
    "fvcore": ("fvcore's count: products, normalisation and the other terms that it adds", _fvcore),
    "with_method": ("the method's own products included", _with_method),
    "all": ("every product and every vector operation as one", _all),
    "without_attention": (
        "products of activations with each other left out, as hooks on layers do",
        _without_attention,
    ),
    "with_biases": ("one more per output of a layer with a bias", _with_biases),
    "with_pooling": ("one more per entry of a pooling window", _with_pooling),
    "without_scans": ("scans left out, 5 for each element of a layer norm, 2 of a batch norm", _without_scans),
    "vmamba": ("the same plus 9 for each state of a scan and 1 for each output: operations and MACs mixed", _vmamba),
    "without_fourier": ("Fourier transforms, which the operator declares, left out", _without_fourier),
}
