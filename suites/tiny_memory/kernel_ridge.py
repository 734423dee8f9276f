"""Kernel ridge classifiers, and how much of a task sequence a learner still knows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def targets(labels: Tensor, classes: int) -> Tensor:
    """+1 for the class and -1 for all others, [n, classes]."""
    return 2 * F.one_hot(labels, classes).float() - 1


def primal(features: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """Weights [width, classes] of a linear kernel: (F^T F + l I)^-1 F^T Y."""
    eye = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    return torch.linalg.solve(features.T @ features + ridge * eye, features.T @ wanted)


def dual(features: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """Weights [n, classes] of the stored samples: (K + l I)^-1 Y with K = F F^T."""
    eye = torch.eye(len(features), dtype=features.dtype, device=features.device)
    return torch.linalg.solve(features @ features.T + ridge * eye, wanted)


def random_fourier(features: Tensor, directions: Tensor, phases: Tensor) -> Tensor:
    """sqrt(2 / D) cos(x W + b), [n, D]: their products approximate a Gaussian kernel (Rahimi and Recht 2007)."""
    return math.sqrt(2 / directions.shape[1]) * torch.cos(features @ directions + phases)


def forgetting(accuracies: Tensor) -> float:
    """Mean over all tasks but the last of the best accuracy that a task ever had less the one that it has at the end.

    Args:
        accuracies: [tasks learned, tasks], of each task after each.

    Raises:
        ValueError: a single task.
    """
    if len(accuracies) < 2:
        raise ValueError("forgetting needs two tasks or more")
    best = torch.stack([accuracies[task:-1, task].max() for task in range(len(accuracies) - 1)])
    return float((best - accuracies[-1, :-1]).mean())


def coreset_bytes(tasks: int, stored: int, pixels: int, element: int) -> int:
    """Bytes of M pictures a task: T M d b."""
    return tasks * stored * pixels * element


def crossing(kept: int, stored: int, pixels: int, element: int) -> float:
    """T* = bytes of the generator over M d b: with fewer tasks the coreset is smaller."""
    return kept / (stored * pixels * element)
