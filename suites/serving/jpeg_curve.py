"""How accurate the plain network is on JPEG files of each quality: what a payload of equal accuracy is held against."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.quality import Run, accuracy
from suites.serving.payloads import Pictures

#: Qualities that are looked at.
QUALITIES = (1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 65, 80, 90, 95)
BATCH = 64


def accuracy_of(module: Any, task: Any) -> float:
    """Percent of the held-out samples that the module answers right; asked once per module and weights."""
    known = module.__dict__.get("_held_out_accuracy")
    if known is None:
        like = next(module.parameters())
        with torch.inference_mode():
            known = float(accuracy(Run(module, str(like.device), like.dtype), task.batches(BATCH)).value)
        module.__dict__["_held_out_accuracy"] = known
    return known


def coarsest(curve: Sequence[Sequence[float]], wanted: float) -> float | str:
    """Mean bytes of the smallest file whose accuracy is not below the wanted one; or why there is none.

    Args:
        curve: mean bytes and accuracy in percent of every quality.
        wanted: accuracy in percent.
    """
    enough = [size for size, percent in curve if percent >= wanted]
    if not enough:
        return f"no JPEG quality reaches {wanted:.4g} %: the best gives {max(p for _, p in curve):.4g} %"
    smallest = min(size for size, _ in curve)
    if min(enough) == smallest:
        return f"the coarsest JPEG, {smallest:.4g} bytes, is at least as accurate as {wanted:.4g} %"
    return min(enough)


def jpeg_curve(model: Any) -> list[list[float]]:
    """Mean bytes and accuracy of the plain network for every quality, once per model and task; none without a task."""
    task = getattr(model, "task", None)
    if task is None or not hasattr(task, "remembered"):
        return []

    @functools.wraps(jpeg_curve)
    def make() -> dict[str, Tensor]:
        with torch.inference_mode():
            return {"curve": torch.tensor([_point(model, task, quality) for quality in QUALITIES])}

    return task.remembered("jpeg_curve", {"qualities": list(QUALITIES)}, make)["curve"].tolist()


def _point(model: Any, task: Any, quality: int) -> list[float]:
    codec = Pictures(model.mean, model.deviation, quality)
    sizes, count, right = 0, 0, 0
    for images, labels in task.batches(BATCH):
        payload = codec.encode(images)
        right += int((_answer(model, codec.decode(payload)).argmax(-1) == labels).sum())
        sizes, count = sizes + len(payload), count + len(labels)
    return [sizes / count, 100 * right / count]


def _answer(model: nn.Module, images: Tensor) -> Tensor:
    return model(images.to(next(model.parameters())))
