"""Continual learning with kernels whose coreset is generated when it is needed (GKCL, arXiv:2112.13410).

Tasks come one by one, of `10 / T` classes each; the network is not told which task a picture is of. Each learner ends
in one kernel ridge classifier over the classes of all tasks, solved from a coreset. `kcl` stores M pictures a task and
has random Fourier features (kernel continual learning, Derakhshani et al. 2021, arXiv:2107.05757). `gkcl` keeps a
conditional generator, a VAE told the class and the task, which learns a new task from its pictures and as many samples
of old tasks as there are, and draws M pictures a class whenever a classifier is asked for; its kernel is linear, and a
supervised contrastive term (weight 0.1) orders the latent.

A reconstruction: sizes are ours, and what is stored is one network of two layers for pictures of 8 x 8.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import nn

from bench.config.settings import Count, PositiveInt
from suites.common.digits_data import HELD_OUT, images, labels, split
from suites.common.from_scratch import learned
from suites.common.training import Pace, fit
from suites.tiny_memory.continual import ELEMENT, SIDE, ContinualDigits, Generative, Learner, Stored
from suites.tiny_memory.kernel_ridge import crossing

RATE = 3e-3


def gkcl(
    model: nn.Module,
    *,
    tasks: Literal[1, 2, 5, 10] = 5,
    samples: PositiveInt = 20,
    latent: PositiveInt = 16,
    training_steps: Count = 0,
) -> Generative:
    """The learner that generates its coreset, after it has met all tasks.

    Args:
        model: continual_digits, whose encoder's size it takes; its weights are not looked at.
        tasks: T, of 10 / T classes each.
        samples: M, drawn pictures a class.
        latent: numbers of a code.
        training_steps: batches of 16 over all tasks; 0 gives a cost.

    Raises:
        ValueError: not such a model, or no task to learn from.
    """
    hidden = _hidden(model, "gkcl")
    made = Generative(hidden, tasks, samples, latent)
    settings = {"tasks": tasks, "samples": samples, "latent": latent, "hidden": hidden}
    return _learned(made, model, gkcl, settings, training_steps)


def kcl(
    model: nn.Module,
    *,
    tasks: Literal[1, 2, 5, 10] = 5,
    samples: PositiveInt = 40,
    element: Literal["uint8", "fp32"] = "uint8",
    training_steps: Count = 0,
) -> Stored:
    """The learner that stores its coreset, after it has met all tasks.

    Args:
        model: continual_digits, whose encoder's size it takes; its weights are not looked at.
        tasks: T, of 10 / T classes each.
        samples: M, stored pictures a task, all different.
        element: what a stored pixel is counted as; scikit-learn's digits have 17 grey levels.
        training_steps: batches of 16 over all tasks; 0 gives a cost.

    Raises:
        ValueError: not such a model, no task to learn from, or more samples than a task has pictures.
    """
    hidden = _hidden(model, "kcl")
    made = Stored(hidden, tasks, samples, element)
    settings = {"tasks": tasks, "samples": samples, "hidden": hidden}
    return _learned(made, model, kcl, settings, training_steps)


def _hidden(model: nn.Module, method: str) -> int:
    if not isinstance(model, ContinualDigits):
        raise ValueError(f"{method} learns the tasks of continual_digits, and this is {type(model).__name__}")
    return model.hidden


def _learned(made: Any, model: nn.Module, method: Any, settings: dict[str, Any], steps: int) -> Any:
    if getattr(model, "task", None) is None or not steps:
        made.to(next(model.parameters()))
    return learned(made, model, method, settings, steps, in_turn).eval()


def in_turn(learner: nn.Module, batches: Any, steps: int) -> list[float]:
    """The loss of each step over the tasks one by one; accuracies of all tasks so far are noted after each.

    Args:
        learner: trained in place; its encoder starts at random.
        batches: pictures of all classes, which are sorted by task here: none is seen before or after its task.
        steps: batches.
    """
    assert isinstance(learner, Learner)
    pictures, wanted = (torch.cat(parts) for parts in zip(*batches, strict=True))
    size, found = len(pictures) // steps, list[float]()
    for task in range(learner.tasks):
        own = learner.classes_of(task)
        mine = ((wanted >= own.start) & (wanted < own.stop)).nonzero().flatten()
        parts = [part for part in mine.split(size) if len(part) > 1]
        learner.seen = task + 1
        if isinstance(learner, Generative):
            learner.teacher = [copy.deepcopy(learner).eval()] if task else []
        found += fit(learner, [(pictures[p], wanted[p]) for p in parts], learner.loss, Pace(len(parts), RATE))
        if isinstance(learner, Generative):
            learner.teacher = []
        if isinstance(learner, Stored):
            learner.store(task, pictures[mine], wanted[mine])
        _note(learner, task)
    return found


def _note(learner: Learner, task: int) -> None:
    """Accuracies on held-out pictures of every task so far, among all classes so far."""
    index = split()[1][:HELD_OUT]
    with torch.no_grad():
        answers = learner(images(index, SIDE, 1))[:, : learner.classes_of(task).stop].argmax(1)
    wanted = labels(index)
    for place in range(task + 1):
        own = learner.classes_of(place)
        of_task = (wanted >= own.start) & (wanted < own.stop)
        learner.accuracies[task, place] = 100 * (answers == wanted)[of_task].float().mean()


def crossing_tasks(generative: Generative, stored: Stored) -> float:
    """T*: tasks up to which the stored coreset is smaller than the generator that takes its place."""
    own = sum(part.numel() * part.element_size() for part in [*generative.code.parameters(),
                                                              *generative.decoder.parameters()])  # fmt: skip
    return crossing(own, stored.samples, SIDE * SIDE, ELEMENT[stored.element])
