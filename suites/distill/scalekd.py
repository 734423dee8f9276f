"""ScaleKD: a vision transformer teaches any student through attention projectors in feature space; a training recipe.

Source: Fan et al. 2024, ScaleKD, arXiv:2411.06786, section 3, with the layers of its released code (Apache-2.0, read).
Two views of a map are compared: the map itself, and the map without its zero-frequency component. That component of a
two-dimensional cosine transform is the mean over places, and its inverse is that mean everywhere, so that taking it out
is subtracting the mean; the test has the transform itself.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count
from bench.errors import UsageError
from suites.common.digits_cnn import DigitsCnn
from suites.common.digits_resnet import DigitsResnet
from suites.common.training import divergence
from suites.distill.teaching import STEP, Tap, Taught, frozen, learned_by, of_task
from suites.distill.vit_teachers import DIGITS, Seen, SwinTeacher, VitTeacher, teacher_of

#: Weights of the two views, share of the logits' loss, and what scores are multiplied with before the softmax.
DIRECT, WITHOUT_MEAN, LOGITS, SHARPNESS = 0.08, 0.06, 0.5, 5.0
#: Heads of attention by the teacher's width, as released for Swin; any other width has eight, or one.
HEADS = {768: 16, 1536: 24}
#: The teacher of the paper's main table.
LARGE = "swin_large_patch4_window7_224"


class Projector(nn.Module):
    """A student's map in the teacher's place: queries attend to it, then a network of four times the width.

    Queries are learned unless they are given.
    """

    def __init__(self, student: int, side: int, teacher: int, query_side: int, learned: bool):
        super().__init__()
        self.side, self.heads = query_side, HEADS.get(teacher, 8 if teacher % 8 == 0 else 1)
        self.enter = nn.Sequential(nn.Conv2d(student, student, 3, padding=1), nn.BatchNorm2d(student), nn.ReLU())
        self.places = nn.Parameter(torch.empty(1, student, side, side))
        self.query = nn.Embedding(query_side**2, teacher) if learned else None
        self.query_map = nn.Sequential(nn.Conv2d(teacher, teacher, 1), nn.ReLU())
        self.q, self.out = nn.Linear(teacher, teacher), nn.Linear(teacher, teacher)
        self.k, self.v = nn.Linear(student, teacher), nn.Linear(student, teacher)
        self.norm = nn.LayerNorm(teacher)
        self.network = nn.Sequential(nn.Linear(teacher, 4 * teacher), nn.GELU(), nn.Linear(4 * teacher, teacher))
        nn.init.trunc_normal_(self.places, std=0.02)

    def forward(self, x: Tensor, queries: Tensor | None = None) -> Tensor:
        """[batch, teacher, side, side] of a student's map.

        Args:
            x: [batch, student, side, side].
            queries: a map of the teacher's width; None for the learned ones.
        """
        if queries is None:
            assert self.query is not None
            queries = self.query.weight.mT.unflatten(1, (self.side, self.side))[None].expand(len(x), -1, -1, -1)
        seen = (self.enter(x) + self.places).flatten(2).mT
        q = self._heads(self.q(self.query_map(queries).flatten(2).mT))
        scale = SHARPNESS / math.sqrt(q.shape[-1])
        mixed = F.scaled_dot_product_attention(q, self._heads(self.k(seen)), self._heads(self.v(seen)), scale=scale)
        y = self.norm(self.out(mixed.transpose(1, 2).flatten(2)))
        return (y + self.network(y)).mT.unflatten(2, (self.side, self.side))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def without_mean(x: Tensor) -> Tensor:
    """A map [batch, channels, height, width] without the zero-frequency component of its cosine transform."""
    return x - x.mean((2, 3), keepdim=True)


def apart(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of maps normalised over channels, summed over places, a sample."""
    return (F.normalize(student, dim=1) - F.normalize(teacher, dim=1)).square().sum() / len(student)


class View(nn.Module):
    """The two projectors of one view."""

    def __init__(self, taps: list[Stage], teacher: SwinTeacher | VitTeacher, perception: bool):
        super().__init__()
        third, fourth = taps
        self.third = Projector(third.width, third.side, teacher.widths[0], teacher.sides[0], True)
        self.fourth = Projector(fourth.width, fourth.side, teacher.widths[1], teacher.sides[1], not perception)


class Stage:
    """Where a student's stage is looked at: its tap, channels and side."""

    def __init__(self, module: nn.Module, width: int, side: int):
        self.tap, self.width, self.side = Tap(module), width, side

    def take(self) -> Tensor:
        """The map that it gave last, [batch, width, side, side]."""
        x = self.tap.take()
        if x.dim() == 3:  # tokens, special ones first
            return x[:, -(self.side**2) :].mT.unflatten(2, (self.side, self.side))
        return x if x.shape[1] == self.width and x.shape[2] == self.side else x.permute(0, 3, 1, 2)


