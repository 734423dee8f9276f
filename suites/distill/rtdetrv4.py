"""RT-DETRv4: a frozen vision transformer aligns a detector's deepest map while it trains; a training recipe.

Source: Liao et al. 2025, RT-DETRv4, arXiv:2510.25257, section 3, with the released code's input and steering (read).
The injector is a linear map on the tokens that leave the transformer layer of stride 32. The teacher sees the picture
averaged over 2 x 2 pixels, so that its patches of 16 are the student's places.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from bench.errors import UsageError
from suites.common.digits_vit import digits_vit
from suites.common.hf_bridge import import_transformers
from suites.distill.dfine import DFine
from suites.distill.digits_hybrid import DigitsHybrid
from suites.distill.steering import BANDS, LAST, Band, gradient_share
from suites.distill.teaching import BATCH, STEP, Tap, Taught, frozen, learned_by, of_task

#: Pixels of a side that the teacher's input averages, and samples of an epoch of digits.
POOL, SAMPLES = 2, 1200
#: ImageNet's means and deviations, which the teacher's input is normalised by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PooledVit(nn.Module):
    """A vision transformer that sees the picture averaged over 2 x 2 pixels; `patches` are its last tokens as a map."""

    def __init__(self, width: int, heads: int, depth: int, patch: int, resolution: int):
        super().__init__()
        self.net = digits_vit(
            width=width, heads=heads, depth=depth, patch=patch, resolution=resolution // POOL, mlp_ratio=2.0
        )
        self.width, self.resolution, self.classes, self.side = width, resolution, self.net.classes, self.net.grid

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.net(F.avg_pool2d(images, POOL))

    def patches(self, images: Tensor) -> Tensor:
        """[batch, places, width]."""
        tokens = self.net.encode(F.avg_pool2d(images, POOL))
        return self.net.norm(tokens.x[:, tokens.protected :])


class DinoV3(nn.Module):
    """DINOv3 ViT-B/16 of transformers with random weights: class token, four registers, a token a patch."""

    mean: Tensor
    std: Tensor

    def __init__(self, resolution: int):
        super().__init__()
        transformers = import_transformers()
        config = transformers.DINOv3ViTConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=16,
            num_register_tokens=4, image_size=resolution // POOL,
        )  # fmt: skip
        self.net, self.width, self.special = transformers.DINOv3ViTModel(config), 768, 1 + 4
        self.resolution, self.side = resolution, resolution // POOL // 16
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def patches(self, images: Tensor) -> Tensor:
        """[batch, places, 768]."""
        seen = F.avg_pool2d((images - self.mean) / self.std, POOL)
        return self.net(pixel_values=seen).last_hidden_state[:, self.special :]


def semantic_loss(tokens: Tensor, wanted: Tensor) -> Tensor:
    """Mean over places of 1 - cosine of tokens [batch, places, width]."""
    return (1 - F.cosine_similarity(tokens, wanted, dim=-1)).mean()


class RtDetrV4(Taught):
    """The detector, the frozen teacher, the injector, and the weight of its loss, which an epoch's gradients steer."""

    def __init__(self, student: nn.Module, teacher: PooledVit | DinoV3, band: Band, steered: bool):
        super().__init__(student)
        side = self.resolution // self.student.stride
        if side != teacher.side:
            raise UsageError(
                f"rtdetrv4: the student's deepest map has side {side} and the teacher's patches {teacher.side}"
            )
        self.teacher, self.injector = frozen(teacher), nn.Linear(self.student.width, teacher.width)
        self.tap, self.band, self.steered, self.weight = Tap(self.student.deepest), band, steered, band.start
        self._shares: list[float] = []
        self._course: dict[str, list[float]] = {"weight": [band.start], "gradient_share": []}

    def teachers(self) -> list[nn.Module]:
        """The transformer."""
        return [self.teacher]

    def teach(self, images: Tensor) -> tuple[Any, Tensor]:
        """What the student answers, and the semantic loss."""
        said = self.student(images)
        tokens = self.tap.take()
        if tokens.dim() == 4:  # a map: channels first
            tokens = tokens.flatten(2).mT
        with torch.no_grad():
            wanted = self.teacher.patches(images)
        return said, semantic_loss(self.injector(tokens), wanted)

    def loss(self, outputs: tuple[Any, Tensor], targets: Tensor) -> Tensor:
        """The student's own loss and the weighted semantic one."""
        said, semantic = outputs
        own = getattr(self.student, "loss", F.cross_entropy)
        return own(said, targets) + self.weight * semantic

    def after_step(self, step: int, steps: int) -> None:
        """Note the layer's share of the gradients; at the end of an epoch steer."""
        self._shares.append(gradient_share(self.student.deepest, self.parameters()))
        epoch = -(-SAMPLES // BATCH)
        if (step + 1) % epoch:
            return
        share = sum(self._shares) / len(self._shares)
        self._shares.clear()
        if self.steered:
            self.weight = self.band.next_weight(self.weight, share, last=step + 1 >= (1 - LAST) * steps)
        self._course["weight"].append(self.weight)
        self._course["gradient_share"].append(share)

    def history(self) -> dict[str, list[float]]:
        """The weight of every epoch, the share of its gradients, and the teacher's own quality."""
        return {**self._course, **super().history()}


def rtdetrv4(
    model: nn.Module,
    *,
    size: Literal["S", "M", "L", "X"] | None = None,
    start: Positive | None = None,
    steered: bool = True,
    teacher_depth: PositiveInt = 2,
    teacher_width: PositiveInt = 48,
    training_steps: Count = 0,
    workload: str = "forward",
) -> nn.Module:
    """The plain detector, learned by the recipe where there are steps; for a training step the recipe itself.

    Args:
        model: `dfine`, whose teacher is DINOv3 ViT-B/16, or `digits_hybrid`, whose teacher is a small transformer.
        size: whose band and weights steer; None is the detector's own, and S for digits.
        start: the first weight; None is the size's own.
        steered: whether the weight follows the gradients; else it stays where it starts.
        teacher_depth: blocks of the small transformer, learned first on the student's task.
        teacher_width: its features.
        training_steps: batches of 32 to learn from the start; 0 leaves the student as it is.
        workload: filled in from the case.

    Raises:
        UsageError: a model without such a layer, or maps that do not fit.
        ValueError: no task to learn from.
    """
    if not isinstance(model, DFine | DigitsHybrid):
        raise UsageError(f"rtdetrv4 aligns the attention layer of dfine or digits_hybrid, not {type(model).__name__}")
    band = BANDS[size or str(getattr(model, "size", "S"))]
    band = band if start is None else replace(band, start=start)

    def pooled() -> PooledVit:
        patch = model.stride // POOL
        heads = next(count for count in (4, 3, 2, 1) if teacher_width % count == 0)
        return PooledVit(teacher_width, heads, teacher_depth, patch, model.resolution)

    if workload == STEP:
        teacher = DinoV3(model.resolution) if isinstance(model, DFine) else pooled()
        return RtDetrV4(model, teacher, band, steered).eval()

    def make(student: Any, task: Any) -> Taught:
        return RtDetrV4(student, of_task(task, pooled, "rtdetrv4_teacher"), band, steered)

    settings = {
        "size": size, "start": start, "steered": steered, "depth": teacher_depth, "width": teacher_width
    }  # fmt: skip
    return learned_by(model, rtdetrv4, settings, training_steps, make)
