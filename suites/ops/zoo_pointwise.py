"""Operators of the bench that multiply no matrices: activations, indices, losses, reductions, norms, optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.ops.zoo import Entry, Spec

ROWS, MANY_ROWS = ("n", 256, 4096), ("n", 8192, 16384)
IMAGES, MANY_IMAGES = ("n", 8, 64, 56, 56), ("n", 128, 128, 112, 112)
CHANNELS, MANY_CHANNELS = ("n", 64), ("n", 128)


def _activation(function: Callable[..., Any]) -> Entry:
    return Entry("activation", function, (ROWS,), (MANY_ROWS,))


def _reduce(function: Callable[..., Any]) -> Entry:
    return Entry("reduce", function, (ROWS,), (MANY_ROWS,), 1e-4)


def _loss(function: Callable[..., Any], *specs: Spec) -> Entry:
    small = tuple((spec[0], 512, *spec[1:]) for spec in specs)
    return Entry("loss", function, small, tuple((spec[0], 32768, *spec[1:]) for spec in specs), 1e-4)


def _flat(function: Callable[..., Any], count: int) -> Entry:
    return Entry("optimizer", function, (("u", 1_000_000),) * count, (("u", 100_000_000),) * count)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Root-mean-square norm."""
    return F.rms_norm(x, (x.shape[-1],), weight)


def sgd_momentum(p: Tensor, g: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """One step of SGD with momentum."""
    momentum = 0.9 * m + g
    return p - 0.1 * momentum, momentum


def adam(p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam (the hundredth)."""
    first, second = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square()
    step = first / (1 - 0.9**100) / ((second / (1 - 0.999**100)).sqrt() + 1e-8)
    return p - 1e-3 * step, first, second


def adamw(p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of AdamW (the hundredth)."""
    return adam(p * (1 - 1e-3 * 0.01), g, m, v)


def lamb(p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Lamb: Adam's direction, scaled by the norm of the weights over its own."""
    first, second = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square()
    direction = first / (1 - 0.9**100) / ((second / (1 - 0.999**100)).sqrt() + 1e-6) + 0.01 * p
    return p - 1e-3 * p.norm() / direction.norm() * direction, first, second


ENTRIES: dict[str, Entry] = {
    "relu": _activation(F.relu),
    "gelu": _activation(F.gelu),
    "gelu_tanh": _activation(lambda x: F.gelu(x, approximate="tanh")),
    "softmax": _activation(lambda x: x.softmax(-1)),
    "log_softmax": _activation(lambda x: x.log_softmax(-1)),
    "hardswish": _activation(F.hardswish),
    "mish": _activation(F.mish),
    "add_channels": Entry(
        "broadcast", lambda x, y: x + y, (IMAGES, ("n", 1, 64, 1, 1)), (MANY_IMAGES, ("n", 1, 128, 1, 1))
    ),
    "where": Entry(
        "broadcast",
        torch.where,
        (("b", 256, 4096), ROWS, ("n", 1, 4096)),
        (("b", 8192, 16384), MANY_ROWS, ("n", 1, 16384)),
    ),
    "outer": Entry("broadcast", lambda x, y: x[:, None] * y, (("n", 2048), ("n", 2048)), (("n", 16384), ("n", 16384))),
    "gather": Entry("index", lambda x, i: x.gather(1, i), (ROWS, (4096, 256, 1024)), (MANY_ROWS, (16384, 8192, 4096))),
    "scatter_add": Entry(
        "index",
        lambda x, i, y: x.scatter_add(1, i, y),
        (ROWS, (4096, 256, 1024), ("n", 256, 1024)),
        (MANY_ROWS, (16384, 8192, 4096), ("n", 8192, 4096)),
    ),
    "index_select": Entry("index", lambda x, i: x.index_select(0, i), (ROWS, (256, 512)), (MANY_ROWS, (8192, 16384))),
    "argmax": Entry("index", lambda x: x.argmax(-1), (ROWS,), (MANY_ROWS,)),
    "embedding": Entry(
        "index",
        F.embedding,
        ((8192, 16, 512), ("n", 8192, 256)),
        ((50000, 256, 2048), ("n", 50000, 1024)),
    ),
    "masked_fill": Entry(
        "index", lambda x, m: x.masked_fill(m, -1.0), (ROWS, ("b", 256, 4096)), (MANY_ROWS, ("b", 8192, 16384))
    ),
    "cross_entropy": _loss(F.cross_entropy, ("n", 1000), (1000,)),
    "mse": _loss(F.mse_loss, ("n", 1000), ("n", 1000)),
    "kl_div": _loss(lambda x, y: F.kl_div(x.log_softmax(-1), y, reduction="batchmean"), ("n", 1000), ("p", 1000)),
    "triplet": _loss(F.triplet_margin_loss, ("n", 256), ("n", 256), ("n", 256)),
    "huber": _loss(F.huber_loss, ("n", 1000), ("n", 1000)),
    "cumsum": Entry("math", lambda x: x.cumsum(-1), (ROWS,), (MANY_ROWS,), 1e-4),
    "cumprod": Entry("math", lambda x: (1 + 0.01 * x).cumprod(-1), (("n", 256, 1024),), (("n", 8192, 1024),), 1e-4),
    "norm": Entry("math", lambda x: x.norm(dim=-1), (ROWS,), (MANY_ROWS,), 1e-4),
    "matrix_power": Entry(
        "math",
        lambda x: torch.linalg.matrix_power(x / x.shape[-1] ** 0.5, 5),
        (("n", 8, 128, 128),),
        (("n", 64, 512, 512),),
        1e-4,
    ),
    "erf": Entry("math", torch.erf, (ROWS,), (MANY_ROWS,)),
    "sum": _reduce(lambda x: x.sum(-1)),
    "max": _reduce(lambda x: x.amax(-1)),
    "var": _reduce(lambda x: x.var(-1)),
    "logsumexp": _reduce(lambda x: x.logsumexp(-1)),
    "batch_norm": Entry(
        "normalization",
        lambda x, m, v, w, b: F.batch_norm(x, m, v + 0.5, w, b),
        (IMAGES, CHANNELS, ("u", 64), CHANNELS, CHANNELS),
        (MANY_IMAGES, MANY_CHANNELS, ("u", 128), MANY_CHANNELS, MANY_CHANNELS),
    ),
    "layer_norm": Entry(
        "normalization",
        lambda x, w, b: F.layer_norm(x, (x.shape[-1],), w, b),
        (ROWS, ("n", 4096), ("n", 4096)),
        (MANY_ROWS, ("n", 16384), ("n", 16384)),
        1e-4,
    ),
    "group_norm": Entry("normalization", lambda x: F.group_norm(x, 8), (IMAGES,), (MANY_IMAGES,), 1e-4),
    "rms_norm": Entry("normalization", rms_norm, (ROWS, ("n", 4096)), (MANY_ROWS, ("n", 16384)), 1e-4),
    "instance_norm": Entry("normalization", F.instance_norm, (IMAGES,), (MANY_IMAGES,), 1e-4),
    "sgd_momentum": _flat(sgd_momentum, 3),
    "adam": _flat(adam, 4),
    "adamw": _flat(adamw, 4),
    "lamb": _flat(lamb, 4),
}
