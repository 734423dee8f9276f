"""The task of a served classifier of digits: learned from pixels, scored on what its own chain makes of files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from bench.meters.quality import Run, accuracy
from bench.scores import Score
from suites.common import digits_data as data
from suites.common.task import TaskError
from suites.common.tasks.digits import Digits


class DigitsServed(Digits):
    """Top-1 on the files of the held-out digits, decoded and resized by the chain that is timed."""

    name = "digits_served"

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module has a chain of its own for files of digits."""
        if not hasattr(module, "files_of") or not hasattr(module, "logits"):
            raise TaskError(f'model "{model_name}" serves no files of digits: take digits_service')
        super().fits(module, model_name)

    def score(self, run: Run) -> Score:
        """Top-1 of the chain."""
        module: Any = run.module
        batches = ((module.files_of(index), data.labels(index)) for index in data.split()[1].split(run.batch))
        return accuracy(replace(run, module=_Through(module)), batches)

    def _preprocessing(self) -> dict[str, Any]:
        return {**super()._preprocessing(), "scored on": "files of the model's own quality, through its own chain"}


class _Through(nn.Module):
    """Files to logits by the module's chain."""

    def __init__(self, module: Any):
        super().__init__()
        object.__setattr__(self, "_logits", module.logits)

    def forward(self, files: list[bytes]) -> Tensor:
        """Logits, [files, 10]."""
        logits: Tensor = self.__dict__["_logits"](files)
        return logits
