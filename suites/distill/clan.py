"""CLAN (arXiv 2509.06550): benign traffic is one cluster, so that one centre says how strange a flow is.

A perceptron 72 -> 1024 x 4 -> 64 with ReLU and a residual around every layer (a linear one where the width changes).
Augmented flows are *negatives*: with d = (1 - cos) / 2 the loss is 0.5 x mean of d over pairs of benign flows (those
that are apart) + 0.5 x mean of the positive max(0, m - d(benign, augmented)), m = 0.5; an augmentation replaces each
feature with probability 0.1 by a uniform draw within 1.7 standard deviations. A flow's score is its cosine to the mean
benign embedding: 64 products, where the nearest of N benign embeddings takes 64 N and as many numbers.

`contrastive`, the other side, is a reconstruction: the same network, augmentations are positives (SimCLR's loss, arXiv
2002.05709), and the nearest benign embedding says how strange a flow is.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.training import Pace, fit

Scoring = Literal["centroid", "neighbours"]
Teaching = Literal["clan", "contrastive"]
MARGIN, SHARE, LIMIT, TEMPERATURE = 0.5, 0.1, 1.7, 0.5


class Encoder(nn.Module):
    """Features to an embedding, and beside it logits of a linear probe where there is one."""

    def __init__(self, features: int, width: int, depth: int, embedding: int, probe: int):
        super().__init__()
        sizes = [features, *[width] * depth]
        self.layers = nn.ModuleList(nn.Linear(inner, width) for inner in sizes[:-1])
        self.widening = nn.Linear(features, width) if features != width else nn.Identity()
        self.out = nn.Linear(width, embedding)
        self.probe = nn.Linear(width, probe) if probe else None

    def hidden(self, x: Tensor) -> Tensor:
        """The last hidden layer, [batch, width]."""
        for number, layer in enumerate(self.layers):
            x = F.relu(layer(x)) + (x if number else self.widening(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings, [batch, embedding]."""
        return self.out(self.hidden(x))


