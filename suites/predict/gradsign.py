"""GradSign: networks ranked before they are trained, by how alike the gradients of single samples are.

Source: Zhang and Jia 2022, GradSign, arXiv:2110.08616: the score of a network at its initialisation is the sum over its
parameters of |sum over samples of sign(gradient of the sample's loss)|; a larger score, a better network. It ranks
accuracies and predicts none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config import catalogue
from bench.config.signatures import split_path
from bench.errors import UsageError
from suites.common.tasks.digits import Digits
from suites.predict.networks import RESOLUTION, Network
from suites.predict.predictor import Knowledge, Predictor, Question

#: Between the spec of a network and the side of its picture in its name.
AT = " @"


class GradSign(Predictor):
    """1 / score of networks that are named by their spec, or 1 / their products: the less, the better the network."""

    learns, ranks_only = False, True

    def __init__(self, question: Question, by: str, samples: int, seed: int):
        super().__init__(question)
        self.by, self.samples, self.seed = by, samples, seed
        self.register_buffer("anchor", torch.zeros(1))

    def encode(self, given: Sequence[Network]) -> tuple[Tensor, ...]:
        """The score of each network, [networks]; of one that is no spec of the catalogue its products."""
        values = [self._score(network) if self.by == "signs" else network.macs for network in given]
        return (torch.tensor([float(value or 1.0) for value in values]),)

    def _score(self, network: Network) -> float:
        return score_of(network.name, self.samples, self.seed) if AT in network.name else float(network.macs or 0.0)

    def forward(self, scores: Tensor) -> Tensor:
        """What is to be small, [networks]."""
        return 1.0 / scores

    def fit(self, known: Knowledge) -> None:
        """There is nothing to learn."""


@cache
def score_of(name: str, samples: int, seed: int) -> float:
    """The score of a network of the catalogue at its initialisation on digits, by `spec @side`.

    Raises:
        UsageError: no such network.
    """
    spec, _, side = name.rpartition(AT)
    module = built(spec, int(side) if side.isdigit() else RESOLUTION, seed)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.enable_grad():
        task = Digits(Path(folder), seed)
        task.fits(module, spec)
        images, labels = next(iter(task.training_batches(samples, 1, seed)))
        return agreement(module, images.clone(), labels.clone())


def built(spec: str, side: int, seed: int) -> nn.Module:
    """The untrained network of a spec.

    Raises:
        UsageError: no such network, or a setting that it refuses.
    """
    import importlib

    name, settings = catalogue.parse_spec(spec)
    entry = catalogue.load().model(name)
    catalogue.check_model(entry, settings)
    chosen = {**entry.settings, **settings, **({"resolution": side} if entry.accepts("resolution") else {})}
    where, what = split_path(entry.path)
    torch.manual_seed(seed)
    with torch.inference_mode(False):
        made = getattr(importlib.import_module(where), what)(**chosen)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{spec} is no network")
    return made.eval()


def agreement(module: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Sum over parameters of |sum over samples of sign(gradient)|, sample by sample.

    Args:
        module: a classifier in evaluation mode.
        inputs: [samples, ...].
        labels: [samples].
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for one, label in zip(inputs, labels, strict=True):
        loss = F.cross_entropy(module(one.unsqueeze(0)), label.unsqueeze(0))
        for total, gradient in zip(sums, _gradients(loss, parameters), strict=True):
            total.add_(gradient.sign())
    return float(sum(total.abs().sum() for total in sums))


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Iterable[Tensor]:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [
        torch.zeros_like(p) if gradient is None else gradient for p, gradient in zip(parameters, found, strict=True)
    ]
