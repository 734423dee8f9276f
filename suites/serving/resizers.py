"""Pixels to fewer pixels by three libraries, with and without antialiasing; and the piece in the middle.

A resize without antialiasing reads only the pixels next to where the new ones lie: it is faster, and another picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.errors import UsageError
from suites.serving.decoders import opencv

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

NAMES = ("pillow", "torch", "torch_plain", "opencv_area", "opencv_linear")
#: The shorter side before the piece in the middle is cut out, over the side of that piece.
MARGIN = 256 / 224
Resize = Callable[["np.ndarray"], "np.ndarray"]


def target(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Width and height of a picture whose shorter side is `shorter`, in proportion."""
    if width <= height:
        return shorter, max(shorter, round(height * shorter / width))
    return max(shorter, round(width * shorter / height)), shorter


def resizer(name: str, shorter: int) -> Resize:
    """The resizer of that name: u8 [height, width, 3] to u8 whose shorter side is `shorter`.

    Raises:
        NotInstalled: its library is not there.
        UsageError: there is no such resizer.
    """
    if name == "pillow":
        return lambda pixels: _pillow(pixels, shorter)
    if name in ("torch", "torch_plain"):
        return lambda pixels: _torch(pixels, shorter, name == "torch")
    if name not in NAMES:
        raise UsageError(f'resize="{name}": choose {", ".join(NAMES)}')
    cv2 = opencv()
    how = cv2.INTER_AREA if name == "opencv_area" else cv2.INTER_LINEAR
    return lambda pixels: cv2.resize(pixels, target(pixels.shape[1], pixels.shape[0], shorter), interpolation=how)


def _pillow(pixels: np.ndarray, shorter: int) -> np.ndarray:
    import numpy as np
    from PIL import Image

    size = target(pixels.shape[1], pixels.shape[0], shorter)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _torch(pixels: np.ndarray, shorter: int, antialias: bool) -> np.ndarray:
    from torch.nn import functional as F

    width, height = target(pixels.shape[1], pixels.shape[0], shorter)
    image = as_tensor(pixels).permute(2, 0, 1)[None]
    small = F.interpolate(image, size=(height, width), mode="bilinear", antialias=antialias, align_corners=False)
    return small[0].permute(1, 2, 0).numpy()


def as_tensor(pixels: np.ndarray) -> Tensor:
    """The pixels as a tensor, without a copy; nobody writes into it, also where the array could not be written to."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the array is read-only is known
        return torch.from_numpy(pixels)


def middle(pixels: np.ndarray, side: int) -> np.ndarray:
    """The square of that side in the middle of [height, width, 3], as a view."""
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]
