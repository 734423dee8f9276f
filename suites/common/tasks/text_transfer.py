"""From one text to another: decoders learn Python's help topics, and methods fine-tune them on Python's own source.

What `prepare` trains knows the first text alone; `training_batches` are of the second, and so is the score. A model
without a method is therefore the network before fine-tuning, and what a fine-tuning gains is read against it.
"""

from __future__ import annotations

import hashlib
import math
import platform
from functools import cache as remember
from typing import Any

import torch
from torch import nn

from bench.meters.quality import Run
from suites.common.tasks.byte_origin import library_folder
from suites.common.tasks.text_bytes import TextBytes, python_topics
from suites.common.training import Pace, classification, fit

#: Packages of the standard library whose files are the second text, in alphabetical order.
PACKAGES = ("asyncio", "collections", "concurrent", "email", "http", "importlib", "json", "logging", "unittest")


@remember
def library_source() -> bytes:
    """The Python files of these packages, one after the other."""
    folder = library_folder()
    return b"".join(path.read_bytes() for name in PACKAGES for path in sorted((folder / name).rglob("*.py")))


class TextTransfer(TextBytes):
    """Bits per byte of the last tenth of the second text, after fine-tuning on its first nine tenths."""

    name = "text_transfer"

    def text(self) -> bytes:
        """The second text."""
        return library_source()

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the decoder on the first text; the loss of its last steps, and its score on the second."""
        how = self.training
        first = TextBytes(self.cache.folder, self.seed, training=how, prompt=self.prompt, scored=self.scored)
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        losses = fit(module, first.training_batches(how.batch, how.steps, self.seed), classification(module), pace)
        with torch.inference_mode():
            held_out = self.score(Run(module))
        last = losses[-10:]
        return {"train_bits_per_byte": sum(last) / len(last) / math.log(2), "test_bits_per_byte": held_out.value}

    def data_digest(self) -> str:
        """Hash of both texts."""
        return hashlib.sha256(python_topics() + self.text()).hexdigest()[:16]

    def source(self) -> str:
        """Where both texts come from."""
        version = platform.python_version()
        return f"learned: pydoc_data.topics; fine-tuned and scored: {', '.join(PACKAGES)} of Python {version}"
