"""From an encoded picture to a detector's boxes: the stages around a network, for the workload `pipeline`.

A request is a JPEG file. Its stages are `decode`, `prepare` (letterbox or resize, normalised), `infer`, and what makes
the answer of what the network gives. Weights are random, so that which boxes survive says nothing; as many candidates
as in use come into the suppression (`CANDIDATES`), whatever their scores.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suites.common.detection import SIDES

#: Height and width of the pictures that are sent, and the quality of their files.
PICTURE, QUALITY = (360, 480), 90
#: Boxes that come into the suppression, that leave it at most, and the overlap from which one hides another.
CANDIDATES, KEPT, OVERLAP = 300, 100, 0.65
STRIDES = (8, 16, 32)
GREY = 114 / 255
Stage = tuple[str, Callable[[Any], Any]]


class PictureChain(nn.Module):
    """Stages around one network, which is what is counted."""

    requests = 8

    def __init__(self, network: nn.Module, side: int, answer: str, *, letterbox: bool):
        super().__init__()
        self.network, self.side, self.letterbox, self.answer = network, side, letterbox, answer

    def stages(self) -> list[Stage]:
        """The stages in order."""
        last = self.answers()[self.answer]
        return [("decode", decoded), ("prepare", self.prepare), ("infer", self.infer), (self.answer, last)]

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        """The last stages that there are, by name."""
        return {"boxes": self.boxes}

    def example_request(self, index: int) -> bytes:
        """A seeded picture of smooth colours as a JPEG file."""
        from PIL import Image

        high, wide = PICTURE
        coarse = torch.rand(1, 3, high // 20, wide // 20, generator=torch.Generator().manual_seed(index))
        pixels = F.interpolate(coarse, size=PICTURE, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        target = io.BytesIO()
        Image.fromarray((255 * pixels).to(torch.uint8).numpy()).save(target, format="JPEG", quality=QUALITY)
        return target.getvalue()

    def forward(self, images: Tensor) -> Any:
        """What the network alone gives."""
        return self.network(images)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random squares, for a forward of the network alone."""
        like = next(self.parameters())
        return (torch.rand(batch, 3, self.side, self.side, device=like.device, dtype=like.dtype),)

    def prepare(self, pixels: Tensor) -> Tensor:
        """[1, 3, side, side] of bytes [3, h, w]: the whole picture on a grey square, or the picture stretched to it."""
        picture = pixels[None].float() / 255
        high, wide = picture.shape[-2:]
        size = scaled((high, wide), self.side) if self.letterbox else (self.side, self.side)
        small = F.interpolate(picture, size=size, mode="bilinear", align_corners=False)
        below, right = self.side - size[0], self.side - size[1]
        around = (right // 2, right - right // 2, below // 2, below - below // 2)
        like = next(self.parameters())
        return F.pad(small, around, value=GREY).to(like)

    def infer(self, images: Tensor) -> Any:
        """What the network gives."""
        return self.network(images)

    def boxes(self, said: Tensor) -> Tensor:
        """[boxes, 6]: left, top, right, bottom in pixels of the square, score, class; at most `KEPT`."""
        found = decoded_boxes(said[0].float(), self.side)
        scores, kinds = said[0, SIDES:].float().sigmoid().max(0)
        best = scores.topk(min(CANDIDATES, len(scores))).indices
        left = suppressed(found[best], scores[best], kinds[best])
        chosen = best[left][:KEPT]
        return torch.cat((found[chosen], scores[chosen, None], kinds[chosen, None].float()), 1)


def decoded(file: bytes) -> Tensor:
    """Pixels [3, h, w] of a JPEG file."""
    import numpy as np
    from PIL import Image

    return torch.from_numpy(np.array(Image.open(io.BytesIO(file)).convert("RGB"))).permute(2, 0, 1)


def scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Sides of a picture whose longer one is `side`, in proportion."""
    high, wide = size
    return round(high * side / max(size)), round(wide * side / max(size))


def decoded_boxes(said: Tensor, side: int) -> Tensor:
    """Boxes [places, 4] in pixels of distances [4 .., places], in strides, from the middle of every place."""
    found, start = [], 0
    for stride in STRIDES:
        count = side // stride
        line = (torch.arange(count, device=said.device) + 0.5) * stride
        y, x = (part.flatten() for part in torch.meshgrid(line, line, indexing="ij"))
        left, top, right, bottom = said[:SIDES, start : start + count * count] * stride
        found.append(torch.stack((x - left, y - top, x + right, y + bottom), 1))
        start += count * count
    return torch.cat(found)


def overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of all pairs, [boxes, boxes]."""
    area = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1)
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp_min(0).prod(2)
    return shared / (area[:, None] + area - shared).clamp_min(1e-9)


def suppressed(boxes: Tensor, scores: Tensor, kinds: Tensor, overlap: float = OVERLAP) -> Tensor:
    """Indices of boxes that no better one of their class hides, best first: greedy suppression."""
    order = scores.argsort(descending=True)
    hides = ((overlaps(boxes[order]) > overlap) & (kinds[order][:, None] == kinds[order])).tolist()
    kept = list[int]()
    for place in range(len(order)):
        if not any(hides[better][place] for better in kept):
            kept.append(place)
    return order[kept]
