"""Ids that a method calibrates on: text of the task that the model was loaded by, or seeded random ids."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Length of one calibration sequence.
LENGTH = 256


def calibration_ids(model: nn.Module, tokens: int, seed: int = 0) -> Tensor:
    """About `tokens` ids, [sequences, length], on the model's device.

    A model that a task has given its weights is shown the task's training text. Any other has random weights, and
    random ids say as much about it.
    """
    device = next(model.parameters()).device
    length = min(LENGTH, tokens)
    count = max(1, tokens // length)
    task = getattr(model, "task", None)
    if task is not None and hasattr(task, "training_batches"):
        inputs, _ = next(iter(task.training_batches(count, 1, seed)))
        return inputs[:, :length].to(device)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(int(model.vocabulary), (count, length), generator=generator).to(device)  # type: ignore[arg-type]
