"""OneRec in numbers: sizes, and closed forms for its parameters and its products.

With d the width, e the numbers of an item's embedding, F and f the widths of the encoder's and of an expert's gated
network, E experts of which k are chosen, V codes a level, N = 1 + short + positive + lifelong ids that are read, Q
queries that stand for the lifelong history, and C = 1 + short + positive + Q positions of the encoder:

- reading: N (e d + d^2); a query layer 2 Q d^2 + 2 L d^2 + 2 Q L d + 3 Q d F (L the lifelong ids); an encoder layer
  C (4 d^2 + 3 d F) + 2 C^2 d; keys and values of the context 2 C d^2 in every decoder layer, once for all beams;
- a row of the decoder that sees t of its own ids: 6 d^2 + 2 t d + 2 C d + E d + 3 k d f in every layer, and V d;
- one item with K beams: reading, one row at t = 1, min(K, V) rows at t = 2 and min(K, V^2) at t = 3.

A row is needed if its ids begin one of the items of the final list.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Codes that name an item, one of each level.
LEVELS = 3


@dataclass(frozen=True)
class Sizes:
    """Sizes of a recommender; see `suites.decode.onerec.onerec` for what each is."""

    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    hidden: int
    experts: int
    chosen: int
    expert_width: int
    short: int
    positive: int
    lifelong: int
    queries: int
    query_layers: int
    codes: int
    item: int
    users: int
    items: int

    @property
    def ids(self) -> int:
        """Ids that are read: the user's and those of three histories."""
        return 1 + self.short + self.positive + self.lifelong

    @property
    def context(self) -> int:
        """Positions of the encoder: queries stand for the lifelong history."""
        return 1 + self.short + self.positive + self.queries


def parameters(s: Sizes) -> int:
    """All parameters; the embedding tables of users and items are `table_parameters` of them."""
    d = s.width
    paths = 4 * (s.item * d + d * d)
    network = 4 * d * d + 3 * d * s.hidden + 2 * d
    reading = paths + (s.queries + s.context) * d + (s.query_layers + s.encoder_layers) * network + d
    experts = s.experts * (3 * d * s.expert_width + d + 1)
    writing = s.decoder_layers * (8 * d * d + experts + 3 * d) + d
    ids = (1 + (LEVELS - 1) * s.codes) * d + LEVELS * s.codes * d
    return table_parameters(s) + reading + writing + ids


def table_parameters(s: Sizes) -> int:
    """Parameters of the tables of users and items, of which a request reads `ids` rows."""
    return (s.users + s.items) * s.item


def macs_context(s: Sizes) -> int:
    """Products of reading one user: paths, queries, encoder, and the decoder's keys and values of the context."""
    d, c = s.width, s.context
    paths = s.ids * (s.item * d + d * d)
    asking = 2 * (s.queries + s.lifelong) * d * d + 2 * s.queries * s.lifelong * d + 3 * s.queries * d * s.hidden
    encoding = c * (4 * d * d + 3 * d * s.hidden) + 2 * c * c * d
    return paths + s.query_layers * asking + s.encoder_layers * encoding + s.decoder_layers * 2 * c * d * d


def macs_row(s: Sizes, seen: int) -> int:
    """Products of one row of the decoder with its head; `seen` counts its own ids, the newest included."""
    d = s.width
    layer = 6 * d * d + 2 * seen * d + 2 * s.context * d + s.experts * d + 3 * s.chosen * d * s.expert_width
    return s.decoder_layers * layer + s.codes * d


def macs_item(s: Sizes, beams: int = 1, kept: tuple[int, int] | None = None) -> int:
    """Products of one user's request of three codes.

    Args:
        s: sizes.
        beams: K.
        kept: rows at two and at three ids that are counted instead of all: those that the final list needs.
    """
    second, third = kept or (min(beams, s.codes), min(beams, s.codes**2))
    return macs_context(s) + macs_row(s, 1) + second * macs_row(s, 2) + third * macs_row(s, 3)


def context_share(s: Sizes, beams: int = 1) -> float:
    """Share of a request's products that reading the user takes."""
    return macs_context(s) / macs_item(s, beams)
