"""What a GFL detector learns by: which places answer for which box, and the losses of their answers.

Sources: Zhang et al. 2020, ATSS, arXiv:1912.02424, algorithm 1 (places); Li et al. 2020, arXiv:2006.04388, formulas 2
and 6, weights of section 4 (losses). Everything is dense over places with weights of 0 where none answers: a training
step has no shapes that depend on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.common.torchvision_remedy import import_beside_torchvision

#: Sides of the square that stands for a place, in strides; candidates of a box on each level.
ANCHOR, CANDIDATES = 8, 9
#: Weights of the losses of overlap and of distributions, and the exponent of the focal one.
OVERLAP, DISTRIBUTION, BETA = 2.0, 0.25, 2.0
#: Boxes of an example picture.
BOXES = 8
TINY = 1e-9


@dataclass(frozen=True)
class Places:
    """Where answers stand: centres [places, 2] in pixels, strides [places], and how many places each level has."""

    centres: Tensor
    strides: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, size: tuple[int, ...] | torch.Size, strides: tuple[int, ...], like: Tensor) -> Places:
        """Those of pictures of a size (height, width); each level halves the map before it, rounding up."""
        centres, steps, counts = [], [], []
        for stride in strides:
            high, wide = (-(-int(side) // stride) for side in size)
            y, x = torch.meshgrid(
                torch.arange(high, device=like.device), torch.arange(wide, device=like.device), indexing="ij"
            )
            centres.append((torch.stack((x, y), -1).flatten(0, 1).to(like.dtype) + 0.5) * stride)
            steps.append(torch.full((high * wide,), float(stride), device=like.device, dtype=like.dtype))
            counts.append(high * wide)
        return cls(torch.cat(centres), torch.cat(steps), tuple(counts))

    def distances(self, sides: Tensor) -> Tensor:
        """Mean distances in pixels [batch, places, 4] of distributions [batch, places, 4, bins], as logits."""
        bins = torch.arange(sides.shape[-1], device=sides.device, dtype=sides.dtype)
        return (sides.softmax(-1) @ bins) * self.strides[:, None]

    def boxes(self, distances: Tensor) -> Tensor:
        """Two corners [batch, places, 4] of distances to left, top, right and bottom."""
        return torch.cat((self.centres - distances[..., :2], self.centres + distances[..., 2:]), -1)

    def anchors(self) -> Tensor:
        """Squares of eight strides around the places, [places, 4]."""
        half = self.strides[:, None] * ANCHOR / 2
        return torch.cat((self.centres - half, self.centres + half), -1)


def assigned(boxes: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """Which box each place answers for, [batch, places], and whether it answers at all.

    A box takes the nine places of each level whose centres are nearest its own, keeps those that overlap it by more
    than mean plus standard deviation and lie inside; a place that two boxes keep goes to the larger overlap.

    Args:
        boxes: corners in pixels, [batch, n, 4].
        places: see `Places`.
    """
    ops = import_beside_torchvision("torchvision.ops")
    overlap = ops.box_iou(boxes.flatten(0, 1), places.anchors()).unflatten(0, boxes.shape[:2])
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    apart = (middle[:, :, None] - places.centres).square().sum(-1)
    near = [
        torch.zeros_like(part).scatter(-1, part.topk(min(CANDIDATES, part.shape[-1]), largest=False).indices, 1.0)
        for part in apart.split(places.counts, -1)
    ]
    candidate = torch.cat(near, -1)
    count = candidate.sum(-1, keepdim=True)
    mean = (overlap * candidate).sum(-1, keepdim=True) / count
    spread = ((overlap - mean).square() * candidate).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    margins = torch.cat((places.centres - boxes[:, :, None, :2], boxes[:, :, None, 2:] - places.centres), -1)
    kept = (candidate > 0) & (overlap >= mean + spread.sqrt()) & (margins.amin(-1) > 0)
    best = torch.where(kept, overlap, -1.0).max(1)
    return best.indices, best.values >= 0


def detection_loss(kinds: Tensor, sides: Tensor, targets: Tensor, places: Places) -> Tensor:
    """Quality focal loss, and of places that answer overlap and distribution losses.

    Args:
        kinds: class logits, [batch, places, classes].
        sides: logits of bins, [batch, places, 4, bins].
        targets: corners in pixels and the class, [batch, n, 5].
        places: see `Places`.
    """
    which, answers = assigned(targets[..., :4], places)
    own = targets.gather(1, which[..., None].expand(-1, -1, 5))
    said, wanted = places.boxes(places.distances(sides)), own[..., :4]
    overlap, generalised = overlaps(said, wanted)
    overlap_loss = 1 - generalised
    quality = overlap.detach() * answers
    count = answers.sum().clamp(min=1)
    one_hot = F.one_hot(own[..., 4].long(), kinds.shape[-1]).to(kinds.dtype)
    focal = _focal(kinds, one_hot * quality[..., None]).sum() / count
    weight = kinds.detach().sigmoid().amax(-1) * answers
    spread_loss = _distribution(sides, wanted, places)
    total = weight.sum().clamp(min=TINY)
    return focal + ((OVERLAP * overlap_loss + DISTRIBUTION * spread_loss) * weight).sum() / total


def overlaps(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of boxes [..., 4] one by one, and the generalised one (arXiv:1902.09630, algorithm 1).

    torchvision's own picks boxes by value, which a count without storage cannot.
    """
    shared = (torch.minimum(one, other)[..., 2:] - torch.maximum(one, other)[..., :2]).clamp(min=0).prod(-1)
    around = (torch.maximum(one, other)[..., 2:] - torch.minimum(one, other)[..., :2]).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (one, other)]
    union = areas[0] + areas[1] - shared
    found = shared / union.clamp(min=TINY)
    return found, found - (around - union) / around.clamp(min=TINY)


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """|sigma - y|^beta times the cross-entropy of a quality y."""
    away = (logits.sigmoid() - wanted).abs() ** BETA
    return away * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def _distribution(sides: Tensor, wanted: Tensor, places: Places) -> Tensor:
    """Cross-entropy of the two bins around each distance, weighted by nearness, mean over sides, [batch, places]."""
    reach = torch.cat((places.centres - wanted[..., :2], wanted[..., 2:] - places.centres), -1)
    distance = (reach / places.strides[:, None]).clamp(0, sides.shape[-1] - 1.01)
    low = distance.floor().long()
    logs = sides.log_softmax(-1)
    below, above = (logs.gather(-1, (low + step)[..., None])[..., 0] for step in (0, 1))
    share = distance - low
    return -(below * (1 - share) + above * share).mean(-1)


def example_boxes(batch: int, resolution: int, classes: int, seed: int) -> Tensor:
    """Seeded boxes of a tenth to a half of the picture's side, inside it, with a class: [batch, 8, 5]."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("cpu"):
        size = (0.1 + 0.4 * torch.rand(batch, BOXES, 2, generator=generator)) * resolution
        corner = torch.rand(batch, BOXES, 2, generator=generator) * (resolution - size)
        kind = torch.randint(classes, (batch, BOXES, 1), generator=generator).float()
    return torch.cat((corner, corner + size, kind), -1)
