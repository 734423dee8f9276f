"""OneRec (OneRec Team 2025, arXiv 2506.13695): a recommender that writes the codes of an item.

An encoder reads one user: the user's own embedding, the newest items, the items that were liked, and queries that
have attended to a lifelong history. A decoder with a mixture of experts writes three codes of an item (residual
k-means, 8192 a level), each by a head of its own, with beams.

Reconstruction: the sizes, the gated networks, that an item is one embedding, and the order of norms were not read; all
sizes are settings. Weights are random: what the row is about, the share of the machine's peak that a request uses, is a
matter of shapes. Beams are rows of one decoder over one context: its keys and values are made once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import EPS, Generator
from suites.common.decoder_shape import Experts
from suites.common.experts import Gated, MixtureOfExperts
from suites.common.initial import draw
from suites.decode.onerec_counts import LEVELS, Sizes, macs_item


def onerec(
    *,
    width: PositiveInt = 192,
    heads: PositiveInt = 6,
    encoder_layers: PositiveInt = 3,
    decoder_layers: PositiveInt = 3,
    hidden: PositiveInt = 512,
    experts: PositiveInt = 24,
    chosen: PositiveInt = 2,
    expert_width: PositiveInt = 128,
    short: PositiveInt = 20,
    positive: PositiveInt = 256,
    lifelong: PositiveInt = 512,
    queries: PositiveInt = 128,
    query_layers: PositiveInt = 2,
    codes: PositiveInt = 8192,
    item: PositiveInt = 64,
    users: PositiveInt = 1000,
    items: PositiveInt = 10_000,
    beams: PositiveInt = 1,
) -> OneRec:
    """The recommender in evaluation mode with random weights.

    Args:
        width: d, a multiple of `heads`.
        heads: of every attention.
        encoder_layers: layers over the context.
        decoder_layers: layers over the codes.
        hidden: F, width of the gated networks of queries and encoder.
        experts: E of every decoder layer.
        chosen: k of them for each row.
        expert_width: f.
        short: newest items.
        positive: items that were liked.
        lifelong: items of the long history.
        queries: positions that stand for it.
        query_layers: layers in which they attend to it.
        codes: V of each of the three levels.
        item: numbers of a user's or an item's embedding.
        users: rows of the table of users.
        items: rows of the table of items.
        beams: K; 1 writes greedily.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if width % heads:
        raise ValueError(f"width={width} is not a multiple of heads={heads}")
    if chosen > experts:
        raise ValueError(f"chosen={chosen} experts are more than there are (experts={experts})")
    sizes = Sizes(
        width, heads, encoder_layers, decoder_layers, hidden, experts, chosen, expert_width, short, positive, lifelong,
        queries, query_layers, codes, item, users, items,
    )  # fmt: skip
    return (OneRec(sizes) if beams == 1 else SearchingOneRec(sizes, beams)).eval()


class Attend(nn.Module):
    """Attention without a mask, of features over features or over what `keys_of` made beforehand."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        """Features [..., tokens, width] as heads [..., heads, tokens, size]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def keys_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [batch, heads, tokens, size] of features [batch, tokens, width]."""
        return self.split(self.k(x)), self.split(self.v(x))

    def over(self, x: Tensor, keys: tuple[Tensor, Tensor]) -> Tensor:
        """Features [batch, tokens, width] after attending to keys and values [batch, heads, keys, size]."""
        attended = F.scaled_dot_product_attention(self.split(self.q(x)), *keys)
        return self.out(attended.transpose(-3, -2).flatten(-2))


class Reader(nn.Module):
    """One layer of queries or of the encoder: attention, then a gated network, each beside a residual."""

    def __init__(self, s: Sizes):
        super().__init__()
        self.norm1, self.norm2 = (nn.RMSNorm(s.width, eps=EPS) for _ in range(2))
        self.attention = Attend(s.width, s.heads)
        self.network = Gated(s.width, s.hidden)

    def forward(self, x: Tensor, of: Tensor | None = None) -> Tensor:
        """Features [batch, tokens, width] after attending to those of `of`, else to themselves."""
        seen = self.norm1(x)
        x = x + self.attention.over(seen, self.attention.keys_of(seen if of is None else of))
        return x + self.network(self.norm2(x))


class Writer(nn.Module):
    """One decoder layer: over a row's own ids, over the context, and through a mixture of experts."""

    def __init__(self, s: Sizes):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.RMSNorm(s.width, eps=EPS) for _ in range(3))
        self.own, self.context = Attend(s.width, s.heads), Attend(s.width, s.heads)
        self.network = MixtureOfExperts(s.width, Experts(s.experts, s.chosen, s.expert_width, shared=0))

    def forward(self, x: Tensor, own: Own, context: tuple[Tensor, Tensor]) -> tuple[Tensor, Own]:
        """Features [batch, rows, width], and the rows' own keys and values with the newest."""
        seen = self.norm1(x).unsqueeze(2)
        new = self.own.keys_of(seen)
        own = Own(torch.cat([own.k, new[0]], dim=3), torch.cat([own.v, new[1]], dim=3))
        attended = self.own.over(seen.flatten(0, 1), (own.k.flatten(0, 1), own.v.flatten(0, 1)))
        x = x + attended.unflatten(0, x.shape[:2])[:, :, 0]
        x = x + self.context.over(self.norm2(x), context)
        return x + self.network(self.norm3(x)), own