class Detector(nn.Module):
    """Features in, how strange each flow is out: 1 less the cosine to the centre or to the nearest of a bank.

    Attributes:
        known: what flows are compared with, unit vectors [N, embedding]; one centre of them.
    """

    known: Tensor

    def __init__(self, encoder: Encoder, features: int, embedding: int, scoring: Scoring, bank: int, teaching: Teaching,
                 training_steps: int):  # fmt: skip
        super().__init__()
        self.encoder, self.features, self.scoring, self.bank = encoder, features, scoring, bank
        self.teaching, self.training_steps = teaching, training_steps
        kept = torch.randn(bank, embedding)
        self.register_buffer("known", self.summary(kept))

    def summary(self, benign: Tensor) -> Tensor:
        """What is kept of benign embeddings [N, embedding]: their mean's direction, or all directions."""
        return F.normalize(benign.mean(0, keepdim=True) if self.scoring == "centroid" else benign, dim=1)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random standardised features, [batch, features]."""
        return (torch.randn(batch, self.features).to(self.known),)

    def forward(self, x: Tensor) -> Tensor:
        """How strange each flow is, [batch], 0 to 2."""
        cosines = F.normalize(self.encoder(x), dim=1) @ self.known.T
        return 1 - (cosines[:, 0] if self.scoring == "centroid" else cosines.amax(1))

    def learn_benign(self, benign: Tensor, seed: int) -> dict[str, Any]:
        """Learn from benign flows alone, and keep what flows are compared with.

        Args:
            benign: standardised features, [n, features].
            seed: of the augmentations.
        """
        steps, loss = self.training_steps, clan_loss if self.teaching == "clan" else contrastive_loss
        generator = torch.Generator().manual_seed(seed)
        pace = Pace(steps, 1e-3 if self.features < 72 else 1e-4, weight_decay=0.0)

        def both(flows: Tensor, changed: Tensor) -> Tensor:
            return loss(*self.encoder(torch.cat([flows, changed])).chunk(2))

        batches = ((benign, augmented(benign, generator)) for _ in range(steps))
        losses = fit(self.encoder, batches, both, pace)
        with torch.no_grad():
            found = self.encoder(benign)
            self.known.copy_(self.summary(found[torch.arange(self.bank) % len(found)]))
        return {"steps": steps, "benign": len(benign), "last_loss": losses[-1]}


def augmented(flows: Tensor, generator: torch.Generator) -> Tensor:
    """Flows with each feature replaced, with probability 0.1, by a uniform draw in -1.7 to 1.7."""
    drawn = LIMIT * (2 * torch.rand(flows.shape, generator=generator) - 1)
    return torch.where(torch.rand(flows.shape, generator=generator) < SHARE, drawn, flows)


def apart(one: Tensor, other: Tensor) -> Tensor:
    """(1 - cosine) / 2 of every pair, [n, m]."""
    return (1 - F.normalize(one, dim=1) @ F.normalize(other, dim=1).T) / 2


def clan_loss(benign: Tensor, changed: Tensor) -> Tensor:
    """Benign flows together, augmented ones at least a margin away; both means are over terms that are not zero."""
    pairs = apart(benign, benign)
    pairs = pairs[~torch.eye(len(pairs), dtype=torch.bool, device=pairs.device)].clamp_min(0)
    push = (MARGIN - apart(benign, changed)).clamp_min(0)
    return 0.5 * _mean_positive(pairs) + 0.5 * _mean_positive(push.flatten())


def _mean_positive(values: Tensor) -> Tensor:
    return values.sum() / (values > 0).sum().clamp_min(1)


def contrastive_loss(benign: Tensor, changed: Tensor) -> Tensor:
    """SimCLR's: of all others, a flow's augmentation is to be the most similar."""
    both = F.normalize(torch.cat([benign, changed]), dim=1)
    scores = both @ both.T / TEMPERATURE
    scores = scores.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), -torch.inf)
    return F.cross_entropy(scores, torch.arange(len(both), device=both.device).roll(len(benign)))


def clan(
    *,
    features: PositiveInt = 72,
    width: PositiveInt = 1024,
    depth: PositiveInt = 4,
    embedding: PositiveInt = 64,
    probe: Count = 0,
    scoring: Literal["centroid", "neighbours"] = "centroid",
    bank: PositiveInt = 500,
    training_steps: PositiveInt = 200,
) -> Detector:
    """CLAN's detector, in evaluation mode with random weights and a made bank.

    Args:
        features: of a flow.
        width: of the hidden layers.
        depth: of them.
        embedding: numbers of an embedding.
        probe: classes of a linear probe on the last hidden layer; 0 for none. It is no part of a forward.
        scoring: centroid, or neighbours.
        bank: N, benign embeddings that are averaged or compared with.
        training_steps: passes over all benign flows that it learns from with a task.
    """
    encoder = Encoder(features, width, depth, embedding, probe)
    return Detector(encoder, features, embedding, scoring, bank, "clan", training_steps).eval()


def contrastive(
    *,
    features: PositiveInt = 72,
    width: PositiveInt = 1024,
    depth: PositiveInt = 4,
    embedding: PositiveInt = 64,
    scoring: Literal["centroid", "neighbours"] = "neighbours",
    bank: PositiveInt = 500,
    training_steps: PositiveInt = 200,
) -> Detector:
    """The same network taught with augmentations as positives, in evaluation mode with random weights and a made bank.

    Args:
        features: of a flow.
        width: of the hidden layers.
        depth: of them.
        embedding: numbers of an embedding.
        scoring: centroid, or neighbours.
        bank: N, benign embeddings that are averaged or compared with.
        training_steps: passes over all benign flows that it learns from with a task.
    """
    encoder = Encoder(features, width, depth, embedding, 0)
    return Detector(encoder, features, embedding, scoring, bank, "contrastive", training_steps).eval()
