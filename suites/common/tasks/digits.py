"""Ten classes of handwritten digits: real images from scikit-learn, and classifiers trained in a minute.

1797 real 8 x 8 images, so that quality and cost come from one artefact with nothing to download. They come in three
forms: as an image at the model's resolution, as strokes, and as the image that is left of a JPEG file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bench.meters.quality import Run, accuracy
from bench.scores import Score
from suites.common import digits_data as data
from suites.common.stacking import shorten
from suites.common.task import TaskError, TrainedTask
from suites.common.training import Pace, classification, fit

Form = Literal["image", "jpeg", "strokes"]


@dataclass(frozen=True)
class Training:
    """How a classifier is trained; for a stackable network, `copies` blocks grow from each of the first phase."""

    steps: int = 600
    grown_steps: int = 100
    copies: int = 4
    batch: int = 32
    rate: float = 3e-3
    grown_rate: float = 1.5e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip: float = 1.0


class Digits(TrainedTask):
    """1200 digits to train on, 597 held out; a module states its `resolution`, `channels`, `points`, `classes`."""

    name = "digits"
    metric = "accuracy"

    def __init__(
        self,
        cache: Path,
        seed: int,
        *,
        training: Training | None = None,
        form: Form = "image",
        jpeg_quality: int = 50,
        jpeg_size: int = 32,
    ):
        """Nothing is trained or read yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the order of the training images; the weights start from the model's own seed.
            training: the recipe; None for the default.
            form: "image", "jpeg" (encoded, decoded, resized) or "strokes" (points of a path).
            jpeg_quality: of the files, 1 to 95.
            jpeg_size: pixels of a side in the file.

        Raises:
            TaskError: there is no such form, or the files would be none.
        """
        super().__init__(cache, seed)
        if form not in get_args(Form):
            raise TaskError(f'form="{form}" is unknown: digits come as {", ".join(get_args(Form))}')
        if not 1 <= jpeg_quality <= 95 or jpeg_size < 8:
            raise TaskError(f"jpeg_quality={jpeg_quality}, jpeg_size={jpeg_size}: choose 1 to 95, and 8 pixels or more")
        self.training = training or Training()
        self.form, self.jpeg_quality, self.jpeg_size = form, jpeg_quality, jpeg_size
        self.resolution, self.channels, self.points = 32, 3, 32

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module has ten logits; settles resolution, channels and points."""
        classes = getattr(module, "classes", data.CLASSES)
        if classes != data.CLASSES:
            raise TaskError(
                f'model "{model_name}" has {classes} logits and digits has {data.CLASSES} classes: take digits_tiny or '
                f"digits_small, or build it with classes={data.CLASSES}"
            )
        self.resolution = int(getattr(module, "resolution", 32))
        self.channels = int(getattr(module, "channels", 3))
        self.points = int(getattr(module, "points", 32))

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the classifier; its accuracy on some training images and on the held-out ones, in percent."""
        batches = partial(self.training_batches, self.training.batch)
        before = getattr(module, "before_training", None)
        if callable(before):  # a network that learns a part of itself from data first, as hashes are
            before(next(batches(1, self.seed))[0])
        train(module, self.training, batches, self.seed)
        with torch.inference_mode():
            on_training = accuracy(Run(module), self.training_batches(200, 6, self.seed))
            held_out = accuracy(Run(module), self.batches(200))
        return {"train_accuracy": on_training.value, "test_accuracy": held_out.value}

    def data_digest(self) -> str:
        """Hash of pixels and labels."""
        return data.digits()[2]

    def recipe(self) -> dict[str, Any]:
        """The training, and the form where it is not the image."""
        return {**asdict(self.training), **self._form()}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out digits and their labels in a fixed order."""
        for index in data.split()[1].split(batch_size):
            yield self._inputs(index), data.labels(index)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches drawn at random from the training digits."""
        train_index, _ = data.split()
        everything, labels = self._inputs(train_index), data.labels(train_index)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            pick = torch.randint(len(labels), (batch_size,), generator=generator)
            yield everything[pick], labels[pick]

    def requests(self) -> list[bytes]:
        """The held-out digits as JPEG files, for a chain that decodes them itself."""
        return data.encoded(data.split()[1], self.jpeg_size, self.jpeg_quality)

    def score(self, run: Run) -> Score:
        """Top-1 on the held-out digits."""
        return accuracy(run, self.batches(run.batch))

    def describe(self) -> dict[str, Any]:
        """Name, split, number of digits, hash of the data, preprocessing."""
        return {
            "name": self.name,
            "split": "597 held-out of scikit-learn's 1797 digits, the same for every seed",
            "n": data.HELD_OUT,
            "classes": data.CLASSES,
            "digest": self.data_digest(),
            "preprocessing": self._preprocessing(),
        }

    def _preprocessing(self) -> dict[str, Any]:
        if self.form == "strokes":
            return {**self._form(), "points": self.points, "ink": data.INK}
        seen = {"resolution": self.resolution, "interpolation": "bilinear", "mean": data.MEAN, "std": data.STD}
        return {**seen, **self._form()}

    def _form(self) -> dict[str, Any]:
        files = {"jpeg_quality": self.jpeg_quality, "jpeg_size": self.jpeg_size} if self.form == "jpeg" else {}
        return {} if self.form == "image" else {"form": self.form, **files}

    def _inputs(self, index: Tensor) -> Tensor:
        if self.form == "strokes":
            return data.strokes(index, self.points)
        if self.form == "jpeg":
            files = data.encoded(index, self.jpeg_size, self.jpeg_quality)
            return data.decoded(files, self.resolution, self.channels)
        return data.images(index, self.resolution, self.channels)


Batches = Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]


def train(module: nn.Module, how: Training, batches: Batches, seed: int) -> None:
    """Train a classifier in place; one that can be stacked grows from a part of its blocks.

    Args:
        module: the classifier, in evaluation mode afterwards.
        how: the recipe.
        batches: gives `steps` batches for (steps, seed).
        seed: of the order of images.
    """
    grow = shorten(module, how.copies)
    _fit(module, batches(how.steps, seed), how.steps, how.rate, how)
    if grow is not None:
        grow()
    _fit(module, batches(how.grown_steps, seed + 1), how.grown_steps, how.grown_rate, how)


def _fit(module: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], steps: int, rate: float, how: Training) -> None:
    pace = Pace(steps, rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
    # a network whose loss looks into it says its own, learning_loss(images, labels)
    fit(module, batches, getattr(module, "learning_loss", None) or classification(module), pace)
