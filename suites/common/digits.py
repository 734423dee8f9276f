"""The embedded task: scikit-learn's bundled handwritten digits, and small ViTs trained on them in under a minute.

1797 real 8 x 8 images (UCI optical recognition of handwritten digits), so that quality and cost come from one artefact
with nothing to download. Twelve thin blocks are trained by stacking: a quarter of them first, each then copied
four times with its output scaled by a quarter, and all trained on together (after Gong et al. 2019, "Efficient
Training of BERT by Progressively Stacking").
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from bench.config.signatures import source_digest
from suites.common.checkpoint import load_checkpoint
from suites.common.task import TaskError, WeightsCache, content_key
from suites.common.training import Pace, classification, fit, one_thread
from suites.common.vit import ViT, vit

__all__ = ["Digits", "Training", "digits_vit", "load_checkpoint", "train"]

CLASSES = 10
HELD_OUT = 597
#: Mean and standard deviation of the pixels, which are in 0..1.
MEAN, STD = 0.3053, 0.3760


@dataclass(frozen=True)
class Training:
    """How a model is trained; `copies` blocks are grown from each block of the first phase."""

    steps: int = 600
    grown_steps: int = 100
    copies: int = 4
    batch: int = 32
    rate: float = 3e-3
    grown_rate: float = 1.5e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip: float = 1.0


def digits_vit(
    *,
    width: PositiveInt = 48,
    heads: PositiveInt = 3,
    depth: PositiveInt = 12,
    patch: PositiveInt = 4,
    resolution: PositiveInt = 32,
    mlp_ratio: Positive = 4.0,
) -> ViT:
    """A ViT for ten classes that starts from sine and cosine positions, which small data needs.

    Args:
        width: features per token; a multiple of 4 and of `heads`.
        heads: attention heads per block.
        depth: number of blocks.
        patch: side of a patch in pixels.
        resolution: side of the upsampled digit in pixels.
        mlp_ratio: hidden width of the MLP over `width`.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % 4:
        raise ValueError(f"width={width}: positions in two dimensions need a multiple of 4")
    model = vit(
        width=width, heads=heads, depth=depth, patch=patch, resolution=resolution, classes=CLASSES, mlp_ratio=mlp_ratio
    )
    with torch.no_grad():
        model.pos_embed[:, 1:] = 0.7 * _positions(model.grid, width)
        nn.init.normal_(model.cls_token, std=0.7)  # type: ignore[arg-type]
    _scale_outputs(list(model.blocks), 5)
    return model


