"""The kind of ranking model that OneRec replaced: candidates are scored one by one against what a user did.

Reconstruction in the manner of a deep interest network (Zhou et al. 2018, arXiv 1706.06978): each candidate attends to
the histories by its embedding; user, candidate, interest and their product go through a small perceptron. The
embeddings are the memory, the perceptron is the arithmetic, and there is little of it: its utilisation is what OneRec's
is compared with. It reads the same ids as `onerec`; the lifelong ones beyond its window are left unread.

Products of one user: 2 c S e of the attention and c (4 e h_1 + h_1 h_2 + h_2 h_3 + h_3) of the perceptron, with c
candidates, S items of history and e numbers an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import Generator
from suites.common.initial import draw

#: Widths of the perceptron's layers.
LAYERS = (256, 128, 64)


def ranking_model(
    *,
    candidates: PositiveInt = 512,
    history: PositiveInt = 276,
    item: PositiveInt = 64,
    users: PositiveInt = 1000,
    items: PositiveInt = 10_000,
) -> RankingModel:
    """The ranker in evaluation mode with random weights.

    Args:
        candidates: items that an earlier stage hands over.
        history: items behind the user's id that a candidate attends to.
        item: numbers of an embedding.
        users: rows of the table of users.
        items: rows of the table of items, at least as many as candidates.

    Raises:
        ValueError: more candidates than items.
    """
    if candidates > items:
        raise ValueError(f"candidates={candidates} are more than there are items (items={items})")
    return RankingModel(candidates, history, item, users, items).eval()


@dataclass(frozen=True)
class Ranked:
    """The scores [batch, candidates]; those that were recommended are minus infinity."""

    scores: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of the scores."""
        return self.scores.numel() * self.scores.element_size()


class RankingModel(Generator):
    """Ids of a user and of a history in, candidates out, best first."""

    chosen: Tensor

    def __init__(self, candidates: int, history: int, item: int, users: int, items: int):
        super().__init__()
        self.vocabulary, self.history = candidates, history
        self.users, self.items = nn.Embedding(users, item), nn.Embedding(items, item)
        self.register_buffer("chosen", torch.arange(candidates) * (items // candidates))
        widths = (4 * item, *LAYERS, 1)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.ReLU()]
        self.tower = nn.Sequential(*layers[:-1])
        for table in (self.users, self.items):
            draw(table.weight)

    def example_ids(self, batch: int, context: int, seed: int) -> Tensor:
        """Random ids of users and items, [batch, context].

        Raises:
            ValueError: fewer ids than a user and its history.
        """
        if context <= self.history:
            raise ValueError(
                f"a request has a user and {self.history} items, {context} ids are too few: "
                f"set shapes.context to {self.history + 1} or more"
            )
        random = torch.Generator().manual_seed(seed)
        user = torch.randint(self.users.num_embeddings, (batch, 1), generator=random)
        items = torch.randint(self.items.num_embeddings, (batch, context - 1), generator=random)
        return torch.cat([user, items], dim=1)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random ids, [batch, 1 + history]."""
        return (self.example_ids(batch, 1 + self.history, 0).to(self.chosen.device),)

    def forward(self, ids: Tensor) -> Tensor:
        """The score of every candidate, [batch, candidates]."""
        user, seen = self.users(ids[:, :1]), self.items(ids[:, 1 : 1 + self.history])
        offered = self.items(self.chosen).expand(len(ids), -1, -1)
        fit = offered @ seen.transpose(1, 2) / offered.shape[-1] ** 0.5
        interest = fit.softmax(dim=-1) @ seen
        features = torch.cat([user.expand_as(offered), offered, interest, offered * interest], dim=-1)
        return self.tower(features)[..., 0]

    def prefill(self, ids: Tensor) -> tuple[Tensor, Ranked]:
        """The score of every candidate [batch, candidates], which is all that is kept."""
        scores = self(ids)
        return scores, Ranked(scores)

    def decode(self, ids: Tensor, cache: Ranked) -> tuple[Tensor, Ranked]:
        """The scores after candidates `ids` [batch, 1] were recommended."""
        left = cache.scores.scatter(1, ids, -torch.inf)
        return left, Ranked(left)

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own."""
        own = 8.0 * self.users.weight.element_size()
        return {"nominal": own, "stored": own}


def macs(candidates: int = 512, history: int = 276, item: int = 64) -> int:
    """Products of one user's scores."""
    widths = (4 * item, *LAYERS, 1)
    tower = sum(narrow * wide for narrow, wide in pairwise(widths))
    return candidates * (2 * history * item + tower)


def closed_form(model: Mapping[str, Any], method: Mapping[str, Any]) -> int:
    """Products of one user's request, by the settings of `ranking_model`; no method goes with it."""
    settings = {**(ranking_model.__kwdefaults__ or {}), **model}
    return macs(settings["candidates"], settings["history"], settings["item"])
