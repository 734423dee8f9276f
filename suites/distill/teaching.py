"""A student with what teaches it: how such a pair trains, and how the student is learned alone and by a recipe.

A recipe is a `Taught`: while it trains it runs student, teachers and whatever stands between them; in evaluation it is
the student. A method of this suite gives the recipe to the workload `training_step` and to any other the student
itself, so that what is deployed has the plain student's parameters, names of weights and products.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Count
from bench.errors import UsageError
from bench.meters.macs import count_training
from bench.meters.quality import Run, accuracy
from suites.common.kept_cost import parted, told
from suites.common.task import TrainingTask, learning_task
from suites.common.training import Pace, fit

BATCH, RATE = 32, 3e-3
#: Steps between two looks at the held-out samples, and accuracies in percent that steps are counted to.
LOOK, GOALS = 10, (50, 70, 80, 90, 95)
STEP = "training_step"
_HISTORY = "history."


class Taught(nn.Module):
    """A student and its teachers; a subclass says what a step gives (`teach`) and what is made small (`loss`)."""

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student: Any = student
        self.resolution = getattr(student, "resolution", 224)
        self.classes = int(getattr(student, "classes", getattr(student, "num_classes", 0)) or 0)

    def teachers(self) -> list[nn.Module]:
        """What stays in evaluation mode while the student trains."""
        return []

    def train(self, mode: bool = True) -> Taught:
        """Set the mode of everything but the teachers."""
        super().train(mode)
        for teacher in self.teachers():
            teacher.eval()
        return self

    def forward(self, images: Tensor) -> Any:
        """What the student answers; while it trains what `loss` reads."""
        return self.teach(images) if self.training else self.student(images)

    def teach(self, images: Tensor) -> Any:
        """What a step gives; of a student without a teacher its logits."""
        return self.student(images)

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The number to make small."""
        return F.cross_entropy(outputs, targets)

    def learning_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch."""
        return self.loss(self(images), labels)

    def after_step(self, step: int, steps: int) -> None:
        """Called after each of so many steps, the gradients still there."""

    def history(self) -> dict[str, list[float]]:
        """What the recipe wrote down while it trained, and how good its teacher is and how long that one learned."""
        parts = (part for teacher in self.teachers() for part in teacher.modules())
        return {name: values for part in parts for name, values in getattr(part, "notes", {}).items()}

    def example_targets(self, batch: int, seed: int) -> Tensor:
        """Seeded targets: the student's own, or classes."""
        own = getattr(self.student, "example_targets", None)
        if own is not None:
            return own(batch, seed)
        with torch.device("cpu"):
            return torch.randint(self.classes, (batch,), generator=torch.Generator().manual_seed(seed))


def frozen(teacher: nn.Module) -> Any:
    """The teacher in evaluation mode, without gradients of its own."""
    return teacher.eval().requires_grad_(False)


class Tap:
    """Keeps what a module gave last: a forward hook that can be pickled."""

    def __init__(self, module: nn.Module):
        self.seen: Tensor | None = None
        module.register_forward_hook(self)

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        """See the class."""
        self.seen = output[0] if isinstance(output, tuple) else getattr(output, "x", output)

    def take(self) -> Tensor:
        """What was seen, once."""
        seen, self.seen = self.seen, None
        assert seen is not None
        return seen


#: Gives the recipe of a fresh student on a task.
Make = Callable[[Any, TrainingTask], Taught]


