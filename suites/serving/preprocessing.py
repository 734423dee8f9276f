"""From a file to the network's input: decode, resize, crop, normalise, layout, collate; each a stage with its kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from suites.serving import resizers
from suites.serving.decoders import decoder
from suites.serving.stage import Stage

if TYPE_CHECKING:
    import numpy as np

#: ImageNet's mean and standard deviation of red, green and blue.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Preprocessing:
    """How files become inputs.

    Attributes:
        decode: one of `suites.serving.decoders.NAMES`.
        resize: one of `suites.serving.resizers.NAMES`.
        side: of the network's square input in pixels.
        margin: shorter side of the resized picture over the side of the piece in its middle.
        mean, deviation: that pixels in 0..1 are normalised by, a number per colour.
    """

    decode: str
    resize: str
    side: int
    margin: float = resizers.MARGIN
    mean: tuple[float, ...] = IMAGENET[0]
    deviation: tuple[float, ...] = IMAGENET[1]

    @property
    def shorter(self) -> int:
        """Shorter side of the resized picture."""
        return max(self.side, round(self.margin * self.side))

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift per colour, f32: (x / 255 - mean) / deviation = scale x - shift."""
        import numpy as np

        mean, deviation = np.array(self.mean, np.float32), np.array(self.deviation, np.float32)
        return 1 / (255 * deviation), mean / deviation

    def stages(self) -> list[Stage]:
        """The stages in order, from a file to a batch of one.

        Raises:
            NotInstalled: a library is not there.
            UsageError: there is no such decoder or resizer.
        """
        decode = decoder(self.decode, (self.shorter, self.shorter))
        name = "decode_reduced" if self.decode == "pillow_draft" else "decode"
        scale, shift = self.affine()
        found = [
            Stage(name, decode, "file", "pixels"),
            Stage("resize", resizers.resizer(self.resize, self.shorter), "pixels", "pixels"),
            Stage("crop", lambda pixels: resizers.middle(pixels, self.side).copy(), "pixels", "pixels"),
            Stage("normalise", lambda pixels: normalised(pixels, scale, shift), "pixels", "floats"),
            Stage("layout", planes, "floats", "image"),
            Stage("collate", collate, "image", "batch"),
        ]
        return [stage for stage in found if stage.name != "crop" or self.shorter != self.side]


def normalised(pixels: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> Tensor:
    """f32 [height, width, 3] of u8 pixels: scale x - shift, per colour."""
    floats = resizers.as_tensor(pixels).to(torch.float32)
    return floats.mul_(torch.from_numpy(scale)).sub_(torch.from_numpy(shift))


def planes(floats: Tensor) -> Tensor:
    """[3, height, width] of [height, width, 3], each colour in one piece of memory."""
    return floats.permute(2, 0, 1).contiguous()


def collate(images: Tensor | Sequence[Tensor]) -> Tensor:
    """[batch, 3, height, width] of one image or of several."""
    return images[None] if isinstance(images, Tensor) else torch.stack(list(images))
