"""Digits to learn from at one resolution and to be judged on at another: what a position bias is worth."""

from __future__ import annotations

from typing import Any

from torch import nn

from suites.common.task import TaskError
from suites.common.tasks.digits import Digits
from suites.scaling.swin import Swin


class ResizedDigits(Digits):
    """As the digits, of a Swin that is trained at its `trained_at` and judged at its resolution."""

    name = "digits_resized"

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module is a Swin with ten logits."""
        if not isinstance(module, Swin):
            raise TaskError(f'model "{model_name}" cannot be resized: {self.name} is for suites.scaling.swin:swin')
        super().fits(module, model_name)

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train at the smaller resolution; accuracies there, and on the held-out digits at the larger one."""
        assert isinstance(module, Swin)
        wanted = (module.resolution, module.window)
        module.resize(*module.trained_at)
        self.resolution = module.resolution
        try:
            found = super().learn(module)
        finally:
            module.resize(*wanted)
            self.resolution = module.resolution
        return {**found, "trained_resolution": module.trained_at[0], "trained_window": module.trained_at[1]}
