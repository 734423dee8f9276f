"""Hypergraph networks, the teachers: HGNN (Feng et al. 2019, arXiv 1809.09401) and HGNN+ (Gao et al. 2022).

Two layers, hidden 32: X <- L (X Theta + b), ReLU and dropout 0.5 after the first. A forward smooths the features of all
vertices and gives the rows that were asked for. The method `two_hops` computes the same rows from what they depend on
alone: the vertices at most two hyperedges away.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.distill.hypergraph import Form, Norm, Smoothing
from suites.distill.vertices import CLASSES, Vertices, fit_best, seeded, share_right


def hgnn(
    *,
    vertices: PositiveInt | None = None,
    degree: PositiveInt = 8,
    members: PositiveInt = 10,
    features: PositiveInt = 64,
    hidden: PositiveInt = 32,
    form: Literal["incidence", "materialised"] = "incidence",
) -> Hgnn:
    """HGNN over the digits or a random hypergraph, in evaluation mode with random weights.

    Args:
        vertices: N of a random hypergraph; None for the digits, each with its nearest as a hyperedge.
        degree: mean number of hyperedges of a vertex; of no account for digits.
        members: of a hyperedge.
        features: C of a vertex.
        hidden: width of the hidden layer.
        form: of the smoothing: two products by the incidence, or one by the materialised L.

    Raises:
        ValueError: other features than the digits have.
    """
    return Hgnn(Vertices(vertices, degree, members, features), hidden, "symmetric", form).eval()


def hgnn_plus(
    *,
    vertices: PositiveInt | None = None,
    degree: PositiveInt = 8,
    members: PositiveInt = 10,
    features: PositiveInt = 64,
    hidden: PositiveInt = 32,
    form: Literal["incidence", "materialised"] = "incidence",
) -> Hgnn:
    """HGNN+: the same with means from vertices to hyperedges and back.

    Args:
        vertices: N of a random hypergraph; None for the digits, each with its nearest as a hyperedge.
        degree: mean number of hyperedges of a vertex; of no account for digits.
        members: of a hyperedge.
        features: C of a vertex.
        hidden: width of the hidden layer.
        form: of the smoothing: two products by the incidence, or one by the materialised L.

    Raises:
        ValueError: other features than the digits have.
    """
    return Hgnn(Vertices(vertices, degree, members, features), hidden, "mean", form).eval()


class Hgnn(nn.Module):
    """Numbers of vertices in, their logits [batch, classes] out."""

    def __init__(self, data: Vertices, hidden: int, norm: Norm, form: Form):
        super().__init__()
        self.data, self.norm, self.form, self.classes = data, norm, form, CLASSES
        self.smoothing = Smoothing(data.graph, norm, form)
        self.theta1 = nn.Linear(data.features.shape[1], hidden)
        self.theta2 = nn.Linear(hidden, CLASSES)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Numbers of the first vertices, [batch]."""
        return self.data.example_inputs(batch)

    def every(self, smoothing: nn.Module | None = None) -> Tensor:
        """Logits of all vertices, [vertices, classes], over another smoothing where one is given."""
        smooth = self.smoothing if smoothing is None else smoothing
        x = F.dropout(F.relu(smooth(self.theta1(self.data.features))), 0.5, self.training)
        return smooth(self.theta2(x))

    def forward(self, index: Tensor) -> Tensor:
        """Logits [batch, classes] of the vertices asked for, [batch]."""
        return self.every()[index]

    def learn_vertices(self, split: Any, seed: int) -> dict[str, Any]:
        """Learn the labelled vertices for 200 epochs and keep the best on the validated ones.

        Vertices that are hidden are in no hyperedge while it learns.

        Args:
            split: a `suites.common.tasks.digit_vertices.VertexSplit`.
            seed: of weights and dropout.
        """
        smoothing = self.smoothing_of(split)
        with seeded(seed):
            self.theta1.reset_parameters()
            self.theta2.reset_parameters()
            best = fit_best(
                self,
                lambda: F.cross_entropy(self.every(smoothing)[split.labelled], split.wanted(split.labelled)),
                lambda: share_right(self.every(smoothing)[split.validated], split.wanted(split.validated)),
            )
        return {"role": "teacher", "validation_accuracy": best}

    def smoothing_of(self, split: Any) -> nn.Module:
        """The smoothing that is there while it learns: without the hidden vertices."""
        if not len(split.hidden):
            return self.smoothing
        return Smoothing(self.data.graph.without(split.hidden.numpy()), self.norm, self.form).to(self.data.features)


class TwoHops(nn.Module):
    """The same rows of the same network from the features that they depend on."""

    def __init__(self, network: Hgnn):
        super().__init__()
        self.network = network
        self.classes = network.classes

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Numbers of the first vertices, [batch]."""
        return self.network.example_inputs(batch)

    def forward(self, index: Tensor) -> Tensor:
        """Logits [batch, classes] of the vertices asked for, [batch].

        Raises:
            NotImplementedError: on the meta device, where it is not known who is near whom.
        """
        if index.is_meta:
            raise NotImplementedError("two_hops looks up who is near whom, and tensors without values do not say")
        net = self.network
        last, near = net.smoothing.around(index)
        first, further = net.smoothing.around(near)
        x = F.dropout(F.relu(first(net.theta1(net.data.features[further]))), 0.5, self.training)
        return last(net.theta2(x))


def two_hops(model: nn.Module) -> TwoHops:
    """The network answering from the two-hop neighbourhood of the vertices asked for, instead of from all.

    Args:
        model: hgnn or hgnn+.

    Raises:
        ValueError: another network.
    """
    if not isinstance(model, Hgnn):
        raise ValueError(f"two_hops cuts a hypergraph network down, hgnn or hgnn+, and this is {type(model).__name__}")
    return TwoHops(model).eval()


@torch.no_grad()
def soft_labels(net: Hgnn, split: Any) -> Tensor:
    """Probabilities of all vertices, [vertices, classes], over the hypergraph without hidden ones."""
    return net.every(net.smoothing_of(split)).softmax(1)
