"""From an encoded picture to its answer: boxes of a detector, a map of an anomaly judge, edges of a road graph.

The stages before the answer, and those of boxes, are in `suites.common.picture_chain`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.picture_chain import PictureChain
from suites.convnets.deh4r import deh4r
from suites.convnets.leyolo import leyolo
from suites.convnets.simplenet_ad import patchcore, simplenet_ad
from suites.convnets.yolov11 import yolov11
from suites.convnets.yolov12 import yolov12
from suites.convnets.yolov13 import yolov13

#: Detectors of one kind of head that come in sizes of the same names.
YOLOS: dict[str, Callable[..., nn.Module]] = {"yolov11": yolov11, "yolov12": yolov12, "yolov13": yolov13}


class Chain(PictureChain):
    """Stages around one network that ends in boxes, a map or edges."""

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        """The last stages that there are, by name."""
        return {**super().answers(), "map": self.picture, "edges": self.edges}

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


def detector_chain(
    *,
    network: Literal[
        "leyolo_n", "leyolo_s", "yolov11n", "yolov11s", "yolov12n", "yolov12s", "yolov13n", "yolov13s"
    ] = "leyolo_n",
    side: PositiveInt = 320,
) -> Chain:
    """A detector from a JPEG file to boxes.

    Args:
        network: which one.
        side: of the square that it sees, which 32 divides.
    """
    family, size = network[:-1].rstrip("_"), network[-1]
    if family == "leyolo":
        return Chain(leyolo(size=size, resolution=side), side, "boxes", letterbox=True).eval()  # type: ignore[arg-type]
    made = YOLOS[family](scale=size, resolution=side)
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
