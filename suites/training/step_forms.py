"""Closed forms of the cards: what a step of `tiny_gpt` executes backwards and saves, under the rows beside the systems.

Of B sequences of N tokens, width D, network F, V ids, L blocks and H heads, in single precision, a block saves
B N (8 D + 2 F) numbers: inputs and outputs of both norms, queries, keys and values, attention's output, the hidden
layer and its GELU; beside them a mean and a deviation of each norm and token, and one number of each query and head.
Behind the blocks stand the last norm's input, output and statistics, the logarithms of the softmax, and the loss's
divisor.

Two things are executed that formulas of papers leave out or put in: fused attention forms the scores once more in its
backward, B N^2 D products a block beside the four of its gradients; and a segment that is computed again stops where
everything that was saved is there, so that the last map of its last block is not.
"""

from __future__ import annotations

from typing import Any

from suites.training.costs import SCORES, backward_macs, forward_macs, gpt_tensors

#: Sizes of `tiny_gpt` that a card does not give.
SIZES = {"width": 128, "layers": 4, "heads": 4, "hidden": 512, "vocabulary": 256, "context": 128}


def partial(model: dict[str, Any], method: dict[str, Any], batch: int) -> dict[str, float]:
    """Of `full`, and of `frozen` where `last` is given: last blocks, the last norm and the head train."""
    s = {**SIZES, **model}
    parts = gpt_tensors(batch, s["context"], s["layers"], s["width"], s["hidden"], s["vocabulary"])
    last = method.get("last", s["layers"])
    first = s["layers"] - last
    trains = {part.name for part in parts if _block(part.name) >= first or not part.name.startswith("blocks.")}
    if first:
        trains.discard("places.weight")
    again = sum(part.dy // 4 for part in parts if part.name.endswith(SCORES) and _block(part.name) >= first)
    saved = last * _saved_by_block(s, batch) + _saved_behind(s, batch)
    return {"macs_backward": (backward_macs(parts, trains) + again) / batch, "saved_activation_bytes": 4 * saved}


def products(model: dict[str, Any], method: dict[str, Any], batch: int) -> dict[str, float]:
    """Of rows that change what is saved and no product: those of `full`."""
    return {"macs_backward": partial(model, {}, batch)["macs_backward"]}


def recomputed(model: dict[str, Any], method: dict[str, Any], batch: int) -> dict[str, float]:
    """Of `checkpoint`: the blocks run again but for the last map of each segment; of each its input is saved."""
    s = {**SIZES, **model}
    segments = -(-s["layers"] // method.get("every", 1))
    again = forward_macs(1, s["context"], s["layers"], s["width"], s["vocabulary"], s["hidden"])
    again -= s["context"] * s["width"] * s["vocabulary"]
    again -= segments * s["context"] * s["width"] * s["hidden"]
    saved = segments * batch * s["context"] * s["width"] + _saved_behind(s, batch)
    return {
        "macs_backward": partial(model, {}, batch)["macs_backward"] + again,
        "saved_activation_bytes": 4 * saved,
    }


def _saved_by_block(s: dict[str, Any], batch: int) -> int:
    rows = batch * s["context"]
    return rows * (8 * s["width"] + 2 * s["hidden"]) + 4 * rows + rows * s["heads"]


def _saved_behind(s: dict[str, Any], batch: int) -> int:
    return batch * s["context"] * (2 * s["width"] + 2 + s["vocabulary"]) + 1


def _block(name: str) -> int:
    """Number of the block that a tensor is in; -1 outside."""
    return int(name.split(".")[1]) if name.startswith("blocks.") else -1
