"""Digits as JPEG files through a chain: what a decoder, a resizer and the files' quality do to accuracy and to pixels.

Pre-processing is part of the model. The network has learned digits from pixels that no file has touched; it is scored
on the output of this chain (`suites.serving.digits_served`), of digits enlarged to `size` x `size` and encoded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Field, PositiveInt
from suites.common import digits_data as data
from suites.common.checkpoint import load_checkpoint
from suites.common.digits_cnn import digits_cnn
from suites.serving.networks import scores
from suites.serving.preprocessing import Preprocessing
from suites.serving.served import Served

__all__ = ["DigitsService", "digits_service", "load_checkpoint"]

#: Files that are sent in turn; all of the held-out digits are scored.
SENT = 32


class DigitsService(Served):
    """A chain of stages around a classifier of digits.

    Attributes:
        resolution: side of the network's input.
        quality, size: of the files.
    """

    #: Weights do not depend on what they are served with.
    not_learned = ("requests", "given", "quality", "size")

    def __init__(self, network: nn.Module, how: Preprocessing, *, quality: int, size: int):
        super().__init__(network, how, count=SENT, transport="direct", given="bytes")
        self.resolution, self.channels, self.classes = how.side, 3, data.CLASSES
        self.quality, self.size = quality, size

    def make_file(self, index: int) -> bytes:
        """The file of a held-out digit."""
        return self.files_of(data.split()[1][index : index + 1])[0]

    def files_of(self, index: Tensor) -> list[bytes]:
        """The files of digits by their number."""
        return data.encoded(index, self.size, self.quality)

    def logits(self, files: list[bytes]) -> Tensor:
        """What the network says of files that have come through the chain, [files, 10]."""
        images = []
        for file in files:
            value: Any = file
            for name, stage in self.stages():
                if name == "collate":
                    break
                value = stage(value)
            images.append(value)
        return self.infer(torch.stack(images))

    def post(self, said: Tensor) -> Tensor:
        """The five best classes."""
        return scores(said)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random digits, for a forward of the network alone."""
        like = next(self.parameters())
        return (torch.randn(batch, 3, self.resolution, self.resolution).to(like),)


def digits_service(
    *,
    quality: Annotated[int, Field(ge=1, le=95)] = 95,
    decode: Literal["pillow", "pillow_draft", "torchvision", "simplejpeg", "opencv"] = "pillow",
    resize: Literal["pillow", "torch", "torch_plain", "opencv_area", "opencv_linear"] = "pillow",
    size: Annotated[int, Field(ge=8)] = 64,
    side: Annotated[int, Field(ge=8)] = 32,
    width: PositiveInt = 24,
) -> DigitsService:
    """A classifier of digits with the stages around it, in evaluation mode.

    Args:
        quality: of the JPEG files, 1 to 95.
        decode: library that decodes; `pillow_draft` at a reduced size.
        resize: library and way that resizes.
        size: pixels of a side in the file.
        side: pixels of a side that the network sees.
        width: channels of the network's stem.

    Raises:
        NotInstalled: a library is not there.
    """
    how = Preprocessing(decode, resize, side, 1.0, (data.MEAN,) * 3, (data.STD,) * 3)
    return DigitsService(digits_cnn(width=width, resolution=side), how, quality=quality, size=size).eval()
