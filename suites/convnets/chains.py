"""From an encoded picture to its answer: boxes of a detector, a map of an anomaly judge, edges of a road graph.

A request is a JPEG file. Its stages are `decode`, `prepare` (letterbox or resize, normalised), `infer`, and what makes
the answer of what the network gives. Weights are random, so that which boxes survive says nothing; as many candidates
as in use come into the suppression (`CANDIDATES`), whatever their scores.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from suites.common.detection import SIDES
from suites.convnets.deh4r import deh4r
from suites.convnets.leyolo import leyolo
from suites.convnets.simplenet_ad import patchcore, simplenet_ad
from suites.convnets.yolov13 import yolov13

#: Height and width of the pictures that are sent, and the quality of their files.
PICTURE, QUALITY = (360, 480), 90
#: Boxes that come into the suppression, that leave it at most, and the overlap from which one hides another.
CANDIDATES, KEPT, OVERLAP = 300, 100, 0.65
STRIDES = (8, 16, 32)
GREY = 114 / 255
Stage = tuple[str, Callable[[Any], Any]]


class Chain(nn.Module):
    """Stages around one network, which is what is counted."""

    requests = 8

    def __init__(self, network: nn.Module, side: int, answer: str, *, letterbox: bool):
        super().__init__()
        self.network, self.side, self.letterbox, self.answer = network, side, letterbox, answer

    def stages(self) -> list[Stage]:
        """The stages in order."""
        ways: dict[str, Callable[[Any], Any]] = {"boxes": self.boxes, "map": self.picture, "edges": self.edges}
        return [("decode", decoded), ("prepare", self.prepare), ("infer", self.infer), (self.answer, ways[self.answer])]

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

    def picture(self, said: tuple[Tensor, Tensor]) -> tuple[float, bytes]:
        """The picture's score, and the map from 0 to 255 as bytes."""
        score, scene = said
        low, high = scene.amin(), scene.amax()
        return float(score[0]), (255 * (scene[0, 0] - low) / (high - low).clamp_min(1e-12)).byte().numpy().tobytes()

    def edges(self, said: Tensor) -> list[tuple[int, float, float]]:
        """Of every vertex its valid neighbours: its number and where they lie from it."""
        valid = said[0, ..., 0] > said[0, ..., 1]
        where, offsets = valid.nonzero()[:, 0].tolist(), said[0][valid][:, 2:].tolist()
        return [(vertex, x, y) for vertex, (x, y) in zip(where, offsets, strict=True)]


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


def detector_chain(
    *, network: Literal["leyolo_n", "leyolo_s", "yolov13n", "yolov13s"] = "leyolo_n", side: PositiveInt = 320
) -> Chain:
    """A detector from a JPEG file to boxes.

    Args:
        network: which one.
        side: of the square that it sees, which 32 divides.
    """
    name, size = network[:-1].rstrip("_"), network[-1]
    made = leyolo(size=size, resolution=side) if name == "leyolo" else yolov13(scale=size, resolution=side)  # type: ignore[arg-type]
    return Chain(made, side, "boxes", letterbox=True).eval()


def anomaly_chain(
    *, judge: Literal["simplenet", "patchcore"] = "simplenet",
    backbone: Literal["wide_resnet50_2", "resnet18"] = "resnet18", width: PositiveInt = 384,
    kept: PositiveInt = 4096, side: PositiveInt = 96,
) -> Chain:  # fmt: skip
    """An anomaly detector from a JPEG file to a score and a map.

    Args:
        judge: a discriminator, or a bank of vectors.
        backbone: timm's network.
        width: of features.
        kept: vectors of the bank.
        side: of the square that it sees.
    """
    if judge == "simplenet":
        made = simplenet_ad(backbone=backbone, width=width, resolution=side)
    else:
        made = patchcore(backbone=backbone, width=width, kept=kept, resolution=side)
    return Chain(made, side, "map", letterbox=False).eval()


def road_chain(
    *, form: Literal["batched", "sequential", "grow"] = "batched", vertices: PositiveInt = 16, side: PositiveInt = 64
) -> Chain:
    """A road graph from a JPEG file to edges.

    Args:
        form: which of three executions.
        vertices: where the graph begins.
        side: of the square that it sees, which 8 divides.
    """
    return Chain(deh4r(form=form, vertices=vertices, resolution=side), side, "edges", letterbox=False).eval()
