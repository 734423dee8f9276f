"""What a task is: weights, data, and the score that the weights have on the data."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from bench.config.signatures import source_digest
from bench.errors import UsageError
from bench.meters.quality import Run
from bench.scores import Score
from suites.common.training import one_thread


class TaskError(UsageError):
    """A task that cannot be done: missing data or weights, or a model that does not fit them."""


class Task(Protocol):
    """Score and cost from one artefact: the task gives the weights and the samples that they are judged on.

    `metric` is the score's name in `bench.metrics`; a task without it scores accuracy over its `batches`. A task whose
    constructor takes `root` needs the user's data (`data.root`), one that takes `checkpoint` is given the user's
    weights.
    """

    metric: str

    def prepare(self, model_name: str, build: Callable[[], nn.Module]) -> dict[str, Any]:
        """Make sure that weights for the model exist; says which: `checkpoint`, `sha256`, `recipe`."""

    def load(self, module: nn.Module, model_name: str) -> dict[str, Any]:
        """Put the prepared weights into the module; says where they come from."""

    def batches(self, batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """Held-out inputs as the model takes them, and what belongs to them."""

    def score(self, run: Run) -> Score:
        """The score of a module that was loaded and may have been changed since."""

    def describe(self) -> dict[str, Any]:
        """Name, split, number of samples, digest of the data and preprocessing."""


class TrainingTask(Task, Protocol):
    """A task that a method can also learn from; `load` leaves it on the module as `module.task`."""

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` random batches of the training split."""

    def remembered(self, what: str, key: dict[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors made once for this key and model and read from the cache afterwards."""


def learning_task(model: nn.Module, method: str, instead: str) -> TrainingTask:
    """The task that the model was loaded by.

    Raises:
        ValueError: the model has none; `instead` says what to do.
    """
    task = getattr(model, "task", None)
    if task is None or not hasattr(task, "training_batches"):
        raise ValueError(
            f"{method} learns from data, and this model was loaded without a task to learn from: {instead}"
        )
    return task


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """Public attributes of a module and of all below it that are numbers, text, or lists of them, by their path.

    A class leaves out those that its training does not depend on by naming them in `not_learned`.
    """
    return {
        f"{path}.{name}": list(value) if isinstance(value, tuple) else value
        for path, part in module.named_modules()
        for name, value in sorted(vars(part).items())
        if not name.startswith("_")
        and name not in ("training", *getattr(type(part), "not_learned", ()))
        and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def content_key(content: dict[str, Any]) -> str:
    """A short hash of plain JSON data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class WeightsCache:
    """Trained tensors by content key: a safetensors file and beside it its SHA-256 and how it was made."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Where the tensors of this key are or will be."""
        return self.folder / f"{key}.safetensors"

    def read(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and their notes, or None where there are none or the file is not the one that was written."""
        from safetensors.torch import load_file

        path, notes_path = self.path(key), self.path(key).with_suffix(".json")
        if not path.is_file() or not notes_path.is_file():
            return None
        notes = json.loads(notes_path.read_text(encoding="utf-8"))
        return (load_file(path), notes) if file_sha256(path) == notes.get("sha256") else None

    def get(
        self, key: str, make: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and notes of this key, made now if they are not there; of several processes only one makes them."""
        from filelock import FileLock

        found = self.read(key)
        if found is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path(key).with_suffix(".lock")):
            found = self.read(key)
            return found if found is not None else self._write(key, *make())

    def _write(
        self, key: str, tensors: dict[str, Tensor], notes: dict[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        from safetensors.torch import save_file

        path = self.path(key)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, partial)
        notes = {**notes, "sha256": file_sha256(partial), "checkpoint": path.name}
        os.replace(partial, path)
        partial.write_text(json.dumps(notes, indent=1), encoding="utf-8")
        os.replace(partial, path.with_suffix(".json"))
        return tensors, notes


class TrainedTask:
    """A task that trains its model itself, once, and keeps the weights by content: configuration, data, recipe, seed.

    A subclass names itself, says what a module must be (`fits`), how it is trained (`learn`), which data it has
    (`data_digest`) and its `recipe`; and gives `batches`, `training_batches`, `score` and `describe`.
    """

    name: ClassVar[str]
    metric: ClassVar[str]

    def __init__(self, cache: Path, seed: int):
        """Nothing is trained or read yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the order of the training samples; the weights start from the model's own seed.
        """
        self.cache = WeightsCache(Path(cache) / self.name)
        self.seed = seed
        self._model_key = ""

    # ------------------------------------------------------------------------------------------ of the subclass

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module is one for this task; settles what depends on it (a resolution)."""
        raise NotImplementedError(f"{type(self).__name__} does not define fits")

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the module in place; says how well it does, as `train_...` and `test_...`."""
        raise NotImplementedError(f"{type(self).__name__} does not define learn")

    def data_digest(self) -> str:
        """Hash of the data."""
        raise NotImplementedError(f"{type(self).__name__} does not define data_digest")

    def recipe(self) -> dict[str, Any]:
        """All that the weights depend on beside module, data and seed, in plain JSON types."""
        raise NotImplementedError(f"{type(self).__name__} does not define recipe")

    # ------------------------------------------------------------------------------------------ the same for all

    def prepare(self, model_name: str, build: Callable[[], nn.Module]) -> dict[str, Any]:
        """Train the model unless its weights are in the cache; the notes on how it was trained."""
        module = build()
        self.fits(module, model_name)
        _, notes = self.cache.get(self._key(module), lambda: self._train(module))
        return notes

    def load(self, module: nn.Module, model_name: str) -> dict[str, Any]:
        """Put the trained weights into the module and leave the task on it as `module.task`.

        Raises:
            TaskError: the model was not prepared, or is not one for this task.
        """
        self.fits(module, model_name)
        self._model_key = self._key(module)
        found = self.cache.read(self._model_key)
        if found is None:
            raise TaskError(
                f'model "{model_name}" has no trained weights for {self.name} under {self.cache.folder}: run the '
                "suite, which trains it first, or call prepare"
            )
        weights, notes = found
        module.load_state_dict(weights)
        module.task = self  # type: ignore[assignment]
        return notes

    def remembered(self, what: str, key: dict[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors made once for this key, the loaded model and the maker's source; read from the cache afterwards."""
        source = source_digest(f"{make.__module__}:{make.__name__}")
        content = {"what": what, "model": self._model_key, "seed": self.seed, "source": source, **key}

        def made() -> tuple[dict[str, Tensor], dict[str, Any]]:
            with one_thread():
                return make(), content

        return self.cache.get(f"{what}-{content_key(content)}", made)[0]

    def _key(self, module: nn.Module) -> str:
        shapes = {name: list(value.shape) for name, value in module.state_dict().items()}
        return content_key(
            {
                "module": repr(module),
                "shapes": shapes,
                "resolution": getattr(module, "resolution", None),
                # and settings that neither a shape nor a module's text shows, such as which form of a layer runs
                "attributes": plain_attributes(module),
                "recipe": self.recipe(),
                "seed": self.seed,
                "data": self.data_digest(),
                "source": source_digest(f"{type(self).__module__}:{type(self).__name__}"),
                # what it computes as well: equal shapes do not make equal networks
                "network": source_digest(f"{type(module).__module__}:{type(module).__name__}"),
            }
        )

    def _train(self, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        with one_thread():
            start = time.monotonic()
            found = self.learn(module)
            seconds = round(time.monotonic() - start, 1)
        recipe = {**self.recipe(), "seed": self.seed, "torch": torch.__version__}
        return module.state_dict(), {"recipe": recipe, "seconds": seconds, **found}
