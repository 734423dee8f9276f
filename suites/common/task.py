"""What a task is: held-out images with labels, and the weights that go with them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from bench.errors import UsageError


class TaskError(UsageError):
    """A task that cannot be done: missing data or weights, or a model that does not fit them."""


class Task(Protocol):
    """Quality and cost from one artefact: the task gives the weights and the images that they are judged on."""

    def prepare(self, model_name: str, build: Callable[[], nn.Module]) -> dict[str, Any]:
        """Make sure that weights for the model exist; says which: `checkpoint`, `sha256`, `recipe`."""

    def load(self, module: nn.Module, model_name: str) -> dict[str, Any]:
        """Put the prepared weights into the module; says where they come from."""

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Held-out images, preprocessed at the model's resolution, and their labels."""

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
