"""Signs that work is masked instead of removed: rows of zeros that are multiplied, weights that are zero but dense.

A cheap look comes first (one column, a few thousand weights); only what looks suspicious is read in full.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from bench.meters.operator_record import OperatorRecord
from bench.meters.products import Call

_SAMPLE = 4096
_ROW_OPERANDS = {
    "aten::addmm": 1,
    "aten::mm": 0,
    "aten::bmm": 0,
    "aten::linear": 0,
    "aten::native_layer_norm": 0,
    "aten::_int_mm": 0,
}
_SOFTMAX = frozenset({"aten::_softmax", "aten::_safe_softmax"})
_RULED_OUT = -1e4
_MASKED_ATTENTION = frozenset(
    {
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_fused_attention_overrideable",
    }
)


class ValueChecks:
    """Shares of zeros seen by products: rows of activations, weights, entries that an attention mask rules out."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[Tensor, int]]] = defaultdict(list)
        self._masks: dict[str, list[tuple[Tensor, int]]] = defaultdict(list)
        self._weights: dict[int, tuple[Tensor, int]] = {}
        self._users: dict[int, list[Any]] = defaultdict(list)

    def look(self, record: OperatorRecord, call: Call) -> None:
        """Count the zero rows of the activation that a product or a layer norm is given."""
        position = _ROW_OPERANDS.get(record.operator)
        if position is not None:
            self._look_at_rows(record.path, call.args[position])
        elif record.operator in _SOFTMAX:
            self._look_at_scores(record.path, call.args[0])
        elif record.operator in _MASKED_ATTENTION:
            mask = call.arg("attn_mask" if record.operator.endswith("for_cpu") else "attn_bias")
            if mask is not None and mask.device.type != "meta":
                hidden = ~mask if mask.dtype is torch.bool else mask == -torch.inf
                self._masks[record.path].append((hidden.sum(), mask.numel()))

    def _look_at_scores(self, path: str, scores: Tensor) -> None:
        """Scores that are minus infinity, or as good as, before an explicit softmax."""
        if scores.layout is not torch.strided or scores.is_nested or scores.device.type == "meta":
            return
        sample = scores.reshape(-1)[:: max(1, scores.numel() // _SAMPLE) | 1] if scores.is_contiguous() else scores
        if bool((sample <= _RULED_OUT).any()):
            self._masks[path].append(((scores <= _RULED_OUT).sum(), scores.numel()))

    def _look_at_rows(self, path: str, rows: Tensor) -> None:
        strided = rows.layout is torch.strided and not rows.is_nested and rows.dim() >= 2
        if strided and rows.device.type != "meta" and rows.shape[-1] > 1 and rows.numel() > 0:
            candidates = rows[..., 0] == 0
            if bool(candidates.any()):
                self._rows[path].append(((rows[candidates] == 0).all(-1).sum(), candidates.numel()))

    def weight(self, key: int, weight: Tensor, record: OperatorRecord) -> None:
        """Remember how many entries of a dense weight are zero: a sample first, all of it if the sample shows any."""
        self._users[key].append(record)
        if key in self._weights or weight.device.type == "meta" or weight.layout is not torch.strided:
            return
        if weight.is_nested or weight.numel() == 0 or weight.is_quantized:
            return
        # a transposed view is looked at in storage order: the order does not matter, a copy would
        flat = weight.detach().as_strided((weight.numel(),), (1,)) if _is_dense(weight) else weight.reshape(-1)
        step = max(1, weight.numel() // _SAMPLE) | 1
        sample = flat[::step]
        if bool((sample == 0).any()):
            self._weights[key] = (weight.numel() - torch.count_nonzero(flat), weight.numel())
        else:
            self._weights[key] = (torch.zeros((), dtype=torch.long), weight.numel())

    def settle_weights(self) -> None:
        """Write the non-zero part of every product into its record; products with no weight in them are in full."""
        for key, records in self._users.items():
            zeros, total = self._weights.get(key, (torch.zeros(()), 1))
            share = 1 - float(zeros) / total
            for record in records:
                record.nonzero_macs = (record.macs - record.weightless_macs) * share + record.weightless_macs

    def zero_weight_share(self) -> tuple[float, int]:
        """Share of zeros among the elements of multiplied dense weights, and how many elements that is of."""
        total = sum(count for _, count in self._weights.values())
        zeros = sum(float(zeros) for zeros, _ in self._weights.values())
        return (zeros / total if total else 0.0), total

    def zero_rows(self) -> dict[str, float]:
        """Share of all-zero rows per module path, where there are any."""
        return _shares(self._rows)

    def masked_scores(self) -> dict[str, float]:
        """Share of attention scores that a mask rules out, per module path."""
        return _shares(self._masks)


def _is_dense(tensor: Tensor) -> bool:
    return torch.ops.aten.is_non_overlapping_and_dense(tensor)


def _shares(seen: dict[str, list[tuple[Tensor, int]]]) -> dict[str, float]:
    shares = {}
    for path, counts in seen.items():
        total = sum(count for _, count in counts)
        found = [(float(zeros), count) for zeros, count in counts]
        zeros = sum(zeros for zeros, count in found if zeros < count)  # all zero: an initial state, not a mask
        if zeros and total:
            shares[path] = zeros / total
    return shares
