"""LightHGNN and LightHGNN+ (Feng et al. 2024, arXiv 2402.04296): a perceptron taught by a hypergraph network.

The student asks for no neighbours: Linear C -> 128, ReLU, BatchNorm, dropout 0.5, Linear 128 -> K. It learns from the
teacher's soft labels of all vertices: lambda x cross-entropy of the labelled + (1 - lambda) x KL(teacher || student),
temperature 1. LightHGNN+ adds a term over hyperedges: each epoch they are drawn by their reliability, and the means of
the student's predictions over the members of a drawn one are pulled towards the means of the teacher's. Nothing of it
remains at inference.

Deviation: the official code hands probabilities to a divergence that expects logarithms; this is the divergence itself.
"""

from __future__ import annotations

import copy
import time
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt, Rate
from suites.distill.hgnn import Hgnn, soft_labels
from suites.distill.hypergraph import Sparse
from suites.distill.vertices import CLASSES, Vertices, fit_best, seeded, share_right, soft_divergence

Teacher = Literal["hgnn", "hgnn+"]
NORMS: dict[str, Literal["symmetric", "mean"]] = {"hgnn": "symmetric", "hgnn+": "mean"}


def lighthgnn(
    *,
    vertices: PositiveInt | None = None,
    degree: PositiveInt = 8,
    members: PositiveInt = 10,
    features: PositiveInt = 64,
    hidden: PositiveInt = 128,
    teacher: Literal["hgnn", "hgnn+"] = "hgnn",
    labels: Rate = 0.0,
) -> Student:
    """The student without the term over hyperedges, in evaluation mode with random weights.

    Args:
        vertices: N of a random hypergraph; None for the digits.
        degree: mean number of hyperedges of a vertex; of no account for digits.
        members: of a hyperedge.
        features: C of a vertex.
        hidden: width of the hidden layer.
        teacher: whose soft labels it learns from.
        labels: lambda, the share of the true labels in the loss.

    Raises:
        ValueError: other features than the digits have.
    """
    return Student(Vertices(vertices, degree, members, features), hidden, teacher, labels, topology=False).eval()


def lighthgnn_plus(
    *,
    vertices: PositiveInt | None = None,
    degree: PositiveInt = 8,
    members: PositiveInt = 10,
    features: PositiveInt = 64,
    hidden: PositiveInt = 128,
    teacher: Literal["hgnn", "hgnn+"] = "hgnn",
    labels: Rate = 0.0,
) -> Student:
    """The student with the term over hyperedges; the same network as lighthgnn.

    Args:
        vertices: N of a random hypergraph; None for the digits.
        degree: mean number of hyperedges of a vertex; of no account for digits.
        members: of a hyperedge.
        features: C of a vertex.
        hidden: width of the hidden layer.
        teacher: whose soft labels it learns from.
        labels: lambda, the share of the true labels in the loss.

    Raises:
        ValueError: other features than the digits have.
    """
    return Student(Vertices(vertices, degree, members, features), hidden, teacher, labels, topology=True).eval()


def vertex_mlp(
    *,
    vertices: PositiveInt | None = None,
    degree: PositiveInt = 8,
    members: PositiveInt = 10,
    features: PositiveInt = 64,
    hidden: PositiveInt = 128,
) -> Student:
    """The same perceptron without a teacher: it learns the labelled vertices alone.

    Args:
        vertices: N of a random hypergraph; None for the digits.
        degree: mean number of hyperedges of a vertex; of no account for digits.
        members: of a hyperedge.
        features: C of a vertex.
        hidden: width of the hidden layer.

    Raises:
        ValueError: other features than the digits have.
    """
    return Student(Vertices(vertices, degree, members, features), hidden, None, 1.0, topology=False).eval()


