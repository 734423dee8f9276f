"""An ImageNet-style folder of the user's and a real checkpoint, with the preprocessing that the checkpoint wants."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import did_you_mean
from bench.meters.quality import Run, accuracy
from bench.scores import Score
from suites.common.checkpoint import load_checkpoint
from suites.common.task import TaskError, file_sha256

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".ppm")
#: Folders below the root that hold the held-out images where the root itself has no class folders.
HELD_OUT = ("val", "validation", "test")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Preprocess:
    """How a file becomes an input: shorter side to resolution / crop, the centre cut out, colours normalised."""

    crop: float = 0.875
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = _IMAGENET[0]
    std: tuple[float, ...] = _IMAGENET[1]


#: Evaluation settings of the families of checkpoints: DeiT and MAE 256 to 224 with ImageNet's colours; timm's own ViTs
#: ("augreg") 248 to 224 with colours in -1..1; EfficientNet-Lite 256 to 224 with colours in -1..1.
PREPROCESS = {"deit": Preprocess(), "mae": Preprocess(), "augreg": Preprocess(0.9, "bicubic", *_HALF),
              "lite": Preprocess(0.875, "bicubic", *_HALF)}  # fmt: skip


class ImageFolder:
    """Top-1 on images in `root/<class>/<image>`; classes are the sorted names of the folders."""

    metric = "accuracy"

    def __init__(
        self,
        cache: Path,
        seed: int,
        *,
        root: str,
        checkpoint: str | None = None,
        preprocess: str = "auto",
        crop: float | None = None,
        limit: int | None = None,
    ):
        """Look at the folder; nothing is read from the images yet.

        Args:
            cache: not used; the weights are the user's.
            seed: which images a `limit` picks.
            root: the folder, or one that holds `val/`.
            checkpoint: the weights file.
            preprocess: "deit", "mae", "augreg", or "auto": a `config.json` as timm writes it beside the checkpoint,
                else by the model's name.
            crop: overrides the share of the resized image that is cut out.
            limit: evaluates so many images, drawn evenly at random; None for all.

        Raises:
            TaskError: no such folder, no class folders or no images in it, an unknown preprocessing.
        """
        if preprocess not in ("auto", *PREPROCESS):
            raise TaskError(f'preprocess="{preprocess}" is unknown; {did_you_mean(preprocess, ["auto", *PREPROCESS])}')
        self.root, self.classes = _class_folders(Path(root).expanduser())
        self.checkpoint = None if checkpoint is None else Path(checkpoint).expanduser()
        self.samples = _samples(self.root, self.classes)
        if limit is not None:
            self.samples = _some(self.samples, limit, seed)
        self._preprocess, self._crop = preprocess, crop
        self.preprocess = PREPROCESS["deit"]
        self.resolution = 224

    def prepare(self, model_name: str, build: Callable[[], nn.Module]) -> dict[str, Any]:
        """The checkpoint and its SHA-256, after a trial of loading it."""
        provenance = self.load(build(), model_name)
        return {**provenance, "recipe": {"kind": "the user's checkpoint"}}

    def load(self, module: nn.Module, model_name: str) -> dict[str, Any]:
        """Load the checkpoint into the module; settles resolution and preprocessing.

        Raises:
            TaskError: no checkpoint was given, or the folder has another number of classes than the model.
            CheckpointError: the file does not fit the model.
        """
        own = getattr(module, "pretrained", None)
        if self.checkpoint is None and not own:
            raise TaskError(
                "task=imagefolder needs weights: give checkpoint=<file.safetensors or .pth> of the model; random "
                "weights have no accuracy"
            )
        adapted = load_checkpoint(module, self.checkpoint) if self.checkpoint else {}
        self._check_classes(module, model_name)
        self.resolution = int(getattr(module, "resolution", 224))
        self.preprocess = self._choose(model_name, own or {})
        if self.checkpoint is None:
            return dict(own or {})
        return {"checkpoint": str(self.checkpoint), "sha256": file_sha256(self.checkpoint), **adapted}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Preprocessed images [batch, 3, resolution, resolution] and labels [batch]; the last batch may be smaller."""
        for start in range(0, len(self.samples), batch_size):
            part = self.samples[start : start + batch_size]
            images = torch.stack([read_image(self.root / name, self.resolution, self.preprocess) for name, _ in part])
            yield images, torch.tensor([label for _, label in part])

    def score(self, run: Run) -> Score:
        """Top-1 on the images of the folder."""
        return accuracy(run, self.batches(run.batch))

    def describe(self) -> dict[str, Any]:
        """Number of images and classes, hash of names and sizes, preprocessing in force."""
        rows = [(name, (self.root / name).stat().st_size, label) for name, label in self.samples]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
        shown = {**asdict(self.preprocess), "resolution": self.resolution}
        return {
            "name": "imagefolder",
            "split": self.root.name,
            "n": len(self.samples),
            "classes": len(self.classes),
            "digest": digest,
            "preprocessing": shown,
        }

    def _check_classes(self, module: nn.Module, model_name: str) -> None:
        classes = getattr(module, "classes", getattr(module, "num_classes", None))
        if classes is not None and classes != len(self.classes):
            raise TaskError(
                f"{self.root} has {len(self.classes)} class folders and {model_name} has {classes} logits: labels are "
                f"the sorted folder names, so all {classes} folders must be there (an empty one is fine), or build "
                f"the model with classes={len(self.classes)} and a checkpoint of that kind"
            )

    def _choose(self, model_name: str, own: dict[str, Any]) -> Preprocess:
        if self._preprocess != "auto":
            chosen = PREPROCESS[self._preprocess]
        elif self.checkpoint is None:  # the builder's own weights say how they were learned
            chosen = PREPROCESS[own["preprocess"]]
        else:
            plain = model_name.removeprefix("timm:")
            chosen = (
                _from_config(self.checkpoint.parent / "config.json")
                or PREPROCESS["augreg" if plain.startswith("vit") else "deit"]
            )
        return chosen if self._crop is None else replace(chosen, crop=self._crop)


