"""scikit-learn's bundled handwritten digits as pictures of any size, as strokes, and as JPEG files.

There is nothing to download. 1797 real 8 x 8 images in 17 grey levels (UCI, "Optical Recognition of Handwritten
Digits", test part).
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES = 10
HELD_OUT = 597
#: Mean and standard deviation of the pixels, which are in 0..1.
MEAN, STD = 0.3053, 0.3760
#: Ink at which a pixel belongs to a stroke.
INK = 0.5


@cache
def digits() -> tuple[Tensor, Tensor, str]:
    """Pixels in 0..1 [1797, 8, 8], labels [1797], and the hash of both."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    digest = hashlib.sha256(bundle.images.tobytes() + bundle.target.astype("int64").tobytes()).hexdigest()[:16]
    # kept for the whole process, whatever it is first asked for: to be scored, or beside what has shapes alone
    with torch.inference_mode(False), torch.device("cpu"):
        return torch.tensor(bundle.images, dtype=torch.float32) / 16, torch.tensor(bundle.target), digest


def split() -> tuple[Tensor, Tensor]:
    """Indices for training and of the held-out images; the same for every seed, so that all models face one test."""
    import numpy as np

    order = torch.from_numpy(np.random.RandomState(0).permutation(len(digits()[0])))
    return order[HELD_OUT:], order[:HELD_OUT]


def labels(index: Tensor) -> Tensor:
    """The digit that each image shows, [n]."""
    return digits()[1][index]


def images(index: Tensor, resolution: int, channels: int = 3) -> Tensor:
    """Normalised digits, enlarged, in equal channels, [n, channels, resolution, resolution]."""
    return _enlarged((digits()[0][index] - MEAN) / STD, resolution, channels)


def _enlarged(small: Tensor, resolution: int, channels: int) -> Tensor:
    large = F.interpolate(small[:, None], size=(resolution, resolution), mode="bilinear", align_corners=False)
    return large.expand(-1, channels, -1, -1).contiguous()


# ---------------------------------------------------------------------------------------------- as files


def encoded(index: Tensor, size: int, quality: int) -> list[bytes]:
    """Each digit as a grey JPEG file of `size` x `size` pixels at that quality (1..95)."""
    from PIL import Image

    pixels = F.interpolate(digits()[0][index][:, None], size=(size, size), mode="bilinear", align_corners=False)
    files = []
    for picture in (255 * pixels[:, 0]).round().to(torch.uint8):
        target = io.BytesIO()
        Image.fromarray(picture.numpy(), mode="L").save(target, format="JPEG", quality=quality)
        files.append(target.getvalue())
    return files


def decoded(files: list[bytes], resolution: int, channels: int = 3) -> Tensor:
    """What a model sees of the files: decoded, brought to its resolution, normalised as `images` are."""
    import numpy as np
    from PIL import Image

    pictures = [np.asarray(Image.open(io.BytesIO(file)).convert("L"), dtype=np.float32) / 255 for file in files]
    return _enlarged((torch.from_numpy(np.stack(pictures)) - MEAN) / STD, resolution, channels)


# ---------------------------------------------------------------------------------------------- as strokes


def strokes(index: Tensor, points: int) -> Tensor:
    """Each digit as a path through its inked pixels, [n, points, 3]: column, row in 0..1, whether the pen is down.

    From the topmost end of the ink the path goes to the nearest pixel that it has not met; the pen is down where that
    one touches the last. Longer paths are thinned evenly; shorter ones stay where they end, with the pen up.
    """
    return torch.stack([_path(place, points) for place in index.tolist()])


@cache
def _path(place: int, points: int) -> Tensor:
    ink = [(float(row), float(column)) for row, column in (digits()[0][place] >= INK).nonzero().tolist()]
    visited = [_start(ink)]
    left = [pixel for pixel in ink if pixel != visited[0]]
    while left:
        nearest = min(left, key=lambda pixel: math.dist(pixel, visited[-1]))
        left.remove(nearest)
        visited.append(nearest)
    steps = [math.inf, *(math.dist(a, b) for a, b in itertools.pairwise(visited))]
    rows = [(x / 7, y / 7, float(step < 1.5)) for (y, x), step in zip(visited, steps, strict=True)]
    if len(rows) > points:
        rows = [rows[round(k * (len(rows) - 1) / max(1, points - 1))] for k in range(points)]
    rows += [(rows[-1][0], rows[-1][1], 0.0)] * (points - len(rows))
    return torch.tensor(rows)


def _start(ink: list[tuple[float, float]]) -> tuple[float, float]:
    """The topmost, then leftmost, of the pixels that fewest others touch."""
    touching = {pixel: sum(0 < math.dist(pixel, other) < 1.5 for other in ink) for pixel in ink}
    return min(ink, key=lambda pixel: (touching[pixel], pixel))