def _positions(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, [side^2, width]."""
    frequency = math.pi * torch.linspace(1 / side, 1, width // 4)
    angle = torch.arange(side)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)


@cache
def _data() -> tuple[Tensor, Tensor, str]:
    """Pixels in 0..1 [1797, 8, 8], labels [1797], and the hash of both."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    digest = hashlib.sha256(bundle.images.tobytes() + bundle.target.astype("int64").tobytes()).hexdigest()[:16]
    return torch.tensor(bundle.images, dtype=torch.float32) / 16, torch.tensor(bundle.target), digest


def _split() -> tuple[Tensor, Tensor]:
    """Indices for training and of the held-out images; the same for every seed, so that all models face one test."""
    import numpy as np

    order = torch.from_numpy(np.random.RandomState(0).permutation(len(_data()[0])))
    return order[HELD_OUT:], order[:HELD_OUT]


def images(index: Tensor, resolution: int) -> Tensor:
    """Normalised digits, enlarged to three equal channels, [n, 3, resolution, resolution]."""
    small = (_data()[0][index] - MEAN) / STD
    large = F.interpolate(small[:, None], size=(resolution, resolution), mode="bilinear", align_corners=False)
    return large.expand(-1, 3, -1, -1).contiguous()


class Digits:
    """Ten classes of handwritten digits: 1200 images to train on, 597 held out."""

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None):
        """Nothing is trained or read yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the order of the training images; the weights start from the model's own seed.
            training: the recipe; None for the default.
        """
        self.cache = WeightsCache(Path(cache) / "digits")
        self.seed = seed
        self.training = training or Training()
        self.resolution = 32
        self._model_key = ""

    def prepare(self, model_name: str, build: Callable[[], nn.Module]) -> dict[str, Any]:
        """Train the model unless its weights are in the cache; the notes on how it was trained."""
        module = build()
        self._check(module, model_name)
        _, notes = self.cache.get(self._key(module), partial(self._train, module))
        return notes

    def load(self, module: nn.Module, model_name: str) -> dict[str, Any]:
        """Put the trained weights into the module and leave the task on it as `module.task`.

        Raises:
            TaskError: the model was not prepared, or is not one for ten classes.
        """
        self._check(module, model_name)
        self._model_key = self._key(module)
        found = self.cache.read(self._model_key)
        if found is None:
            raise TaskError(
                f'model "{model_name}" has no trained weights for digits under {self.cache.folder}: run the suite, which '
                "trains it first, or call prepare"
            )
        weights, notes = found
        module.load_state_dict(weights)
        self.resolution = int(getattr(module, "resolution", 32))
        module.task = self  # type: ignore[assignment]
        return notes

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images and labels in a fixed order."""
        for index in _split()[1].split(batch_size):
            yield images(index, self.resolution), _data()[1][index]

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches drawn at random from the training images."""
        train_index, _ = _split()
        everything, labels = images(train_index, self.resolution), _data()[1][train_index]
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            pick = torch.randint(len(labels), (batch_size,), generator=generator)
            yield everything[pick], labels[pick]

    def remembered(self, what: str, key: dict[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors made once for this key, the loaded model and the maker's source; read from the cache afterwards."""
        source = source_digest(f"{make.__module__}:{make.__name__}")
        content = {"what": what, "model": self._model_key, "seed": self.seed, "source": source, **key}

        def made() -> tuple[dict[str, Tensor], dict[str, Any]]:
            with one_thread():
                return make(), content

        return self.cache.get(f"{what}-{content_key(content)}", made)[0]

    def describe(self) -> dict[str, Any]:
        """Name, split, number of images, hash of the data, preprocessing."""
        return {
            "name": "digits",
            "split": "597 held-out of scikit-learn's 1797 digits, the same for every seed",
            "n": HELD_OUT,
            "classes": CLASSES,
            "digest": _data()[2],
            "preprocessing": {"resolution": self.resolution, "interpolation": "bilinear", "mean": MEAN, "std": STD},
        }

    def _check(self, module: nn.Module, model_name: str) -> None:
        classes = getattr(module, "classes", CLASSES)
        if classes != CLASSES:
            raise TaskError(
                f'model "{model_name}" has {classes} logits and digits has {CLASSES} classes: take digits_tiny or '
                f"digits_small, or build it with classes={CLASSES}"
            )

    def _key(self, module: nn.Module) -> str:
        shapes = {name: list(value.shape) for name, value in module.state_dict().items()}
        return content_key(
            {
                "module": repr(module), "shapes": shapes, "resolution": getattr(module, "resolution", None),
                "training": asdict(self.training), "seed": self.seed, "data": _data()[2],
                "source": source_digest("suites.common.digits:Digits"),
            }
        )  # fmt: skip

    def _train(self, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        self.resolution = int(getattr(module, "resolution", 32))
        with one_thread():
            train(module, self.training, partial(self.training_batches, self.training.batch), self.seed)
            on_training = accuracy(module, self.training_batches(200, 6, self.seed))
            held_out = accuracy(module, self.batches(200))
        recipe = {**asdict(self.training), "seed": self.seed, "torch": torch.__version__}
        return module.state_dict(), {"recipe": recipe, "train_accuracy": on_training, "test_accuracy": held_out}


Batches = Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]


def train(module: nn.Module, how: Training, batches: Batches, seed: int) -> None:
    """Train a classifier in place; a ViT that is deep enough grows from a quarter of its blocks.

    Args:
        module: the classifier, in evaluation mode afterwards.
        how: the recipe.
        batches: gives `steps` batches for (steps, seed).
        seed: of the order of images.
    """
    if isinstance(module, ViT) and how.copies > 1 and module.depth % how.copies == 0:
        blocks = list(module.blocks)
        module.blocks = nn.ModuleList(blocks[:: how.copies])
        _fit(module, batches(how.steps, seed), how.steps, how.rate, how)
        for i, block in enumerate(blocks):
            source = blocks[i // how.copies * how.copies]
            block.load_state_dict(copy.deepcopy(source.state_dict()))
        _scale_outputs(blocks, 1 / how.copies)  # the copies together add about what their source did
        module.blocks = nn.ModuleList(blocks)
    else:
        _fit(module, batches(how.steps, seed), how.steps, how.rate, how)
    _fit(module, batches(how.grown_steps, seed + 1), how.grown_steps, how.grown_rate, how)


def _fit(module: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], steps: int, rate: float, how: Training) -> None:
    pace = Pace(steps, rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
    fit(module, batches, classification(module), pace)


def _scale_outputs(blocks: list[Any], factor: float) -> None:
    """Scale what each block adds to its input."""
    with torch.no_grad():
        for block in blocks:
            for linear in (block.attn.proj, block.mlp.fc2):
                linear.weight.mul_(factor)
                linear.bias.mul_(factor)


def accuracy(module: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """Share of right answers in percent."""
    right = total = 0
    with torch.inference_mode():
        for inputs, labels in batches:
            right += int((module(inputs).argmax(dim=1) == labels).sum())
            total += len(labels)
    return 100.0 * right / total
