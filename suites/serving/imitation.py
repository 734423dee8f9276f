"""A step of BottleFit's first stage for the workload `training_step`: the student imitates the teacher's maps.

Source: arXiv 2201.02693, section IV: squared errors at the target and the stages after it; the teacher, and its stages
that the student keeps, are frozen and stay in evaluation mode; Adam at 1e-3.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.finetuning import teacher_for
from suites.serving.backbones import Backbone, as_backbone
from suites.serving.bottlefit import BottleFit, bottlefit
from suites.serving.two_stage import adam, learning, squared


class Imitation(nn.Module):
    """Teacher and student side by side; its forward is the loss of the first stage."""

    def __init__(self, teacher: Backbone, student: BottleFit):
        super().__init__()
        self.teacher, self.student = teacher.requires_grad_(False), student
        self.student.later.requires_grad_(False)
        self.resolution = teacher.resolution

    def train(self, mode: bool = True) -> Imitation:
        """Encoder and decoder learn; the rest stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        self.student.later.eval()
        return self

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """What the teacher is shown."""
        return self.teacher.example_inputs(batch)

    def forward(self, images: Tensor) -> Tensor:
        """Squared errors of all maps, a number."""
        with torch.no_grad():
            maps = self.teacher.maps(images, self.student.imitated)
        return squared(self.student.maps(self.student.encoder(images)), maps)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The forward's number; there are no labels."""
        return outputs

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """None that counts."""
        return torch.zeros(batch)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Adam of encoder and decoder."""
        return adam(learning([self.student.encoder, self.student.decoder]))


def bottlefit_step(model: nn.Module, *, b: PositiveInt = 3, version: Literal[1, 2, 3] = 2) -> Imitation:
    """A step of the first stage of a student of the network.

    Args:
        model: the teacher.
        b: channels of the bottleneck.
        version: where it is cut.

    Raises:
        ValueError: the network has no stages that are known, or the decoder cannot give the teacher's map.
    """
    network = as_backbone(model)
    teacher = teacher_for(network, 1)
    assert teacher is not None
    student = bottlefit(network, b=b, version=version, epochs=0)
    student.check_imitates()
    return Imitation(teacher, student).eval()
