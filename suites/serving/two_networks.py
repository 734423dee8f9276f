"""A detector that finds k objects in a frame and an identifier that looks at each: two networks at different rates.

Beyond Inference (arXiv 2403.12981): where an intermediate result is many crops, what carries them between the services
decides the throughput. The crops are 3 x 160 x 160 bytes each. How many objects a frame has is set or drawn, not
found: the detector's weights are random, its time and products are real.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.serving import images
from suites.serving.couplings import Coupling
from suites.serving.networks import network as network_of
from suites.serving.preprocessing import planes
from suites.serving.resizers import as_tensor

#: Different requests that are sent in turn.
REQUESTS = 8
#: Sides of an object over the frame's shorter side, least and most.
OBJECT = (0.1, 0.4)


class TwoNetworks(nn.Module):
    """Detector, crops, hop, identifier.

    Attributes:
        frames_per_request: frames whose crops are identified together.
        counts: objects of every frame of every request, [requests, frames].
    """

    network_stage = "identify"
    requests = REQUESTS
    preprocess_stages = ("crop",)

    def __init__(
        self, detector: nn.Module, identifier: nn.Module, *, side: int, crop: int, counts: np.ndarray, coupling: str
    ):
        super().__init__()
        self.detector, self.identifier, self.side, self.crop = detector, identifier, side, crop
        self.counts, self.frames_per_request = counts, counts.shape[1]
        most = int(counts.sum(1).max())
        self._coupling = None if coupling == "fused" else Coupling(coupling, 3 * crop * crop, most)

    def stages(self) -> list[tuple[str, Callable[[Any], Any]]]:
        """The stages in order; fused networks have no hop."""
        hop = [] if self._coupling is None else [("hand_over", self._coupling.passed)]
        return [("detect", self.detect), ("crop", self.cut), *hop, ("collate", self.collate),
                ("identify", self.identify), ("post", self.post)]  # fmt: skip

    @property
    def transfer_stages(self) -> tuple[str, ...]:
        """The hop, where there is one."""
        return () if self._coupling is None else ("hand_over",)

    def example_request(self, index: int) -> tuple[Tensor, list[list[tuple[float, float, float, float]]]]:
        """Frames as bytes [frames, height, width, 3], and the boxes of each one's objects: left, top, right, bottom."""
        photos = images.photographs()
        frames = torch.stack(
            [torch.from_numpy(photos[(index + at) % len(photos)]) for at in range(self.frames_per_request)]
        )
        draw = np.random.default_rng(index)
        return frames, [_boxes(draw, int(count), tuple(frames.shape[1:3])) for count in self.counts[index]]

    def detect(self, request: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        """The request, after the detector has looked at its frames."""
        frames, boxes = request
        like = next(self.detector.parameters())
        small = nn.functional.interpolate(
            frames.permute(0, 3, 1, 2).to(like), size=(self.side, self.side), mode="bilinear", align_corners=False
        )
        self.detector(small / 255)
        return frames, boxes

    def cut(self, found: tuple[Tensor, Any]) -> list[bytes]:
        """The objects of all frames, each scaled to a square of bytes."""
        from PIL import Image

        frames, boxes = found
        crops = []
        for frame, own in zip(frames, boxes, strict=True):
            picture = Image.fromarray(frame.numpy())
            for box in own:
                crops.append(picture.resize((self.crop, self.crop), Image.Resampling.BILINEAR, box=box).tobytes())
        return crops

    def collate(self, crops: list[bytes]) -> Tensor:
        """[objects, 3, crop, crop] of their bytes, in 0..1."""
        like = next(self.identifier.parameters())
        if not crops:
            return torch.zeros(0, 3, self.crop, self.crop).to(like)
        pixels = [np.frombuffer(crop, np.uint8).reshape(self.crop, self.crop, 3) for crop in crops]
        return torch.stack([planes(as_tensor(each)) for each in pixels]).to(like) / 255

    def identify(self, crops: Tensor) -> Tensor:
        """A vector for each object, [objects, classes]."""
        if len(crops) == 0:
            return torch.zeros(0, 1).to(crops)
        return self.identifier(crops)

    def post(self, vectors: Tensor) -> Tensor:
        """The vectors at length 1."""
        return nn.functional.normalize(vectors, dim=1)

    def forward(self, crops: Tensor) -> Tensor:
        """What the identifier gives of crops."""
        return self.identifier(crops)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random crops."""
        like = next(self.parameters())
        return (torch.rand(batch, 3, self.crop, self.crop).to(like),)

    def details(self) -> dict[str, Any]:
        """How many objects the frames have, what joins the networks and where the other end runs."""
        joined = {"coupling": "fused"} if self._coupling is None else self._coupling.described()
        return {"objects_per_frame": float(self.counts.mean()), **joined}


def _boxes(draw: np.random.Generator, count: int, size: tuple[int, ...]) -> list[tuple[float, float, float, float]]:
    high, wide = size
    found = []
    for _ in range(count):
        side = draw.uniform(*OBJECT) * min(high, wide)
        left, top = draw.uniform(0, wide - side), draw.uniform(0, high - side)
        found.append((left, top, left + side, top + side))
    return found


def two_networks(
    *,
    k: Count = 5,
    objects: Literal["fixed", "poisson"] = "fixed",
    coupling: Literal["fused", "pipe", "shared_memory", "http", "redis", "fsync_log"] = "fused",
    frames: PositiveInt = 1,
    detector: str = "mobilenet_v2",
    identifier: str = "mobilenet_v2",
    side: PositiveInt = 224,
    crop: PositiveInt = 160,
    draw: Count = 0,
) -> TwoNetworks:
    """A detector and an identifier joined, in evaluation mode with random weights.

    Args:
        k: objects of a frame, or their mean.
        objects: every frame has k, or as many as a Poisson distribution gives.
        coupling: fused, pipe, shared_memory, http, redis or fsync_log: what crops come through.
        frames: whose crops are identified together.
        detector: network that looks at frames.
        identifier: network that looks at crops.
        side: of the frame as the detector sees it.
        crop: side of a crop.
        draw: seed of the numbers of objects.

    Raises:
        UsageError: no such network.
        NotInstalled: a library, or a Redis server, is not there.
    """
    generator = np.random.default_rng(draw)
    shape = (REQUESTS, frames)
    counts = generator.poisson(k, shape) if objects == "poisson" else np.full(shape, k)
    made = TwoNetworks(
        network_of(detector, side), network_of(identifier, crop), side=side, crop=crop, counts=counts, coupling=coupling
    )
    return made.eval()
