"""What a subject offers as `make_optimizer` where its training step is not AdamW's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class OptimizerMaker:
    """Makes the optimizer of a module; a class, so that it travels to other processes with it."""

    def __init__(self, module: nn.Module, kind: Callable[..., Any], **settings: Any):
        self.module, self.kind, self.settings = module, kind, settings

    def __call__(self) -> torch.optim.Optimizer:
        """A new one."""
        made: torch.optim.Optimizer = self.kind(self.module, **self.settings)
        return made