def learned_by(model: nn.Module, method: Callable[..., Any], settings: dict[str, Any], steps: int, make: Make) -> Any:
    """The plain model, learned from its start by a recipe; as it is where there are no steps.

    `model.learned` then says after how many steps the held-out accuracy reached `GOALS` percent for the first time,
    and the whole course.

    Args:
        model: loaded by a task that one can learn from.
        method: the public function, whose source and name say which weights these are.
        settings: what else they depend on, in plain JSON types.
        steps: batches of 32.
        make: gives the recipe.

    Raises:
        ValueError: no task to learn from.
        UsageError: a network that cannot be started anew.
    """
    if not steps:
        return model
    name = method.__name__
    task = learning_task(model, name, "leave training_steps=0 or take a digits model with task=digits")

    @functools.wraps(method)  # the cache asks where `make` comes from: new source of the method is new weights
    def run() -> dict[str, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            student = started_anew(model)
            recipe = make(student, task)  # a teacher that is learned first is no part of the cost of learning from it
            torch.manual_seed(0)
            with costs.recorded(student) as cost:
                course = _learn(recipe, task, steps, cost)
        kept = {_HISTORY + name: torch.tensor(values, dtype=torch.float64) for name, values in course.items()}
        return {**student.state_dict(), **kept, **told(cost)}

    found, cost = parted(task.remembered(name, {**settings, "steps": steps}, run))
    course = {key.removeprefix(_HISTORY): v.tolist() for key, v in found.items() if key.startswith(_HISTORY)}
    model.load_state_dict({key: v for key, v in found.items() if not key.startswith(_HISTORY)})
    taught_for = cost["seconds"] + sum(course.get("teacher_seconds", []))
    model.method_cost = cost  # type: ignore[assignment]
    role = "student" if "teacher_seconds" in course else "control"
    model.learned = {  # type: ignore[assignment]
        "method": name, "role": role, "seconds": round(taught_for, 1), "steps": steps, **settings,
        "steps_to": steps_to(course["step"], course["accuracy"]), **course,
    }  # fmt: skip
    return model.eval()


def steps_to(steps: list[float], values: list[float]) -> dict[str, float | None]:
    """The first step at which each of `GOALS` percent was reached; None where it never was."""
    course = list(zip(steps, values, strict=True))
    return {str(goal): next((step for step, value in course if value >= goal), None) for goal in GOALS}


def started_anew(model: nn.Module) -> Any:
    """A copy of a network with weights as layers draw them, from seed 0.

    Raises:
        UsageError: a parameter of a module that cannot draw its own.
    """
    task = getattr(model, "task", None)
    model.task = None  # type: ignore[assignment]
    try:
        fresh = copy.deepcopy(model)
    finally:
        model.task = task  # type: ignore[assignment]
    torch.manual_seed(0)
    for name, part in fresh.named_modules():
        again = getattr(part, "reset_parameters", None)
        if callable(again):
            again()
        elif next(part.parameters(recurse=False), None) is not None:
            raise UsageError(f"{type(model).__name__}.{name} cannot draw its weights anew: it has no reset_parameters")
    return fresh


def of_task(task: TrainingTask, build: Callable[[], nn.Module], name: str) -> Any:
    """A teacher with the weights that the task trains it to from seed 0, frozen; the student's task stays as it is."""
    own: Any = copy.copy(task)
    torch.manual_seed(0)
    notes = own.prepare(name, build)
    teacher = build()
    own.load(teacher, name)
    teacher.task = None  # type: ignore[assignment]
    torch.manual_seed(0)  # what is drawn next is the same whether the teacher was trained now or read from the cache
    teacher.notes = {"teacher_accuracy": [notes["test_accuracy"]], "teacher_seconds": [notes["seconds"]]}  # type: ignore[assignment]
    return frozen(teacher)


def _learn(recipe: Taught, task: TrainingTask, steps: int, cost: costs.Cost) -> dict[str, list[float]]:
    """Train the recipe in place; the course of the held-out accuracy by step, and what the recipe wrote down."""
    course: dict[str, list[float]] = {"step": [], "accuracy": []}

    def look(step: int) -> None:
        recipe.eval()
        with _aside(cost), torch.inference_mode():
            found = accuracy(Run(recipe.student), task.batches(200))
        course["step"].append(float(step))
        course["accuracy"].append(found.value)
        recipe.train()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step, (images, labels) in enumerate(task.training_batches(BATCH, steps, 0)):
            if step == 0:
                with _aside(cost):
                    cost.macs = steps * _products(recipe, images, labels)
            else:
                recipe.after_step(step - 1, steps)
            if step % LOOK == 0:
                look(step)
            yield images, labels
        recipe.after_step(steps - 1, steps)

    fit(recipe, batches(), recipe.learning_loss, Pace(steps, RATE))
    look(steps)
    cost.samples += BATCH * steps
    return {**course, **recipe.history()}


@contextmanager
def _aside(cost: costs.Cost) -> Iterator[None]:
    """A block that belongs to watching and not to the cost of learning."""
    passes, start = (cost.forwards, cost.backwards), time.perf_counter()
    try:
        yield
    finally:
        cost.seconds -= time.perf_counter() - start
        cost.forwards, cost.backwards = passes


def _products(recipe: Taught, images: Tensor, labels: Tensor) -> float:
    """Products of one forward and backward of the recipe on this batch."""
    counted = count_training(recipe, (images,), loss=lambda outputs: recipe.loss(outputs, labels))
    return float(counted.executed_macs)


def alone(model: nn.Module, *, training_steps: Count = 0) -> nn.Module:
    """The plain network learned from its start without a teacher, as long as a recipe: the control of both.

    Args:
        model: loaded by a task that one can learn from.
        training_steps: batches of 32; 0 leaves it as it is.

    Raises:
        ValueError: no task to learn from.
    """
    return learned_by(model, alone, {}, training_steps, lambda student, _: Taught(student))
