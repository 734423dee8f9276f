"""Training a student from a teacher in two stages: imitate the teacher's maps, then its answers.

As BottleFit (arXiv 2201.02693, section IV) and the Entropic Student (arXiv 2108.11898, section 4) train: stage 1 by
Adam at 1e-3 on squared errors, the tail as it is; stage 2 by SGD at 1e-3, momentum 0.9, weight decay 5e-4, on labels
or on the teacher's answers (T = 1, alpha 0.5). Rates fall to a tenth after given shares of a stage. Norms of what is
frozen keep their statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.digits_data import HELD_OUT, digits
from suites.common.from_scratch import BATCH

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Second = Literal["ft", "kd"]
FIRST_RATE, SECOND_RATE, MOMENTUM, DECAY = 1e-3, 1e-3, 0.9, 5e-4
DENSITY_RATE = 1e-2
ALPHA = 0.5


def steps_of(epochs: int) -> int:
    """Batches in so many epochs of the digits."""
    if not epochs:
        return 0
    with torch.device("cpu"):  # what is read is kept for the whole process
        return epochs * ((len(digits()[0]) - HELD_OUT) // BATCH)


def epochs_for(model: nn.Module, epochs: int | None) -> int:
    """As many as asked for; the papers' ten where that is None and the model has a task to learn from, else none."""
    if epochs is not None:
        return epochs
    return 10 if hasattr(getattr(model, "task", None), "training_batches") else 0


def stage(
    optimizer: torch.optim.Optimizer, batches: Batches, loss: Loss, steps: int, drops: Iterable[float]
) -> list[float]:
    """The loss of each step of one stage; what the optimizer holds is trained in place.

    Args:
        optimizer: of what trains.
        batches: inputs and labels; no more than `steps` are taken.
        loss: of a batch.
        steps: of the stage.
        drops: shares of the stage after which the rate falls to a tenth.
    """
    places = {round(share * steps) for share in drops}
    losses = []
    for step, (inputs, labels) in enumerate(islice(batches, steps)):
        if step in places:
            for group in optimizer.param_groups:
                group["lr"] *= 0.1
        value = loss(inputs, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


def second_stage(student: nn.Module, teacher: nn.Module, kind: Second) -> Loss:
    """Cross-entropy of the labels (ft), or half of it and half the divergence from the teacher's answers (kd)."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        own = student(images)
        hard = F.cross_entropy(own, labels)
        if kind == "ft":
            return hard
        with torch.no_grad():
            wanted = teacher(images)
        soft = F.kl_div(own.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True)
        return ALPHA * hard + (1 - ALPHA) * soft

    return loss


def squared(found: Iterable[Tensor], wanted: Iterable[Tensor]) -> Tensor:
    """Squared errors, summed over everything and all maps."""
    return torch.stack([F.mse_loss(a, b, reduction="sum") for a, b in zip(found, wanted, strict=True)]).sum()


def adam(parameters: Iterable[nn.Parameter], densities: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """Of the first stage; densities learn ten times as fast (ours: the papers take some hundred times the steps)."""
    groups: list[dict[str, Any]] = [{"params": list(parameters)}, {"params": list(densities), "lr": DENSITY_RATE}]
    return torch.optim.Adam([group for group in groups if group["params"]], lr=FIRST_RATE)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Of the second."""
    return torch.optim.SGD(list(parameters), lr=SECOND_RATE, momentum=MOMENTUM, weight_decay=DECAY)


def modes(student: nn.Module, frozen: Iterable[nn.Module]) -> None:
    """The student in training mode, but for what is frozen: that is in evaluation mode and has no gradients."""
    student.train().requires_grad_(True)
    for part in frozen:
        part.eval().requires_grad_(False)


def learning(parts: Iterable[nn.Module]) -> list[nn.Parameter]:
    """What of the parts trains."""
    return [p for part in parts for p in part.parameters() if p.requires_grad]


def in_two(batches: Batches, steps: int) -> tuple[Iterator[tuple[Tensor, Tensor]], int]:
    """The same iterator for both stages, and the steps of each: half of them."""
    return iter(batches), steps // 2


def settled(student: Any) -> None:
    """The student as it is used: in evaluation mode, every parameter as it came."""
    student.eval().requires_grad_(True)
