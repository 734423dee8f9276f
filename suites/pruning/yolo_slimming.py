"""YOLOv8 slimmed by the gains of its norms, tuned with channel-wise distillation of its neck.

Source: arXiv:2509.12918, section 3: an L1 term on gains whose rate falls, i (1 - 0.9 e / E); the half of each layer's
channels with the smallest gains goes, one mask for what splits and sums tie; the detect head's last convolutions and
the integral stay; KL between softmaxes over places of each neck channel (Shu et al. 2021, arXiv:2011.13256).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bench.config.settings import Count, Positive, Rate
from suites.common.picture_chain import PictureChain
from suites.pruning.learning import cut
from suites.pruning.nets.yolov8 import YoloV8
from suites.pruning.rethinking import chosen_groups, keeps_by
from suites.pruning.rounding import check_sparsity
from suites.pruning.scores import gains

WEIGHT, TEMPERATURE = 1.0, 4.0


def gain_rate(epoch: float, epochs: float, initial: float = 1e-2) -> float:
    """Rate of the L1 term on gains: it falls from its initial value to a tenth of it."""
    return initial * (1 - 0.9 * epoch / epochs)


def channel_divergence(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """KL(teacher || student) between softmaxes over places, x T^2, averaged over channels and images.

    Args:
        student: [batch, channels, height, width].
        teacher: the same shape.
        temperature: T.
    """
    wanted = (teacher.flatten(2) / temperature).log_softmax(-1)
    own = (student.flatten(2) / temperature).log_softmax(-1)
    return (wanted.exp() * (wanted - own)).sum(-1).mean() * temperature**2


class Translated(nn.Module):
    """1x1 maps from the student's neck channels to the teacher's, for the distillation alone."""

    def __init__(self, student: list[int], teacher: list[int]):
        super().__init__()
        pairs = zip(student, teacher, strict=True)
        self.maps = nn.ModuleList(nn.Conv2d(own, wanted, 1) for own, wanted in pairs)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features of the teacher's widths."""
        return [layer(x) for layer, x in zip(self.maps, features, strict=True)]


def yolo_slimming(
    model: nn.Module, *, rate: Rate = 0.5, box_rate: Rate = 0.5, tuning: Count = 0, learning: Positive = 1e-3
) -> nn.Module:
    """A YOLOv8 without the share of every layer's channels that has the smallest gains.

    Args:
        model: a YOLOv8 of this suite, or one with its stages (`yolov8_chain`), whose network is slimmed.
        rate: share that goes.
        box_rate: the same in the box branches of the head.
        tuning: batches of channel-wise distillation against the dense network on noise; there is no detection data
            here, so this shows the step and claims no precision.
        learning: its rate.

    Raises:
        ValueError: another network, or one whose norms were folded.
    """
    check_sparsity(rate, "rate")
    if isinstance(model, PictureChain):
        model.network = yolo_slimming(model.network, rate=rate, box_rate=box_rate, tuning=tuning, learning=learning)
        model.kernel = "slim"  # type: ignore[assignment]
        return model
    if not isinstance(model, YoloV8):
        raise ValueError(f"yolo_slimming slims YOLOv8, not {type(model).__name__}; slim and channel_slim take others")
    if not any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
        raise ValueError("yolo_slimming scores channels by the gains of norms: build the model with fused=False")
    teacher = copy.deepcopy(model).eval() if tuning else None
    groups = chosen_groups(model, "yolo_slimming")
    scores = [gains(model, group) for group in groups]
    scores = [torch.arange(len(s), 0, -1, device="cpu").float() if s.is_meta else s for s in scores]
    rates = [box_rate if ".boxes." in group.name else rate for group in groups]
    cut(model, groups, keeps_by(scores, rates))
    if teacher is not None:
        distil(model, teacher, tuning, learning)
    return model


def distil(student: YoloV8, teacher: YoloV8, steps: int, rate: float, seed: int = 0) -> list[float]:
    """Loss of each step of channel-wise distillation on seeded noise; the student is tuned in place."""
    generator = torch.Generator().manual_seed(seed)
    size = (2, 3, student.resolution, student.resolution)
    with torch.no_grad():
        widths = [[x.shape[1] for x in net.neck(torch.zeros(size))] for net in (student, teacher)]
    translated = Translated(*widths)
    optimizer = torch.optim.AdamW([*student.parameters(), *translated.parameters()], rate)
    found = []
    student.train()
    for _ in range(steps):
        images = torch.rand(size, generator=generator)
        with torch.no_grad():
            wanted = teacher.neck(images)
        own = translated(student.neck(images))
        loss = WEIGHT * torch.stack([channel_divergence(a, b) for a, b in zip(own, wanted, strict=True)]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    student.eval()
    return found
