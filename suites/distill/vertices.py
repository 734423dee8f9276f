"""What the networks over vertices share: features of a hypergraph's vertices, asked for by number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.distill.hypergraph import Hypergraph, digits_features, digits_hypergraph, random_hypergraph

CLASSES = 10
EPOCHS, RATE, DECAY = 200, 0.01, 5e-4


class Vertices(nn.Module):
    """Features of all vertices, [vertices, features], and the hypergraph that they are in.

    The digits where no number of vertices is given; else random features in a random hypergraph, the same for every
    seed of a case, so that networks over it are compared on one thing.
    """

    features: Tensor

    def __init__(self, vertices: int | None, degree: int, members: int, features: int):
        super().__init__()
        if vertices is None:
            if features != 64:
                raise ValueError(f"features={features}: digits have 64 pixels; set vertices=... for random features")
            values, self.graph = digits_features()[0], digits_hypergraph(members - 1)
        else:
            self.graph = random_hypergraph(vertices, degree, members)
            values = np.random.default_rng(1).standard_normal((vertices, features), dtype=np.float32)
        self.is_digits, self.classes, self.count = vertices is None, CLASSES, self.graph.vertices
        self.settings = [self.count, degree, members, features]
        self.register_buffer("features", torch.tensor(values), persistent=False)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Numbers of the first vertices, [batch].

        Raises:
            ValueError: more than there are.
        """
        if batch > self.count:
            raise ValueError(f"batch={batch}: there are {self.count} vertices to ask for")
        return (torch.arange(batch, device=self.features.device),)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator from a seed on, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fit_best(module: Any, loss: Any, judge: Any) -> float:
    """The best validation score; the module has the weights of that epoch and is in evaluation mode.

    Args:
        module: trained in place by Adam (rate 0.01, weight decay 5e-4), one step over all vertices an epoch.
        loss: () -> what is made small.
        judge: () -> validation score of the module in evaluation mode; the first best epoch counts.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, weight_decay=DECAY)
    best, kept = -1.0, dict[str, Tensor]()
    for _ in range(EPOCHS):
        module.train()
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        module.eval()
        with torch.no_grad():
            score = judge()
        if score > best:
            best, kept = score, {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(kept)
    return best


def share_right(logits: Tensor, wanted: Tensor) -> float:
    """Percent of rows whose largest logit is the wanted one."""
    return 100 * float((logits.argmax(1) == wanted).float().mean())


def soft_divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean KL(wanted || softmax(logits)) over rows, `wanted` being probabilities."""
    return F.kl_div(logits.log_softmax(1), wanted, reduction="batchmean")


__all__ = ["CLASSES", "Hypergraph", "Vertices", "fit_best", "seeded", "share_right", "soft_divergence"]
