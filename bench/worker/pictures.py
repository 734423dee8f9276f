"""Which patches of a real image each token holds after every block, for models that trace their sources."""

from __future__ import annotations

from typing import Any

import torch

from bench.worker.subject import Subject

#: Pixels a side that are kept of the image; larger ones are shrunk to keep records small.
MOST_PIXELS = 112


def source_map(subject: Subject) -> dict[str, Any] | None:
    """One image of the task and the owner of each patch after each block; None where there is nothing to show.

    A model takes part by having `trace_sources` (a switch) and, after a forward, `source_maps`: per block the index of
    the token that holds each input token, or -1 where it was dropped, [batch, input tokens]; and `protected`, the
    number of leading tokens that are no patches. Random weights or inputs have no picture: there is nothing to see in
    noise.
    """
    module: Any = subject.counted
    if subject.task is None or not hasattr(module, "trace_sources") or subject.case.is_baseline:
        return None
    module.trace_sources = True
    try:
        module(subject.args[0][:1])
        maps = [owners[0].tolist() for owners in module.source_maps]
    finally:
        module.trace_sources = False
    if not maps or len(set(map(tuple, maps))) == 1:
        return None
    first = int(module.protected)
    patches = [owners[first:] for owners in maps]
    return {
        "pixels": _pixels(subject.args[0][0]),
        "grid": int(len(patches[0]) ** 0.5),
        "owners": patches,
        "protected": first,
    }


def _pixels(image: torch.Tensor) -> list[Any]:
    """The image [channels, height, width] as rows of 0..255, grey if its channels are equal, else [r, g, b]."""
    shown = image.detach().float().cpu()
    if shown.shape[-1] > MOST_PIXELS:
        size = (MOST_PIXELS, MOST_PIXELS)
        shown = torch.nn.functional.interpolate(shown[None], size=size, mode="area")[0]
    low, high = shown.amin(), shown.amax()
    scaled = ((shown - low) / (high - low).clamp_min(1e-6) * 255).round().to(torch.uint8)
    if torch.equal(scaled[0], scaled[-1]):
        return scaled[0].tolist()
    return scaled.permute(1, 2, 0).tolist()