@dataclass(frozen=True)
class Own:
    """Keys and values of what each row wrote itself, [batch, rows, heads, ids, size]."""

    k: Tensor
    v: Tensor

    def of(self, parents: Tensor) -> Own:
        """Those of rows `parents` [batch, rows]."""
        place = torch.arange(len(parents), device=parents.device)[:, None]
        return Own(self.k[place, parents], self.v[place, parents])


@dataclass(frozen=True)
class Written:
    """What is kept between codes: the context's keys and values, and each row's own, layer by layer."""

    context: tuple[tuple[Tensor, Tensor], ...]
    own: tuple[Own, ...]
    level: int

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        held = [*(t for pair in self.context for t in pair), *(t for own in self.own for t in (own.k, own.v))]
        return sum(t.numel() * t.element_size() for t in held)

    def of(self, parents: Tensor) -> Written:
        """The same context, and what rows `parents` [batch, rows] wrote."""
        return Written(self.context, tuple(own.of(parents) for own in self.own), self.level)


class OneRec(Generator):
    """Ids of a user and of histories in, codes of an item out; greedily."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        s = self.sizes = sizes
        self.vocabulary = s.codes
        self.users, self.items = nn.Embedding(s.users, s.item), nn.Embedding(s.items, s.item)
        self.paths = nn.ModuleList(
            nn.Sequential(nn.Linear(s.item, s.width, bias=False), nn.SiLU(), nn.Linear(s.width, s.width, bias=False))
            for _ in range(4)
        )
        self.queries = nn.Parameter(torch.empty(s.queries, s.width))
        self.places = nn.Parameter(torch.empty(s.context, s.width))
        self.asking = nn.ModuleList(Reader(s) for _ in range(s.query_layers))
        self.encoder = nn.ModuleList(Reader(s) for _ in range(s.encoder_layers))
        self.encoded = nn.RMSNorm(s.width, eps=EPS)
        self.codes = nn.Embedding(1 + (LEVELS - 1) * s.codes, s.width)  # the first row begins every item
        self.decoder = nn.ModuleList(Writer(s) for _ in range(s.decoder_layers))
        self.norm = nn.RMSNorm(s.width, eps=EPS)
        self.heads = nn.ModuleList(nn.Linear(s.width, s.codes, bias=False) for _ in range(LEVELS))
        for weight in (self.queries, self.places, *(m.weight for m in self.modules() if isinstance(m, nn.Embedding))):
            draw(weight)

    def example_ids(self, batch: int, context: int, seed: int) -> Tensor:
        """Random ids of users and items, [batch, 1 + short + positive + lifelong].

        Raises:
            ValueError: another number of ids.
        """
        if context != self.sizes.ids:
            raise ValueError(
                f"a request has {self.sizes.ids} ids (1 + short + positive + lifelong), not {context}: "
                f"set shapes.context={self.sizes.ids}"
            )
        random = torch.Generator().manual_seed(seed)
        user = torch.randint(self.sizes.users, (batch, 1), generator=random)
        return torch.cat([user, torch.randint(self.sizes.items, (batch, context - 1), generator=random)], dim=1)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random ids, [batch, 1 + short + positive + lifelong]."""
        return (self.example_ids(batch, self.sizes.ids, 0).to(self.queries.device),)

    def read(self, ids: Tensor) -> Tensor:
        """The encoded context, [batch, context, width], of ids [batch, 1 + short + positive + lifelong]."""
        s = self.sizes
        user, rest = self.users(ids[:, :1]), self.items(ids[:, 1:])
        histories = rest.split([s.short, s.positive, s.lifelong], dim=1)
        user, short, positive, lifelong = (
            path(x) for path, x in zip(self.paths, (user, *histories), strict=True)
        )  # fmt: skip
        asked = self.queries.expand(len(ids), -1, -1)
        for layer in self.asking:
            asked = layer(asked, lifelong)
        x = torch.cat([user, short, positive, asked], dim=1) + self.places
        for layer in self.encoder:
            x = layer(x)
        return self.encoded(x)

    def prefill(self, ids: Tensor) -> tuple[Tensor, Written]:
        """Logits of the first code [batch, codes] of what one user did, and what is kept."""
        encoded = self.read(ids)
        layers: Any = self.decoder
        context = tuple(layer.context.keys_of(encoded) for layer in layers)
        nothing = encoded.new_empty(len(ids), 1, self.sizes.heads, 0, self.sizes.width // self.sizes.heads)
        empty = tuple(Own(nothing, nothing) for _ in self.decoder)
        logits, kept = self.row(torch.zeros_like(ids[:, :1]), Written(context, empty, 0))
        return logits[:, 0], kept

    def row(self, numbers: Tensor, kept: Written) -> tuple[Tensor, Written]:
        """Logits [batch, rows, codes] after rows of the table of codes [batch, rows], and what is kept."""
        x, own = self.codes(numbers), []
        for layer, before, context in zip(self.decoder, kept.own, kept.context, strict=True):
            x, after = layer(x, before, context)
            own.append(after)
        return self.heads[kept.level](self.norm(x)), Written(kept.context, tuple(own), kept.level + 1)

    def next_code(self, codes: Tensor, kept: Written) -> tuple[Tensor, Written]:
        """Logits [batch, rows, codes] after one more code [batch, rows] of each row.

        Raises:
            ValueError: the item is named already.
        """
        if kept.level == LEVELS:
            raise ValueError(f"an item has {LEVELS} codes: set shapes.new_tokens to at most {LEVELS}")
        return self.row(1 + (kept.level - 1) * self.sizes.codes + codes, kept)

    def decode(self, ids: Tensor, cache: Written) -> tuple[Tensor, Written]:
        """Logits of the next code [batch, codes] after one more [batch, 1], and what is kept."""
        logits, cache = self.next_code(ids, cache)
        return logits[:, 0], cache

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the first code, [batch, codes]."""
        return self.prefill(ids)[0]

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own."""
        own = 8.0 * self.queries.element_size()
        return {"nominal": own, "stored": own}


class SearchingOneRec(OneRec):
    """The same with beams: the K best items by the sum of their codes' logarithmic chances."""

    #: A search multiplies the same whatever it finds, so it is counted without values as well.
    writes_alike = True

    def __init__(self, sizes: Sizes, beams: int):
        super().__init__(sizes)
        self.beams = beams
        self.last: Tensor | None = None

    def write(self, ids: Tensor, new: int) -> Tensor:
        """The codes of the best item, [batch, new]; the whole list, best first, is `last` [batch, beams, new]."""
        logits, kept = self.prefill(ids)
        best = self._best(logits.log_softmax(-1))
        paths, kept = best.indices[..., None], kept.of(torch.zeros_like(best.indices))
        for _ in range(new - 1):
            logits, kept = self.next_code(paths[..., -1], kept)
            best = self._best((best.values[..., None] + logits.log_softmax(-1)).flatten(1))
            parents, code = best.indices // self.vocabulary, best.indices % self.vocabulary
            before = paths.gather(1, parents[..., None].expand(-1, -1, paths.shape[-1]))
            paths, kept = torch.cat([before, code[..., None]], dim=-1), kept.of(parents)
        self.last = paths
        return paths[:, 0]

    def _best(self, chances: Tensor) -> Any:
        """Values and indices of the K best of [batch, all], of fewer where there are fewer."""
        return chances.topk(min(self.beams, chances.shape[1]), dim=-1)

    def written(self) -> dict[str, float | None]:
        """Codes that were written for the last requests, and how much of their products the final lists need."""
        if self.last is None:
            return {"tokens_written": None, "needed_share": None}
        lists = self.last.tolist()
        share = None
        if self.last.shape[-1] == LEVELS:
            needed = sum(macs_item(self.sizes, kept=begun(one)) for one in lists)
            share = 100.0 * needed / (len(lists) * macs_item(self.sizes, self.beams))
        return {"tokens_written": float(self.last.numel()), "needed_share": share}


def begun(items: list[list[int]]) -> tuple[int, int]:
    """Different first codes, and different pairs of first codes, of the items of a list."""
    return len({one[0] for one in items}), len({tuple(one[:2]) for one in items})


def closed_form(model: Mapping[str, Any], method: Mapping[str, Any]) -> int:
    """Products of one user's request of three codes, by the settings of `onerec`; no method goes with it."""
    settings = {**(onerec.__kwdefaults__ or {}), **model}
    return macs_item(Sizes(**{field.name: settings[field.name] for field in fields(Sizes)}), settings["beams"])