class ScaleKd(Taught):
    """The student, the frozen teacher and a projector for each stage and view."""

    def __init__(
        self, student: nn.Module, teacher: SwinTeacher | VitTeacher, *, dual: bool, perception: bool, logits: bool
    ):
        super().__init__(student)
        if logits and self.classes != teacher.classes:
            raise UsageError(
                f"scalekd: the student tells {self.classes} classes and the teacher {teacher.classes}: take "
                "one of the same, or logits=False"
            )
        self.teacher = frozen(teacher)
        self.perception, self.logits = perception, logits
        self.stages = stages_of(student)
        self.views = nn.ModuleList(View(self.stages, teacher, perception) for _ in range(1 + dual))

    def teachers(self) -> list[nn.Module]:
        """The transformer."""
        return [self.teacher]

    def teach(self, images: Tensor) -> tuple[Tensor, Seen, Tensor]:
        """Student's logits, what the teacher gives, and the loss of the features."""
        said = self.student(images)
        third, fourth = (stage.take() for stage in self.stages)
        with torch.no_grad():
            seen: Seen = self.teacher(images)
        losses, views = [], cast("list[View]", list(self.views))
        for view, weight, change in zip(views, (DIRECT, WITHOUT_MEAN), (lambda x: x, without_mean), strict=False):
            middle = view.third(third)
            if self.perception:
                middle = self.teacher.last_stage(middle)
            wanted = seen.fourth if self.perception else seen.third
            losses.append(weight * apart(change(middle), change(wanted)))
            last = view.fourth(fourth, middle if self.perception else None)
            losses.append(weight * apart(change(last), change(seen.fourth)))
        return said, seen, torch.stack(losses).sum()

    def loss(self, outputs: tuple[Tensor, Seen, Tensor], targets: Tensor) -> Tensor:
        """Features, and half cross-entropy and half the divergence from the teacher's logits."""
        said, seen, features = outputs
        hard = F.cross_entropy(said, targets)
        return features + ((1 - LOGITS) * hard + LOGITS * divergence(said, seen.logits) if self.logits else hard)


def stages_of(student: Any) -> list[Stage]:
    """The third and the fourth stage of a network of timm or of a small network of digits.

    Raises:
        UsageError: a network whose stages are not known.
    """
    pixels = int(student.resolution)
    if isinstance(student, DigitsCnn):
        width = student.head.in_features
        return [Stage(student.layers[2], width // 2, -(-pixels // 4)), Stage(student.layers[4], width, -(-pixels // 8))]
    if isinstance(student, DigitsResnet):
        width = student.head.in_features
        return [Stage(student.stage2, width // 2, -(-pixels // 2)), Stage(student.stage3, width, -(-pixels // 4))]
    info = getattr(student, "feature_info", None)
    if not info:
        raise UsageError(
            f"scalekd: the stages of {type(student).__name__} are not known: take digits_cnn, digits_resnet20 or a "
            "network of timm with feature_info"
        )
    plain = info[-1]["reduction"] == info[-2]["reduction"]  # no stages: three quarters of the depth, and the end
    rows = [info[3 * len(info) // 4 - 1] if plain else info[-2], info[-1]]
    return [Stage(student.get_submodule(row["module"]), row["num_chs"], -(-pixels // row["reduction"])) for row in rows]


def scalekd(
    model: nn.Module,
    *,
    teacher: str = "auto",
    dual: bool = True,
    perception: bool = True,
    logits: bool = True,
    training_steps: Count = 0,
    workload: str = "forward",
) -> nn.Module:
    """The plain student, learned by the recipe where there are steps; for a training step the recipe itself.

    Args:
        model: the student: digits_cnn, digits_resnet20 or a network of timm with four stages.
        teacher: `digits`, learned first on the student's task, or a Swin or vision transformer of timm; `auto` is the
            one of digits for students of digits, and Swin-L for all others.
        dual: whether there is the second view, without the mean.
        perception: whether the third stage runs through the teacher's fourth; without it it is compared with the
            teacher's third, and the fourth stage's queries are learned.
        logits: whether the teacher's logits are learned from.
        training_steps: batches of 32 to learn from the start; 0 leaves the student as it is.
        workload: filled in from the case.

    Raises:
        UsageError: a student or teacher that is none, or another teacher's name with steps to learn.
        ValueError: no task to learn from.
    """
    parts = {"dual": dual, "perception": perception, "logits": logits}
    if teacher == "auto":
        teacher = DIGITS if isinstance(model, DigitsCnn | DigitsResnet) else LARGE
    if workload == STEP:
        made = teacher_of(teacher, int(model.resolution))  # type: ignore[arg-type]
        return ScaleKd(model, made, **parts).eval()
    if training_steps and teacher != DIGITS:
        raise UsageError(f"scalekd: teacher={teacher!r} has no weights to teach by: learn with teacher='{DIGITS}'")

    def make(student: Any, task: Any) -> Taught:
        taught = of_task(task, lambda: teacher_of(teacher, student.resolution).net, "scalekd_teacher")
        return ScaleKd(student, VitTeacher(taught), **parts)

    return learned_by(model, scalekd, {"teacher": teacher, **parts}, training_steps, make)
