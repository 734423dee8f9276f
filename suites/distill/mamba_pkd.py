"""Mamba-PKD: a sequence of small scan networks, each learning what the sum of those before it leaves of a teacher.

Source: Medina et al. 2025, Mamba-PKD, arXiv:2503.01727, section 3 (a reconstruction: its sizes are not printed). The
loss of student j is alpha times cross-entropy and 1 - alpha times the divergence from the teacher, both of the sum of
the logits of students 1 to j, of which only the j-th is learned from it. A sum may end after any student.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from bench.errors import UsageError
from suites.common.from_scratch import RATE, learned
from suites.common.scan import VisionScan, vision_scan
from suites.common.training import Pace, divergence, fit

#: Width and blocks of the students, weakest first: chosen here so that shares of products are about those of the paper.
STUDENTS = ((4, 1), (8, 1), (12, 1), (16, 1), (24, 1), (24, 2), (36, 2))


class Sum(nn.Module):
    """The sum of the logits of several networks on the same pictures."""

    def __init__(self, students: Sequence[nn.Module], resolution: int, classes: int):
        super().__init__()
        self.students = nn.ModuleList(students)
        self.resolution, self.classes = resolution, classes

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        first, *others = self.students
        said = first(images)
        for student in others:
            said = said + student(images)
        return said


def boosting_loss(parts: Sequence[Tensor], labels: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """The sum of the students' losses, each of the sum so far with what came before it taken as given.

    Args:
        parts: logits of each student, [batch, classes].
        labels: [batch].
        teacher: its logits.
        alpha: share of the cross-entropy.
    """
    before, losses = torch.zeros_like(teacher), []
    for part in parts:
        said = before.detach() + part
        losses.append(alpha * F.cross_entropy(said, labels) + (1 - alpha) * divergence(said, teacher))
        before = said
    return torch.stack(losses).sum()


def mamba_teacher(
    *, width: PositiveInt = 56, depth: PositiveInt = 4, patch: PositiveInt = 8, resolution: PositiveInt = 32
) -> VisionScan:
    """A scan network of ten digits, which the students learn from; also the plain smaller one they are set beside.

    Args:
        width: features of a token.
        depth: blocks.
        patch: side of a patch in pixels: 8 gives 4 x 4 patches, 4 gives 64 steps of a digit.
        resolution: side of the picture.

    Raises:
        ValueError: the patch does not divide the picture.
    """
    return vision_scan(width=width, depth=depth, patch=patch, resolution=resolution, classes=10, expand=2, state=4)


def mamba_pkd(
    model: nn.Module,
    *,
    students: Annotated[int, Field(ge=1, le=7)] = 7,
    alpha: Rate = 0.5,
    training_steps: Count = 0,
) -> nn.Module:
    """The first so many of seven students in the teacher's place; others are not there.

    Args:
        model: the teacher, a scan network of `suites.common.scan`.
        students: how many of the sequence answer.
        alpha: share of the cross-entropy.
        training_steps: batches of 16 that all seven learn from, whatever `students` says; 0 gives their cost alone.

    Raises:
        UsageError: another teacher.
        ValueError: no task to learn from.
    """
    if not isinstance(model, VisionScan):
        raise UsageError(f"mamba_pkd learns from a scan network such as mamba_teacher, not from {type(model).__name__}")
    patch = model.resolution // model.grid
    made = [
        vision_scan(
            width=w, depth=d, patch=patch, resolution=model.resolution, classes=model.classes, expand=2, state=4
        )
        for w, d in STUDENTS
    ]
    everyone = Sum(made, model.resolution, model.classes).eval()

    def loop(module: Any, batches: Any, steps: int) -> list[float]:
        def loss(images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = model(images)
            return boosting_loss([student(images) for student in module.students], labels, wanted, alpha)

        return fit(module, batches, loss, Pace(steps, RATE))

    found: Any = learned(everyone, model, mamba_pkd, {"alpha": alpha}, training_steps, loop)
    if training_steps:
        found.learned |= {"role": "student", "seconds": round(found.method_cost["seconds"], 1)}
    found.students = found.students[:students]
    return found


def scan_macs(width: int, depth: int, patch: int, resolution: int, classes: int = 10, state: int = 4) -> int:
    """Products of a picture: patches, blocks of two directions with what they read from their states, a linear layer.

    The update of the states is elementwise and no product; reading them is one of a state.
    """
    tokens, inner, rank = (resolution // patch) ** 2, 2 * width, max(1, width // 16)
    direction = (tokens + 3) * inner * 4 + tokens * inner * (rank + 2 * state) + tokens * rank * inner
    direction += tokens * inner * state
    block = tokens * width * 2 * inner + 2 * direction + tokens * inner * width
    return tokens * 3 * patch**2 * width + depth * block + width * classes


def share(students: int, width: int = 56, depth: int = 4, patch: int = 8, resolution: int = 32) -> float:
    """Products of the first so many students over the teacher's.

    Raises:
        ValueError: no student, or more than there are.
    """
    if not 1 <= students <= len(STUDENTS):
        raise ValueError(f"students={students}: there are {len(STUDENTS)}, so take 1 to {len(STUDENTS)}")
    whole = sum(scan_macs(w, d, patch, resolution) for w, d in STUDENTS[:students])
    return whole / scan_macs(width, depth, patch, resolution)
