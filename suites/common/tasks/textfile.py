"""A text file of the user's: bits per byte of given weights, or of weights trained on the start of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from suites.common.checkpoint import load_checkpoint
from suites.common.task import TaskError, file_sha256
from suites.common.tasks.text_bytes import TextBytes, Training


class TextFile(TextBytes):
    """Bits per byte of a file. With a checkpoint all of it is held out; without one, nine tenths are learned first."""

    name = "textfile"

    def __init__(
        self,
        cache: Path,
        seed: int,
        *,
        root: str,
        checkpoint: str | None = None,
        prompt: int = 128,
        training: Training | None = None,
    ):
        """Read the file.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the stretches to learn from.
            root: the file; its bytes are taken as they are.
            checkpoint: the user's weights of a model of bytes.
            prompt: bytes that are read before the first is predicted.
            training: the recipe where there is no checkpoint; None for the default.

        Raises:
            TaskError: no such file, or it is too short.
        """
        self.file = Path(root).expanduser()
        if not self.file.is_file():
            raise TaskError(f"data.root={root} is not a file: task=textfile takes one text file")
        self._text = self.file.read_bytes()
        self.checkpoint = None if checkpoint is None else Path(checkpoint).expanduser()
        super().__init__(cache, seed, training=training, prompt=prompt, scored=None)

    def text(self) -> bytes:
        """The bytes of the file."""
        return self._text

    def pieces(self) -> Tensor:
        """Pieces of the held-out tenth, or of the whole file where the weights are the user's."""
        if self.checkpoint is None:
            return super().pieces()
        import torch

        return torch.cat(self.parts()).unfold(0, 2 * self.prompt, self.prompt)

    def prepare(self, model_name: str, build: Callable[[], nn.Module]) -> dict[str, Any]:
        """The checkpoint and its SHA-256 after a trial of loading it; without one, weights trained on the file."""
        if self.checkpoint is None:
            return super().prepare(model_name, build)
        return {**self.load(build(), model_name), "recipe": {"kind": "the user's checkpoint"}}

    def load(self, module: nn.Module, model_name: str) -> dict[str, Any]:
        """Load the user's weights, or those that were trained on the file."""
        if self.checkpoint is None:
            return super().load(module, model_name)
        self.fits(module, model_name)
        adapted = load_checkpoint(module, self.checkpoint)
        return {"checkpoint": str(self.checkpoint), "sha256": file_sha256(self.checkpoint), **adapted}

    def describe(self) -> dict[str, Any]:
        """As of any text; the split says what is held out."""
        split = "the last tenth of the file" if self.checkpoint is None else "the whole file"
        return {**super().describe(), "split": split}

    def source(self) -> str:
        """The file's name."""
        return self.file.name
