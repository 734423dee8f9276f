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

    def stages(self) -> list[Stage]:
        """The stages in order, from a file to a batch of one.

        Raises:
            NotInstalled: a library is not there.
            UsageError: there is no such decoder or resizer.
        """
        decode = decoder(self.decode, (self.shorter, self.shorter))
        name = "decode_reduced" if self.decode == "pillow_draft" else "decode"
        mean, deviation = torch.tensor(self.mean, device="cpu"), torch.tensor(self.deviation, device="cpu")
        found = [
            Stage(name, decode, "file", "pixels"),
            Stage("resize", resizers.resizer(self.resize, self.shorter), "pixels", "pixels"),
            Stage("crop", lambda pixels: resizers.middle(pixels, self.side).copy(), "pixels", "pixels"),
            Stage("normalise", lambda pixels: normalised(pixels, mean, deviation), "pixels", "floats"),
            Stage("layout", planes, "floats", "image"),
            Stage("collate", collate, "image", "batch"),
        ]
        return [stage for stage in found if stage.name != "crop" or self.shorter != self.side]


def normalised(pixels: np.ndarray, mean: Tensor, deviation: Tensor) -> Tensor:
    """f32 [height, width, 3] of u8 pixels: (x / 255 - mean) / deviation, as one scale and shift per colour."""
    from suites.serving.resizers import as_tensor

    return as_tensor(pixels).to(torch.float32).mul_(1 / (255 * deviation)).sub_(mean / deviation)


def planes(floats: Tensor) -> Tensor:
    """[3, height, width] of [height, width, 3], each colour in one piece of memory."""
    return floats.permute(2, 0, 1).contiguous()


def collate(images: Tensor | Sequence[Tensor]) -> Tensor:
    """[batch, 3, height, width] of one image or of several."""
    return images[None] if isinstance(images, Tensor) else torch.stack(list(images))
