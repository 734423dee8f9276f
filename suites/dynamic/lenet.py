"""B-LeNet of BranchyNet, 28 x 28 x 1, as a plain network and with its first exit (arXiv 1709.01686).

Convolutions 1->5, 5->10, 10->20 of k5 with padding 3, each pooled by 2 (rounded up) and rectified; linear 720->84->10.
The exit reads the first convolution: pool, ReLU, conv 5->10 k3, pool, ReLU, linear 640->10.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.training import Pace, fit
from suites.dynamic.jei_dnn import _entropy
from suites.dynamic.learning import BATCH, remembered, with_cost_of
from suites.dynamic.staging import Staged

__all__ = ["b_lenet", "lenet", "load_checkpoint"]


def _pooled() -> list[nn.Module]:
    return [nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()]


class LeNet(nn.Module):
    """The main path alone."""

    def __init__(self) -> None:
        super().__init__()
        self.resolution, self.channels, self.classes = 28, 1, 10
        self.front = nn.Conv2d(1, 5, 5, padding=3)
        self.rest = nn.Sequential(
            *_pooled(), nn.Conv2d(5, 10, 5, padding=3), *_pooled(), nn.Conv2d(10, 20, 5, padding=3), *_pooled(),
            nn.Flatten(), nn.Linear(720, 84), nn.Linear(84, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, 10], of images [batch, 1, 28, 28]."""
        return self.rest(self.front(images))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return (torch.randn(batch, 1, 28, 28).to(self.front.weight),)


def first_exit() -> nn.Sequential:
    """What reads the first convolution: logits, [batch, 10]."""
    return nn.Sequential(
        *_pooled(), nn.Conv2d(5, 10, 3, padding=1), *_pooled(), nn.Flatten(), nn.Linear(640, 10)
    )  # fmt: skip


def lenet() -> LeNet:
    """B-LeNet's main path with random weights, in evaluation mode."""
    return LeNet().eval()


class BLeNet(Staged):
    """The main path with an exit after its first convolution."""

    def __init__(self, main: LeNet, threshold: float, execution: Any, exit: int | None):
        super().__init__(2, execution, exit)
        self.main, self.branch, self.threshold = main, first_exit().to(main.front.weight), threshold
        self.resolution, self.channels, self.classes = 28, 1, 10

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images."""
        return self.main.example_inputs(batch)

    def stage(self, place: int, state: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The first maps and the exit's logits; then the main path's."""
        if place:
            return state, self.main.rest(state[0])
        maps = self.main.front(state[0])
        return (maps,), self.branch(maps)

    def leaves(self, place: int, answer: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Whose entropy at the exit is below the threshold."""
        return _entropy(answer.softmax(dim=-1)) < self.threshold, None


def as_lenet(model: nn.Module, method: str) -> LeNet:
    """The model, if it is B-LeNet's main path.

    Raises:
        ValueError: it is another one.
    """
    if not isinstance(model, LeNet):
        raise ValueError(f"{method} works on lenet, not on {type(model).__name__}")
    return model


def b_lenet(
    model: nn.Module,
    *,
    threshold: Positive = 0.05,
    execution: Literal["compact", "masked", "until_empty", "sorted"] = "compact",
    exit: PositiveInt | None = None,
    training_steps: Count = 0,
) -> BLeNet:
    """LeNet with BranchyNet's first exit, both trained together.

    Args:
        model: lenet.
        threshold: T, entropy in nats below which a sample leaves at the exit.
        execution: how a batch runs, see `staging`.
        exit: every sample leaves at the exit (1) or runs to the end (2); None lets the entropy decide.
        training_steps: of both paths on the model's task; 0 leaves the exit random.

    Raises:
        ValueError: another network, an exit that there is not, or nothing to train on.
    """
    network = BLeNet(as_lenet(model, "b_lenet"), threshold, execution, exit)
    if not training_steps:
        network.untrained = "b_lenet's exit starts at random: set training_steps, on a model with a task"  # type: ignore[assignment]
        return network.eval()
    learn_both(network, model, training_steps)
    if execution == "sorted":
        network.learn_paths(model.task)
    return network.eval()


def learn_both(network: BLeNet, model: nn.Module, steps: int) -> None:
    """Train both paths with the sum of their cross-entropies, once for the model and steps."""

    def train(task: Any) -> dict[str, Tensor]:
        fit(network, task.training_batches(BATCH, steps, 0), lambda x, y: _both(network, x, y), Pace(steps, 3e-3))
        return network.state_dict()

    network.load_state_dict(remembered(model, b_lenet, {"steps": steps}, train))
    network.learned = {"method": "b_lenet", "steps": steps}  # type: ignore[assignment]
    with_cost_of(network, model)


def _both(network: BLeNet, images: Tensor, labels: Tensor) -> Tensor:
    maps = network.main.front(images)
    return F.cross_entropy(network.branch(maps), labels) + F.cross_entropy(network.main.rest(maps), labels)