class Student(nn.Module):
    """Numbers of vertices in, their logits [batch, classes] out, each from its own features."""

    def __init__(self, data: Vertices, hidden: int, teacher: Teacher | None, labels: float, *, topology: bool):
        super().__init__()
        self.data, self.teacher, self.labels, self.topology = data, teacher, labels, topology
        self.classes = CLASSES
        self.layers = nn.Sequential(
            nn.Linear(data.features.shape[1], hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Dropout(0.5),
            nn.Linear(hidden, CLASSES),
        )  # fmt: skip

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Numbers of the first vertices, [batch]."""
        return self.data.example_inputs(batch)

    def forward(self, index: Tensor) -> Tensor:
        """Logits [batch, classes] of the vertices asked for, [batch]."""
        return self.layers(self.data.features[index])

    def example_targets(self, batch: int, seed: int) -> Tensor | None:
        """Soft labels of a batch for a step, [batch, classes]; None without a teacher."""
        if self.teacher is None:
            return None
        return torch.randn(batch, CLASSES, generator=torch.Generator().manual_seed(seed)).softmax(1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The divergence from soft labels, or the cross-entropy of labels."""
        return soft_divergence(logits, targets) if self.teacher is not None else F.cross_entropy(logits, targets)

    def learn_vertices(self, split: Any, seed: int) -> dict[str, Any]:
        """Train the teacher, where there is one, and then this from its soft labels, with the same optimiser.

        Args:
            split: a `suites.common.tasks.digit_vertices.VertexSplit`.
            seed: of weights, dropout and drawn hyperedges.
        """
        told, seen = dict[str, Any](), torch.ones(self.data.count, dtype=torch.bool)
        seen[split.hidden] = False
        soft, term, start = torch.empty(0), None, time.monotonic()
        if self.teacher is not None:
            teacher = Hgnn(copy.deepcopy(self.data), 32, NORMS[self.teacher], "incidence")
            told = {"teacher_validation_accuracy": teacher.learn_vertices(split, seed)["validation_accuracy"]}
            soft = soft_labels(teacher, split)
            term = Topology(teacher, split, seed) if self.topology else None
            told["teacher_seconds"] = round(time.monotonic() - start, 2)
        known = seen.nonzero()[:, 0]  # a hidden vertex has no part in the norm's mean and deviation either

        def loss() -> Tensor:
            said = self(known)
            logits = said.new_zeros(self.data.count, CLASSES).index_copy(0, known, said)
            hard = F.cross_entropy(logits[split.labelled], split.wanted(split.labelled))
            if self.teacher is None:
                return hard
            taught = soft_divergence(logits[seen], soft[seen])
            total = self.labels * hard + (1 - self.labels) * taught
            return total if term is None else total + term(logits)

        with seeded(seed):
            self._begin()
            best = fit_best(
                self, loss, lambda: share_right(self(split.validated), split.wanted(split.validated))
            )  # fmt: skip
        return {**told, "role": "student" if self.teacher else "control", "validation_accuracy": best}

    def _begin(self) -> None:
        for layer in self.layers:
            if isinstance(layer, nn.Linear | nn.BatchNorm1d):
                layer.reset_parameters()


class Topology:
    """LightHGNN+'s term: divergence of hyperedge means of predictions, over hyperedges drawn by their reliability."""

    def __init__(self, teacher: Hgnn, split: Any, seed: int):
        from scipy.sparse import csr_array

        hidden = split.hidden.numpy()
        graph = teacher.data.graph.without(hidden) if len(hidden) else teacher.data.graph
        seen = ~np.isin(graph.vertex, hidden)  # a hidden vertex is alone in a hyperedge, and nothing is said of it
        names, hyperedge = np.unique(graph.hyperedge[seen], return_inverse=True)
        shape, size = (len(names), graph.vertices), np.bincount(hyperedge)
        self.mean = Sparse(csr_array((1 / size[hyperedge], (hyperedge, graph.vertex[seen])), shape=shape))
        smoothing, own = teacher.smoothing_of(split), teacher.data.features
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            said = teacher.every(smoothing).softmax(1)
            noise = torch.randn(own.shape, generator=generator)
            teacher.data.features = own * (1 + noise)
            shaken = teacher.every(smoothing).softmax(1)
            teacher.data.features = own
        self.reliability = reliability(
            self.mean(entropy(said)[:, None])[:, 0], self.mean(entropy(shaken)[:, None])[:, 0]
        )
        self.wanted, self.generator = self.mean(said), generator

    def __call__(self, logits: Tensor) -> Tensor:
        """The term of one epoch; other hyperedges are drawn each time."""
        drawn = torch.bernoulli(self.reliability, generator=self.generator).bool()
        means = self.mean(logits.softmax(1))[drawn].clamp_min(1e-12)
        return (
            F.kl_div(means.log(), self.wanted[drawn], reduction="batchmean") if bool(drawn.any()) else logits.sum() * 0
        )


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats of each row."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(1)


def reliability(plain: Tensor, shaken: Tensor) -> Tensor:
    """1 - |change of a hyperedge's entropy under noise| / the largest such change, [hyperedges] in 0..1.

    Args:
        plain: mean entropy of the teacher's predictions over the members of each hyperedge.
        shaken: the same with every feature multiplied by 1 + N(0, 1).
    """
    change = (plain - shaken).abs()
    return 1 - change / change.max().clamp_min(1e-12)
