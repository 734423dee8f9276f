"""Digits as vertices of which few are labelled: networks over a graph or a hypergraph, and perceptrons taught by them.

Twenty vertices of each class are labelled, thirty choose the best epoch, the rest is scored. In `production` a fifth of
that rest is hidden while a network learns (it is in no edge, and nobody says anything of it) and alone is scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.quality import Run, accuracy
from bench.scores import Score
from suites.common import digits_data as data
from suites.common.task import TaskError, TrainedTask

LABELLED, VALIDATED, HIDDEN = 20, 30, 0.2


@dataclass(frozen=True, eq=False)
class VertexSplit:
    """Numbers of vertices: labelled, for choosing the epoch, all others, and those of them that are hidden."""

    labelled: Tensor
    validated: Tensor
    unlabelled: Tensor
    hidden: Tensor

    def wanted(self, index: Tensor) -> Tensor:
        """Labels of vertices."""
        return data.labels(index)


def vertex_split(production: bool) -> VertexSplit:
    """The same split for every seed, so that all networks face one test."""
    labels, generator = data.digits()[1], torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    of_class = [order[labels[order] == number] for number in range(data.CLASSES)]
    rest = torch.cat([found[LABELLED + VALIDATED :] for found in of_class])
    rest = rest[torch.randperm(len(rest), generator=generator)]
    return VertexSplit(
        torch.cat([found[:LABELLED] for found in of_class]),
        torch.cat([found[LABELLED : LABELLED + VALIDATED] for found in of_class]),
        rest,
        rest[: round(HIDDEN * len(rest))] if production else rest[:0],
    )


class DigitVertices(TrainedTask):
    """Accuracy on the unlabelled vertices; a module takes numbers of vertices and learns by `learn_vertices`."""

    name = "digit_vertices"
    metric = "accuracy"

    def __init__(self, cache: Path, seed: int, *, production: bool = False):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of weights and of what is drawn while learning.
            production: vertices that are scored are unseen while learning.
        """
        super().__init__(cache, seed)
        self.production = production

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module learns vertices, and they are the digits."""
        if not hasattr(module, "learn_vertices"):
            raise TaskError(f'model "{model_name}" takes no vertices: digit_vertices is for hgnn, lighthgnn and kin')
        if not getattr(getattr(module, "data", None), "is_digits", False):
            raise TaskError(f'model "{model_name}" is over random vertices, which have no labels: leave out vertices=')

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """What the module says of its own learning, and its accuracy on what is scored."""
        learner: Any = module
        found: dict[str, Any] = learner.learn_vertices(vertex_split(self.production), self.seed)
        module.eval()
        with torch.inference_mode():
            return {**found, "test_accuracy": self.score(Run(module)).value}

    def data_digest(self) -> str:
        """Hash of pixels and labels."""
        return data.digits()[2]

    def recipe(self) -> dict[str, Any]:
        """How many vertices are labelled, and whether those that are scored are hidden; the rest is the module's."""
        return {"labelled": LABELLED, "validated": VALIDATED, "hidden": HIDDEN if self.production else 0}

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Vertices that are scored, and their labels."""
        split = vertex_split(self.production)
        for index in (split.hidden if self.production else split.unlabelled).split(batch_size):
            yield index, data.labels(index)

    def score(self, run: Run) -> Score:
        """Top-1 of the vertices that are scored, all asked for at once: some networks answer for all or none."""
        return accuracy(run, self.batches(len(data.digits()[1])))

    def describe(self) -> dict[str, Any]:
        """Name, split, number of vertices, hash, what is labelled."""
        split = vertex_split(self.production)
        return {
            "name": self.name, "n": len(split.hidden if self.production else split.unlabelled),
            "split": f"{LABELLED} of each class labelled, {VALIDATED} choose the epoch, the same for every seed",
            "classes": data.CLASSES, "digest": self.data_digest(), "preprocessing": self.recipe(),
        }  # fmt: skip
