"""Closed forms of this suite as cards name them: settings to products of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suites.pruning.rounding import kept

Settings = Mapping[str, Any]


def sparse_linear(model: Settings, _: Settings) -> int:
    """Executed products: all of W where zeros are multiplied, what is stored in CSR, BSR and by gathering."""
    s = {
        "outputs": 3072, "inputs": 768, "columns": 128, "structure": "weight", "sparsity": 0.9, "block": (32, 32),
        "balanced": True, "n": 2, "m": 4, "kernel": "mask", **model,
    }  # fmt: skip
    every = s["outputs"] * s["inputs"]
    return s["columns"] * (every if s["kernel"] in ("dense", "mask", "lscd", "runtime") else nonzero_weights(s))


def nonzero_weights(s: Settings) -> int:
    """Weights that stay in one matrix, for each structure."""
    rows, columns = s["outputs"], s["inputs"]
    if s["structure"] == "n:m":
        return rows * columns // s["m"] * s["n"]
    if s["structure"] == "row":
        return rows * kept(columns, s["sparsity"])
    if s["structure"] == "weight":
        return kept(rows * columns, s["sparsity"])
    high, wide = s["block"] or (32, 32)
    if s["balanced"]:
        return rows // high * kept(columns // wide, s["sparsity"]) * high * wide
    return kept(rows // high * (columns // wide), s["sparsity"]) * high * wide
