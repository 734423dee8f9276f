"""MedDet: several detectors teach a small one by the maps of their pyramids, and a discriminator; a training recipe.

Source: Zhang et al. 2024, MedDet, arXiv:2409.00204, section 3 (a reconstruction: how large the parts are and what each
loss weighs is not printed). The teachers' pyramids are aligned and added with learned shares; a generator makes maps
of the student's pyramid that are to be like that sum, and a discriminator tells the two apart. Its gradient is turned
round on the way to the generator, so that both learn in one pass.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Positive
from bench.errors import UsageError
from suites.distill.gfl import Gfl, gfl
from suites.distill.teaching import STEP, Taught, frozen

#: Teachers in the order in which they join, and the Euler steps of the block in their heads, which no step reaches:
#: maps are compared, not answers.
TEACHERS, EULER = ("resnet50", "resnet101", "resnet152"), 4
#: Kernel of the two kinds of alignment.
KERNELS = {"1x1": 1, "spatial": 3}


class _TurnRound(torch.autograd.Function):
    """The same numbers, their gradient with the other sign (Ganin and Lempitsky 2015, arXiv:1409.7495, 3.1)."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def standardised(x: Tensor) -> Tensor:
    """Each channel of a map [batch, channels, h, w] with mean 0 and deviation 1 over batch and places."""
    mean, spread = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True, correction=0)
    return (x - mean) / (spread + 1e-6)


class MedDet(Taught):
    """The student, frozen teachers, alignment and shares of each, a generator and a discriminator."""

    def __init__(self, student: Gfl, teachers: list[Gfl], align: str, feature: float, adversary: float):
        super().__init__(student)
        channels, kernel = student.channels, KERNELS[align]
        self.feature, self.adversary = feature, adversary
        self.taught_by = nn.ModuleList(frozen(teacher) for teacher in teachers)
        self.aligned = nn.ModuleList(nn.Conv2d(channels, channels, kernel, padding=kernel // 2) for _ in teachers)
        self.shares = nn.Parameter(torch.zeros(len(teachers)))
        self.generator = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(channels // 4, 1, 1)
        )

    def teachers(self) -> list[nn.Module]:
        """The larger detectors."""
        return list(self.taught_by)

    def teach(self, images: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The student's distributions, and the loss of its maps."""
        own = self.student.levels(images)
        with torch.no_grad():
            theirs = [teacher.levels(images) for teacher in cast("list[Gfl]", list(self.taught_by))]
        return self.student.head(own), self.map_loss(own, theirs)

    def fused(self, theirs: list[list[Tensor]]) -> list[Tensor]:
        """The teachers' levels, aligned and added with shares that sum to 1."""
        shares = self.shares.softmax(0)
        by_teacher = [[layer(x) for x in levels] for layer, levels in zip(self.aligned, theirs, strict=True)]
        return [
            torch.stack([share * x for share, x in zip(shares, level, strict=True)]).sum(0)
            for level in zip(*by_teacher, strict=True)
        ]

    def map_loss(self, own: list[Tensor], theirs: list[list[Tensor]]) -> Tensor:
        """Squared error of standardised maps, and how well the two kinds are told apart, mean over levels."""
        losses = []
        for x, wanted in zip(own, self.fused(theirs), strict=True):
            made = self.generator(x)
            near = F.mse_loss(standardised(made), standardised(wanted))
            fake, real = self.discriminator(_turned(made)), self.discriminator(wanted.detach())
            told = F.softplus(fake).mean() + F.softplus(-real).mean()
            losses.append(self.feature * near + self.adversary * told)
        return torch.stack(losses).mean()

    def loss(self, outputs: tuple[tuple[Tensor, Tensor], Tensor], targets: Tensor) -> Tensor:
        """The detector's own loss and that of its maps."""
        said, maps = outputs
        return self.student.loss(said, targets) + maps


def _turned(x: Tensor) -> Tensor:
    return _TurnRound.apply(x)


def meddet(
    model: nn.Module,
    *,
    teachers: Annotated[int, Field(ge=1, le=3)] | list[str] = 1,
    align: Literal["1x1", "spatial"] = "1x1",
    feature: Positive = 1.0,
    adversary: Positive = 0.1,
    workload: str = "forward",
) -> nn.Module:
    """The plain detector; for a training step the recipe with one, two or three teachers.

    Args:
        model: the student, a GFL detector.
        teachers: how many of ResNet-50, ResNet-101 and ResNet-152, or names of backbones; all else of a teacher is as
            in the student.
        align: layer between a teacher's map and the sum.
        feature: weight of the error of the maps.
        adversary: weight of the discriminator's loss.
        workload: filled in from the case.

    Raises:
        UsageError: a model that is no such detector, or no teacher.
    """
    if not isinstance(model, Gfl):
        raise UsageError(f"meddet teaches a GFL detector such as gfl_mobilenet_v2, not {type(model).__name__}")
    names = list(TEACHERS[:teachers]) if isinstance(teachers, int) else teachers
    if not names:
        raise UsageError("meddet: teachers=[] leaves nobody to learn from: take 1, 2, 3 or names of backbones")
    if workload != STEP:
        return model
    head = model.head
    made = [
        gfl(backbone=cast("Any", name), width=model.factor if name == "mobilenet_v2" else 1.0, channels=model.channels,
            convs=len(head.kinds) // 3, classes=model.classes, bins=head.bins, ode_steps=EULER,
            resolution=model.resolution)
        for name in names
    ]  # fmt: skip
    return MedDet(model, made, align, feature, adversary).eval()
