"""Where bytes come from: slices of documentation, Python source, compiled code, deflated and base64 files.

All of it is made from the Python that runs, so the digest differs between versions. It stands for the first bytes of
network flows, whose captures cannot be shipped: the classes differ in their statistics of bytes, as applications do.
"""

from __future__ import annotations

import base64
import hashlib
import marshal
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache as remember
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.quality import Run, accuracy
from bench.scores import Score
from suites.common.task import TaskError, TrainedTask
from suites.common.training import Pace, classification, fit

ORIGINS = ("documentation", "source", "compiled", "deflated", "base64")
#: Packages of the standard library that are read; every fifth file and topic is held out.
PACKAGES = ("asyncio", "collections", "email", "html", "http", "json", "logging", "unittest", "urllib", "xml")
HELD_OUT_EVERY = 5
#: Held-out slices of each origin.
SLICES = 80


@dataclass(frozen=True)
class Training:
    """How a classifier of bytes is trained."""

    steps: int = 200
    batch: int = 16
    rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip: float = 1.0


@remember
def pools() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The bytes of each origin to learn from, and those held out; no file or topic is in both."""
    from pydoc_data.topics import topics

    folder = library_folder()
    files = sorted(path for name in PACKAGES for path in (folder / name).rglob("*.py") if path.stat().st_size > 2000)
    sources = [path.read_bytes() for path in files]
    texts = [topics[name].encode() for name in sorted(topics) if len(topics[name]) > 1000]
    found = []
    for held_out in (False, True):
        text, source = (_share(documents, held_out=held_out) for documents in (texts, sources))
        both = text + source
        compiled = [marshal.dumps(compile(code, "", "exec", dont_inherit=True)) for code in source]
        deflated, encoded = [zlib.compress(part, 6) for part in both], [base64.b64encode(part) for part in both]
        found.append(tuple(b"".join(parts) for parts in (text, source, compiled, deflated, encoded)))
    return found[0], found[1]


def library_folder() -> Path:
    """Where the standard library is."""
    import asyncio

    return Path(asyncio.__file__).parents[1]


def _share(documents: list[bytes], *, held_out: bool) -> list[bytes]:
    return [part for place, part in enumerate(documents) if (place % HELD_OUT_EVERY == 0) == held_out]


def scaled(values: Tensor) -> Tensor:
    """Bytes as networks of flows take them: 0..255 to -1..1, float32."""
    return values.float() / 127.5 - 1


class ByteOrigin(TrainedTask):
    """The share of held-out slices whose origin is told; a module says how many `bytes` it takes, scaled to -1..1."""

    name = "byte_origin"
    metric = "accuracy"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None):
        """Nothing is read or trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the slices to learn from; held-out ones are the same for every seed.
            training: the recipe; None for the default.
        """
        super().__init__(cache, seed)
        self.training = training or Training()
        self.bytes = 400

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module takes bytes and has a logit for each origin; settles the bytes."""
        length, classes = getattr(module, "bytes", None), getattr(module, "classes", None)
        if not isinstance(length, int) or classes != len(ORIGINS):
            raise TaskError(
                f'model "{model_name}" has {classes} logits and takes {length} bytes; byte_origin has {len(ORIGINS)} '
                f"classes: take small_netmamba, or build a netmamba with classes={len(ORIGINS)}"
            )
        self.bytes = length

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the classifier; its accuracy on the held-out slices, in percent."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        losses = fit(module, self.training_batches(how.batch, how.steps, self.seed), classification(module), pace)
        with torch.inference_mode():
            held_out = accuracy(Run(module), self.batches(50))
        last = losses[-10:]
        return {"train_loss": sum(last) / len(last), "test_accuracy": held_out.value}

    def data_digest(self) -> str:
        """Hash of all bytes."""
        return hashlib.sha256(b"".join(part for split in pools() for part in split)).hexdigest()[:16]

    def recipe(self) -> dict[str, Any]:
        """The training and the bytes of a slice."""
        return {**asdict(self.training), "bytes": self.bytes}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out slices [batch, bytes] in -1..1 and their origins."""
        generator = torch.Generator().manual_seed(1_000_000)
        origins = torch.arange(SLICES * len(ORIGINS)) % len(ORIGINS)
        slices = self._slices(pools()[1], origins, generator)
        yield from zip(slices.split(batch_size), origins.split(batch_size), strict=True)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of random slices."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            origins = torch.randint(len(ORIGINS), (batch_size,), generator=generator)
            yield self._slices(pools()[0], origins, generator), origins

    def _slices(self, split: tuple[bytes, ...], origins: Tensor, generator: torch.Generator) -> Tensor:
        found = []
        for origin in origins.tolist():
            whole = split[origin]
            start = int(torch.randint(len(whole) - self.bytes, (1,), generator=generator))
            found.append(torch.frombuffer(bytearray(whole[start : start + self.bytes]), dtype=torch.uint8))
        return scaled(torch.stack(found))

    def score(self, run: Run) -> Score:
        """Top-1 on the held-out slices."""
        return accuracy(run, self.batches(run.batch))

    def describe(self) -> dict[str, Any]:
        """Name, split, number of slices, hash of the bytes, their scaling."""
        return {
            "name": self.name, "n": SLICES * len(ORIGINS), "classes": len(ORIGINS), "digest": self.data_digest(),
            "split": "slices of every fifth file and topic of the standard library, the same for every seed",
            "preprocessing": {"bytes": self.bytes, "scaled": "0..255 to -1..1", "origins": list(ORIGINS)},
        }  # fmt: skip
