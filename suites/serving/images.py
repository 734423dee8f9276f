"""Pictures to be sent, without a download: JPEG files of three classes, made of scikit-learn's two sample photographs.

Decoding costs time per pixel and per byte, so that both are given: 60 x 70 in about 4 kB, 500 x 375 in 121 kB, 3564 x
2880 in 9.5 MB (Beyond Inference, arXiv 2403.12981; sizes recalled). A piece of a photograph is cut out and scaled,
gets the grain that a camera leaves and scaling has taken away, and is encoded at the quality that comes nearest to the
bytes of its class: files of noise would be far dearer to decode than photographs, of flat colours far cheaper.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

#: Standard deviation of the grain, in levels of 0..255.
GRAIN = 8.0
#: Of files that have a quality instead of a size.
QUALITY = 90
#: Share of a photograph's side that a piece has at least.
LEAST_PIECE = 0.7


@dataclass(frozen=True)
class Picture:
    """What is to be made: width and height in pixels, and either the bytes of the file or its quality."""

    width: int
    height: int
    size: int | None = None
    quality: int = QUALITY


CLASSES = {
    "small": Picture(60, 70, 4_000),
    "medium": Picture(500, 375, 121_000),
    "large": Picture(3564, 2880, 9_500_000),
}
_OWN = re.compile(r"(\d{1,5})x(\d{1,5})(?:q(\d{1,2}))?")


def picture(name: str) -> Picture:
    """The class of that name, or a picture of one's own: `1920x1080` or `1920x1080q75` (width x height, quality).

    Raises:
        ValueError: it is none of them.
    """
    if name in CLASSES:
        return CLASSES[name]
    own = _OWN.fullmatch(name)
    if own is None:
        raise ValueError(f'image="{name}": choose {", ".join(CLASSES)}, or WIDTHxHEIGHT, with quality WIDTHxHEIGHTq75')
    width, height, quality = int(own[1]), int(own[2]), int(own[3] or QUALITY)
    if not (8 <= width <= 16_384 and 8 <= height <= 16_384 and 1 <= quality <= 95):
        raise ValueError(f'image="{name}": sides are 8 to 16384 pixels, the quality is 1 to 95')
    return Picture(width, height, quality=quality)


@lru_cache(maxsize=16)
def file(name: str, index: int, seed: int = 0) -> bytes:
    """The JPEG file of picture `index` of a class, seeded.

    Raises:
        ValueError: there is no such class.
    """
    wanted = picture(name)
    image = _grained(_piece(wanted, index, seed), seed + index)
    if wanted.size is None:
        return _encoded(image, wanted.quality)
    return _of_size(image, wanted.size)


def _piece(wanted: Picture, index: int, seed: int) -> Image.Image:
    """A seeded piece of a photograph in the wanted proportions, scaled to the wanted size."""
    import numpy as np
    from PIL import Image

    photo = photographs()[index % len(photographs())]
    draw = np.random.default_rng((seed, index))
    high, wide = photo.shape[:2]
    scale = min(wide / wanted.width, high / wanted.height) * draw.uniform(LEAST_PIECE, 1.0)
    size = (scale * wanted.width, scale * wanted.height)
    left, top = draw.uniform(0, wide - size[0]), draw.uniform(0, high - size[1])
    box = (left, top, left + size[0], top + size[1])
    whole = Image.fromarray(photo)
    return whole.resize((wanted.width, wanted.height), Image.Resampling.BICUBIC, box=box)


def _grained(image: Image.Image, seed: int) -> Image.Image:
    """The picture with grain in its brightness."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image)
    grain = np.random.default_rng(seed).standard_normal(pixels.shape[:2], dtype=np.float32) * np.float32(GRAIN)
    return Image.fromarray(np.clip(pixels + np.rint(grain)[..., None], 0, 255).astype(np.uint8))


def _of_size(image: Image.Image, size: int) -> bytes:
    """The file of the quality whose size comes nearest, found by halving 1 to 100."""
    low, high = 1, 100
    found: dict[int, bytes] = {}
    while low <= high:
        middle = (low + high) // 2
        found[middle] = _encoded(image, middle)
        if len(found[middle]) < size:
            low = middle + 1
        else:
            high = middle - 1
    return min(found.values(), key=lambda made: abs(len(made) - size))


def _encoded(image: Image.Image, quality: int) -> bytes:
    target = io.BytesIO()
    image.save(target, format="JPEG", quality=quality)
    return target.getvalue()


@cache
def photographs() -> list[np.ndarray]:
    """scikit-learn's sample photographs, u8 [427, 640, 3] each."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def facts(data: bytes) -> dict[str, float]:
    """Width, height, pixels, bytes and bits per pixel of a JPEG file."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        width, height = opened.size
    pixels = width * height
    return {
        "width": width, "height": height, "pixels": pixels, "bytes": len(data), "bits_per_pixel": 8 * len(data) / pixels
    }  # fmt: skip
