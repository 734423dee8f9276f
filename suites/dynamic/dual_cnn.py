"""Dual complementary CNNs: a second network where the first is unsure, and a memory for repeats (arXiv 2412.01039).

The model is the first network; the second is a small residual network of another kind, trained beside it. A score below
lambda sends a sample on; with the post-check the surer answer of the two is taken.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.digits_data import CLASSES
from suites.common.digits_resnet import digits_resnet
from suites.common.training import Pace, classification, fit
from suites.dynamic.learning import BATCH, digits_parts, held_out, remembered, with_cost_of
from suites.dynamic.memory import Memory
from suites.dynamic.staging import Staged

#: Values of lambda that are tried on the validation digits.
TRIED = 2000
#: How sure a remembered answer is.
REMEMBERED = 20.0


def dual_cnn(
    model: nn.Module,
    *,
    lam: Rate | None = None,
    score: Literal["maxp", "difference", "entropy"] = "difference",
    post_check: bool = True,
    second_width: PositiveInt = 8,
    memory: Literal["none", "dhash", "moments"] = "none",
    duplicates: Rate = 0.0,
    turned: Literal["no", "90", "180", "270", "flip"] = "no",
    execution: Literal["compact", "masked", "until_empty", "sorted"] = "compact",
    exit: PositiveInt | None = None,
    training_steps: Count = 0,
) -> DualCnn:
    """The cascade of the model and a second network, with a memory that has seen some inputs before.

    Args:
        model: a classifier of ten digits that says its `resolution` and `channels`.
        lam: score under which the second network is asked; None takes the most accurate of 2000 on validation digits.
        score: largest probability, difference of the two largest, or entropy (of which 1 - H / log 10 is taken).
        post_check: whether the surer of two answers is taken, and not always the second.
        second_width: channels of the second network's first stage.
        memory: keys that repeats are known by; `none` has no memory.
        duplicates: share d of the inputs that the stream repeats once: d / (1 + d) of the requests have been seen.
        turned: how repeats are turned against the time before, in degrees, or mirrored.
        execution: how a batch runs, see `staging`.
        exit: every sample leaves after the first (1) or the second network (2); None lets the score decide.
        training_steps: of the second network on the model's task; 0 leaves it random.

    Raises:
        ValueError: an exit that there is not, repeats without a memory, or nothing to train on.
    """
    if duplicates and memory == "none":
        raise ValueError(f"duplicates={duplicates} and no memory to know them by: set memory='dhash' or 'moments'")
    resolution, channels = int(getattr(model, "resolution", 32)), int(getattr(model, "channels", 3))
    second = digits_resnet(blocks=1, width=second_width, resolution=resolution, channels=channels)
    second = second.to(next(model.parameters()))
    network = DualCnn(model, second, score, post_check, execution, exit)
    if training_steps:
        settings = {"width": second_width, "steps": training_steps}
        second.load_state_dict(remembered(model, dual_cnn, settings, lambda task: _learn(second, task, training_steps)))
        network.learned = {"method": "dual_cnn", **settings}  # type: ignore[assignment]
        with_cost_of(network, model)
        network.lam = _most_accurate(network, model.task) if lam is None else float(lam)
    else:
        network.untrained = "dual_cnn's second network is random: set training_steps, on a model with a task"  # type: ignore[assignment]
        network.lam = 0.5 if lam is None else float(lam)
    if memory != "none":
        network.memory = Memory(memory).to(next(model.parameters()).device)
        if training_steps and duplicates:
            _remember(network, model.task, duplicates, turned)
    if execution == "sorted" and training_steps:
        network.learn_paths(model.task)
    return network.eval()


def certainty(logits: Tensor, score: str) -> Tensor:
    """How sure each answer is, in 0..1, [batch]."""
    p = logits.softmax(dim=-1)
    if score == "maxp":
        return p.amax(dim=-1)
    if score == "difference":
        top = p.topk(2, dim=-1).values
        return top[:, 0] - top[:, 1]
    entropy = -(p * p.clamp(min=1e-12).log()).sum(dim=-1)
    return 1 - entropy / torch.log(torch.tensor(float(p.shape[-1])))


class DualCnn(Staged):
    """Two networks, of which the second runs for those that the first is unsure about; a memory before both."""

    def __init__(
        self, first: nn.Module, second: nn.Module, score: str, post_check: bool, execution: Any, exit: int | None
    ):
        super().__init__(2, execution, exit)
        self.networks = nn.ModuleList([first, second])
        self.score, self.post_check, self.lam = score, post_check, 0.5
        self.memory: Memory | None = None
        self.resolution = int(getattr(first, "resolution", 32))
        self.channels, self.classes = int(getattr(first, "channels", 3)), CLASSES

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the model's resolution."""
        like = next(self.parameters())
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(like),)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits in the order of the inputs; those of a remembered image are one large number."""
        if self.memory is None or inputs.device.type == "meta":
            return super().forward(inputs)
        known, classes = self.memory.look(inputs)
        unknown = (~known).nonzero()[:, 0]
        like = next(self.parameters())
        out = REMEMBERED * F.one_hot(classes, self.classes).to(like.dtype)
        paths = torch.full((len(inputs),), -1, device=inputs.device)
        if len(unknown):
            out = out.index_copy(0, unknown, super().forward(inputs.index_select(0, unknown)))
            assert self.paths is not None
            paths = paths.index_copy(0, unknown, self.paths)
        self.paths = paths
        return out

    def stage(self, place: int, state: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The images, and what a network says of them."""
        return state, self.networks[place](state[0])

    def leaves(self, place: int, answer: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Whom the first network is sure about."""
        return certainty(answer, self.score) >= self.lam, None

    def merged(self, place: int, answer: Tensor, before: Tensor | None) -> Tensor:
        """The second network's answer, or with the post-check the surer one."""
        if before is None or not self.post_check:
            return answer
        surer = certainty(answer, self.score) >= certainty(before, self.score)
        return torch.where(surer[:, None], answer, before)


def complementarity(first: Tensor, second: Tensor, form: Literal["paper", "released"] = "paper") -> float:
    """How much two networks complete each other, from whether each is right about each sample, [n] bool.

    `paper`: (n(a or b) - n(a and b) - |n(a) - n(b)|) / n. `released`: the share that exactly one is right about.
    """
    one = float((first ^ second).sum())
    apart = abs(float(first.sum()) - float(second.sum())) if form == "paper" else 0.0
    return (one - apart) / len(first)


def _learn(second: nn.Module, task: Any, steps: int) -> dict[str, Tensor]:
    fit(second, task.training_batches(BATCH, steps, 1), classification(second), Pace(steps, 3e-3))
    return second.state_dict()


@torch.no_grad()
def _most_accurate(network: DualCnn, task: Any) -> float:
    """The least lambda of the 2000 that is right about most validation digits."""
    _, (images, labels) = digits_parts(task)
    answers = [net(images) for net in network.networks]
    sure = certainty(answers[0], network.score)
    last = network.merged(1, answers[1], answers[0]).argmax(dim=1) == labels
    first = answers[0].argmax(dim=1) == labels
    right = [(torch.where(sure < lam, last, first).sum().item(), -lam) for lam in torch.linspace(0, 1, TRIED).tolist()]
    return -max(right)[1]


@torch.no_grad()
def _remember(network: DualCnn, task: Any, duplicates: float, turned: str) -> None:
    """Fill the memory with a share d / (1 + d) of the held-out inputs and what the cascade said of them."""
    images, _ = held_out(task)
    count = round(len(images) * duplicates / (1 + duplicates))
    seen = images[(torch.arange(count) * len(images)) // max(1, count)]
    classes = network._compact(seen).argmax(dim=1)
    assert network.memory is not None
    network.memory.fill(_turned(seen, turned), classes)


def _turned(images: Tensor, how: str) -> Tensor:
    if how == "flip":
        return images.flip(-1)
    return images if how == "no" else images.rot90(int(how) // 90, (-2, -1))
