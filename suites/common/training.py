"""The one loop that trains a module: AdamW on a given loss, linear warm-up, cosine decay, clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batches = Iterable[tuple[Tensor, Tensor]]
#: The number to make small, from the inputs of one batch and what belongs to them (labels, next bytes, clean pictures).
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pace:
    """How long and how fast a run of the loop learns; `fresh_rate` is the rate of parameters that start at random."""

    steps: int
    rate: float
    fresh_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip: float = 1.0

    def factor(self, step: int) -> float:
        """Share of the full rate at a step: linear warm-up times cosine decay."""
        warm = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        return warm * 0.5 * (1 + math.cos(math.pi * step / max(1, self.steps)))


def fit(module: nn.Module, batches: Batches, loss: Loss, pace: Pace, fresh: Iterable[nn.Parameter] = ()) -> list[float]:
    """The loss of each step; the module is trained in place and in evaluation mode afterwards.

    Args:
        module: what is trained: its parameters that require a gradient.
        batches: `pace.steps` batches of inputs and what belongs to them.
        loss: gives the number to make small; it runs the module itself.
        pace: steps, rates, decay.
        fresh: parameters of the module that start at random and learn at `pace.fresh_rate`.
    """
    groups = _groups(module, list(fresh), pace)
    optimizer = torch.optim.AdamW(groups, weight_decay=pace.weight_decay, betas=(0.9, 0.98))
    rates = [group["lr"] for group in optimizer.param_groups]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    losses = []
    module.train()
    for step, (inputs, labels) in enumerate(batches):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * pace.factor(step)
        value = loss(inputs, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, pace.clip)
        optimizer.step()
        losses.append(float(value.detach()))
    module.eval()
    return losses


def _groups(module: nn.Module, fresh: list[nn.Parameter], pace: Pace) -> list[dict[str, object]]:
    new = {id(p) for p in fresh}
    known = [p for p in module.parameters() if p.requires_grad and id(p) not in new]
    groups: list[dict[str, object]] = [{"params": known, "lr": pace.rate}]
    if fresh:
        groups.append({"params": fresh, "lr": pace.rate if pace.fresh_rate is None else pace.fresh_rate})
    return groups


def classification(module: nn.Module) -> Loss:
    """Cross-entropy of the module's logits, whose last axis is the classes: one label per image, step or byte."""
    return lambda inputs, labels: F.cross_entropy(module(inputs).flatten(0, -2), labels.flatten())


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean over the batch of KL(wanted || logits), both given as logits."""
    return F.kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True)


def taught(logits: Tensor, labels: Tensor, wanted: Tensor, weight: float = 0.5) -> Tensor:
    """Cross-entropy plus `weight` x the divergence of the answers from the teacher's, given as logits."""
    return F.cross_entropy(logits, labels) + weight * divergence(logits, wanted)


def distillation(module: nn.Module, teacher: nn.Module) -> Loss:
    """What `taught` says of the module's and the teacher's answers."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(images)
        return taught(module(images), labels, wanted)

    return loss


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, so that the same sums are formed in the same order on every run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