def _class_folders(root: Path) -> tuple[Path, list[str]]:
    if not root.is_dir():
        raise TaskError(f"data.root={root} is not a folder: give the folder that holds one folder per class")
    names = _folders(root)
    held_out = [name for name in HELD_OUT if name in names]
    if held_out and set(names) <= {"train", *HELD_OUT}:
        root = root / held_out[0]
        names = _folders(root)
    if not names:
        raise TaskError(f"{root} has no class folders: images must be in {root}/<class>/<image>")
    return root, names


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _samples(root: Path, classes: list[str]) -> list[tuple[str, int]]:
    found = [
        (str(path.relative_to(root)), label)
        for label, name in enumerate(classes)
        for path in sorted((root / name).rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not found:
        raise TaskError(f"{root} has {len(classes)} class folders and no images in them (looked for {IMAGE_SUFFIXES})")
    return found


def _some(samples: list[tuple[str, int]], limit: int, seed: int) -> list[tuple[str, int]]:
    if limit < 1:
        raise TaskError(f"limit={limit}: evaluate at least one image")
    chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:limit]
    return [samples[i] for i in sorted(chosen.tolist())]


def _from_config(path: Path) -> Preprocess | None:
    """Preprocessing of a timm `config.json`, or None where there is none."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = content.get("pretrained_cfg", content)
        return Preprocess(
            float(config["crop_pct"]), str(config["interpolation"]), tuple(config["mean"]), tuple(config["std"])
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_image(path: Path, resolution: int, preprocess: Preprocess) -> Tensor:
    """One image file as a normalised tensor, [3, resolution, resolution].

    Raises:
        TaskError: the file is not an image that can be read.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise TaskError(f"{path} cannot be read as an image: {error}; remove or replace it") from error
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    short = math.floor(resolution / preprocess.crop)
    width, height = image.size
    scale = short / min(width, height)
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    image = image.resize(size, filters.get(preprocess.interpolation, Image.Resampling.BICUBIC)) if scale != 1 else image
    left, top = round((size[0] - resolution) / 2), round((size[1] - resolution) / 2)
    image = image.crop((left, top, left + resolution, top + resolution))
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0).permute(2, 0, 1)
    mean, std = torch.tensor(preprocess.mean)[:, None, None], torch.tensor(preprocess.std)[:, None, None]
    return (pixels - mean) / std
