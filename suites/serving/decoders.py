"""JPEG files to pixels by four libraries; each gives a u8 array [height, width, 3] of red, green and blue.

They are bindings of libjpeg-turbo of different versions, or of their own build of it, and need not agree to the last
level. `pillow_draft` decodes at a reduced size: whole blocks become 4, 2 or 1 pixels a side (the inverse cosine
transform of fewer coefficients), as long as no side falls below what is needed after it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from suites.common.torchvision_remedy import NotInstalled

if TYPE_CHECKING:
    import numpy as np

NAMES = ("pillow", "pillow_draft", "torchvision", "simplejpeg", "opencv")
Decode = Callable[[bytes], "np.ndarray"]


def decoder(name: str, least: tuple[int, int]) -> Decode:
    """The decoder of that name.

    Args:
        name: one of `NAMES`.
        least: width and height that a reduced picture has at least.

    Raises:
        NotInstalled: its library is not there.
        UsageError: there is no such decoder.
    """
    if name == "pillow":
        return _pillow
    if name == "pillow_draft":
        return lambda file: _reduced(file, least)
    if name not in _MAKERS:
        raise UsageError(f'decode="{name}": choose {", ".join(NAMES)}')
    return _MAKERS[name]()


def _pillow(file: bytes) -> np.ndarray:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def _reduced(file: bytes, least: tuple[int, int]) -> np.ndarray:
    import numpy as np
    from PIL import Image

    opened = Image.open(io.BytesIO(file))
    opened.draft("RGB", least)
    return np.asarray(opened.convert("RGB"))


def _torchvision() -> Decode:
    import torch

    from suites.common.torchvision_remedy import mend_torchvision

    mend_torchvision()
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        decode_jpeg(torch.frombuffer(bytearray(_probe()), dtype=torch.uint8))
    except (ImportError, RuntimeError, AttributeError) as error:
        raise NotInstalled(f"torchvision.io.decode_jpeg does not work here ({error})"[:200]) from error

    def decode(file: bytes) -> np.ndarray:
        pixels = decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), mode=ImageReadMode.RGB)
        return pixels.permute(1, 2, 0).numpy()

    return decode


def _simplejpeg() -> Decode:
    simplejpeg = wanted("simplejpeg")
    return lambda file: simplejpeg.decode_jpeg(file, colorspace="RGB")


def _opencv() -> Decode:
    import numpy as np

    cv2 = opencv()

    def decode(file: bytes) -> np.ndarray:
        return cv2.cvtColor(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    return decode


_MAKERS: dict[str, Callable[[], Decode]] = {
    "torchvision": _torchvision, "simplejpeg": _simplejpeg, "opencv": _opencv,
}  # fmt: skip


def wanted(package: str, pip: str | None = None) -> Any:
    """A package of the extra `serving`.

    Raises:
        NotInstalled: it is not there.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = pip or package
        raise NotInstalled(
            f"{name} is not installed ({error}): python -m pip install waterline-bench[serving]"
        ) from error


def opencv() -> Any:
    """OpenCV with one thread: a request has one core, and its own pool would take them all.

    Raises:
        NotInstalled: it is not there.
    """
    cv2 = wanted("cv2", "opencv-python-headless")
    cv2.setNumThreads(1)
    return cv2


def _probe() -> bytes:
    """A tiny JPEG file."""
    from PIL import Image

    target = io.BytesIO()
    Image.new("RGB", (8, 8)).save(target, format="JPEG")
    return target.getvalue()
