"""Layers over relational graphs, and what a compiler does to them: PIGEON, later Hector (arXiv 2301.06284).

- RGCN (Schlichtkrull et al. 2018): h'_v = W_0 h_v + sum over r and edges u -> v of r: W_r h_u / c_{v,r};
- RGAT: z = W_r h at both ends, score = LeakyReLU(a_r . z_u + b_r . z_v), softmax over all edges into v, h'_v = sum of
  weights x z_u;
- HGT (Hu et al. 2020): keys, queries and values by the vertex's type, score = (k_u A_r) . q_v mu_r / sqrt(d), messages
  v_u M_r, an output layer by type and a gated residual.

Forms: `loop` goes relation by relation from the gathered rows to the sum; `gathered` fetches a matrix for every row and
makes one batched product; `segment` gathers all rows once, multiplies each relation's segment and sums once. `compact`
computes what depends on (vertex, relation) only once for each pair; `reordered` multiplies weights first: a_r . (W_r h)
= (W_r^T a_r) . h, and k_u A_r = h_u (W_k A_r). The compiler's generated CUDA code is not reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.operators import Operator
from suites.distill.relational_graph import RelationalGraph, Rows

Form = Literal["loop", "gathered", "segment"]
Kind = Literal["rgcn", "rgat", "hgt"]


class Placed(nn.Module):
    """Rows of a graph as tensors, and products of a matrix of each relation with them."""

    vertex: Tensor
    relation: Tensor
    row: Tensor

    def __init__(self, rows: Rows):
        super().__init__()
        for name in ("vertex", "relation", "row"):
            self.register_buffer(name, torch.tensor(getattr(rows, name)), persistent=False)
        self.sizes = list(rows.sizes)

    def pieces(self, index: Tensor) -> Iterator[tuple[int, Tensor]]:
        """A relation's number and its part of an index, for each that has rows."""
        for number, part in enumerate(index.split(self.sizes)):
            if len(part):
                yield number, part

    def times(self, x: Tensor, weight: Tensor, form: Form) -> Tensor:
        """[rows, heads, outer] of features [vertices, heads, inner] and weights [relations, heads, inner, outer]."""
        if form == "loop":
            return torch.cat([_by_head(x[part], weight[number]) for number, part in self.pieces(self.vertex)])
        return self.times_rows(x[self.vertex], weight, form)

    def times_rows(self, rows: Tensor, weight: Tensor, form: Form) -> Tensor:
        """The same of features of the rows themselves, [rows, heads, inner]."""
        if form == "gathered":
            return (rows.unsqueeze(2) @ weight[self.relation]).squeeze(2)
        return torch.cat([_by_head(part, weight[number]) for number, part in self.pieces(rows)])

    def per_edge(self, rows: Tensor, compact: bool) -> Tensor:
        """What each edge reads, [edges, ...]."""
        return rows[self.row] if compact else rows


def _by_head(x: Tensor, weight: Tensor) -> Tensor:
    """[rows, heads, outer] of [rows, heads, inner] and [heads, inner, outer]."""
    return (x[:, 0] @ weight[0])[:, None] if len(weight) == 1 else (x.transpose(0, 1) @ weight).transpose(0, 1)


def weights(*shape: int) -> nn.Parameter:
    """Uniform weights as wide as the second last axis asks for."""
    reach = 1 / math.sqrt(shape[-2])
    return nn.Parameter(torch.empty(*shape).uniform_(-reach, reach))


class Relational(Operator):
    """A layer over one graph: features of all vertices in, [vertices, inner], and out, [vertices, outer].

    Attributes:
        graph: which it is over; the same for every seed.
    """

    tolerance_fp32 = 1e-4
    target: Tensor

    def __init__(self, graph: RelationalGraph, inner: int, outer: int, form: Form, compact: bool, reordered: bool,
                 backward: bool):  # fmt: skip
        super().__init__(form=form, backward=backward)
        self.graph, self.inner, self.outer, self.form_of = graph, inner, outer, form
        self.compact, self.reordered = compact, reordered
        self.register_buffer("target", torch.tensor(graph.target), persistent=False)
        self.transform(form, compact, reordered)

    def transform(self, form: Form, compact: bool, reordered: bool) -> None:
        """Run in another form from now on, of the same weights."""
        self.form_of, self.compact, self.reordered = form, compact, reordered
        self.sources = Placed(self.graph.rows("source", compact=compact)).to(self.like.device)
        self.targets = Placed(self.graph.rows("target", compact=compact)).to(self.like.device)
        words = [form, "compact" * compact, "reordered" * reordered, f"U/E {self.graph.unique_share:.3f}"]
        self.form = ", ".join(filter(None, words))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random features of all vertices; a run is one graph."""
        return (torch.randn(self.graph.vertices, self.inner).to(self.like),)

    def required_bytes(self, *args: Any) -> int:
        """What the matrices of all rows take where they are fetched; else the rows."""
        rows = len(self.sources.vertex)
        each = self.inner * self.outer if self.form_of == "gathered" else self.inner + self.outer
        return rows * each * self.like.element_size()

    def softmax_sum(self, scores: Tensor, messages: Tensor) -> Tensor:
        """[vertices, heads, outer]: messages of edges [edges, heads, outer] by the softmax of scores [edges, heads].

        The softmax is over all edges into a vertex, of whatever relation.
        """
        place = self.target[:, None].expand_as(scores)
        low = scores.new_full((self.graph.vertices, scores.shape[1]), -torch.inf)
        top = low.scatter_reduce(0, place, scores.detach(), "amax")
        shares = (scores - top[self.target]).exp()
        total = torch.zeros_like(low).index_add(0, self.target, shares)
        weighted = messages * (shares / total[self.target])[..., None]
        return messages.new_zeros(self.graph.vertices, *messages.shape[1:]).index_add(0, self.target, weighted)

    def definition(self, *args: Tensor) -> Tensor:
        """The same relation by relation, nothing compact, nothing reordered."""
        now = (self.form_of, self.compact, self.reordered)
        try:
            self.transform("loop", False, False)
            return self.function(*args)
        finally:
            self.transform(*now)


class Rgcn(Relational):
    """RGCN's layer; it has no scores whose products could be reordered."""

    share: Tensor

    def __init__(self, graph: RelationalGraph, inner: int, outer: int, form: Form, compact: bool, reordered: bool,
                 backward: bool, self_loop: bool):  # fmt: skip
        super().__init__(graph, inner, outer, form, compact, reordered, backward)
        self.weight = weights(graph.relations, 1, inner, outer)
        self.root = weights(inner, outer) if self_loop else None
        self.register_buffer("share", torch.tensor(graph.within_relation), persistent=False)

    def transform(self, form: Form, compact: bool, reordered: bool) -> None:
        """Run in another form from now on, of the same weights."""
        super().transform(form, compact, False)

    def function(self, x: Tensor) -> Tensor:
        """[vertices, outer] of [vertices, inner]."""
        out = x.new_zeros(self.graph.vertices, self.outer) if self.root is None else x @ self.root
        if self.form_of == "loop" and not self.compact:
            parts = zip(self.sources.pieces(self.sources.vertex), self.sources.pieces(self.share),
                        self.sources.pieces(self.target), strict=True)  # fmt: skip
            for (number, source), (_, of), (_, target) in parts:
                out = out.index_add(0, target, (x[source] @ self.weight[number, 0]) * of[:, None])
            return out
        rows = self.sources.times(x[:, None], self.weight, self.form_of)[:, 0]
        return out.index_add(0, self.target, self.sources.per_edge(rows, self.compact) * self.share[:, None])


class Rgat(Relational):
    """RGAT's layer, one head."""

    def __init__(self, graph: RelationalGraph, inner: int, outer: int, form: Form, compact: bool, reordered: bool,
                 backward: bool, slope: float):  # fmt: skip
        super().__init__(graph, inner, outer, form, compact, reordered, backward)
        self.slope = slope
        self.weight = weights(graph.relations, 1, inner, outer)
        self.at_source, self.at_target = (weights(graph.relations, 1, outer, 1) for _ in range(2))

    def function(self, x: Tensor) -> Tensor:
        """[vertices, outer] of [vertices, inner]."""
        x, form, compact = x[:, None], self.form_of, self.compact
        rows = self.sources.times(x, self.weight, form)
        ends = [(self.sources, self.at_source, rows), (self.targets, self.at_target, None)]
        scores = x.new_zeros(())
        for placed, vector, known in ends:
            if self.reordered:
                found = placed.times(x, self.weight @ vector, form)
            else:
                own = placed.times(x, self.weight, form) if known is None else known
                found = placed.times_rows(own, vector, form)
            scores = scores + placed.per_edge(found, compact)[..., 0]
        return self.softmax_sum(F.leaky_relu(scores, self.slope), self.sources.per_edge(rows, compact))[:, 0]


class Hgt(Relational):
    """HGT's layer."""

    kind: Tensor
    start: Tensor
    relation: Tensor

    def __init__(self, graph: RelationalGraph, inner: int, outer: int, form: Form, compact: bool, reordered: bool,
                 backward: bool, heads: int):  # fmt: skip
        super().__init__(graph, inner, outer, form, compact, reordered, backward)
        self.heads, kinds, size = heads, len(graph.types), outer // heads
        self.key, self.query, self.value = (weights(kinds, inner, outer) for _ in range(3))
        self.attention, self.message = (weights(graph.relations, heads, size, size) for _ in range(2))
        self.prior = nn.Parameter(torch.ones(graph.relations, heads))
        self.out = weights(kinds, outer, outer)
        self.skip = nn.Parameter(torch.ones(kinds)) if inner == outer else None
        type_of = np.repeat(np.arange(kinds), graph.types)
        for name, value in {"kind": type_of, "start": graph.ends[:, 0], "relation": graph.relation}.items():
            self.register_buffer(name, torch.tensor(value), persistent=False)

    def by_type(self, x: Tensor, weight: Tensor) -> Tensor:
        """[vertices, outer]: each type's part times its matrix."""
        parts = x.split(list(self.graph.types))
        return torch.cat([part @ own for part, own in zip(parts, weight, strict=True)])

    def first(self, x: Tensor, by_type: Tensor, by_relation: Tensor) -> Tensor:
        """[rows, heads, size]: a layer by the source's type, then one by relation; or both as one matrix."""
        if not self.reordered:
            made = self.by_type(x, by_type).unflatten(1, (self.heads, -1))
            return self.sources.times(made, by_relation, self.form_of)
        whole = by_type[self.start].unflatten(2, (self.heads, -1)).transpose(1, 2) @ by_relation
        merged = whole.transpose(1, 2).flatten(2)[:, None]
        return self.sources.times(x[:, None], merged, self.form_of)[:, 0].unflatten(1, (self.heads, -1))

    def function(self, x: Tensor) -> Tensor:
        """[vertices, outer] of [vertices, inner]."""
        size = self.outer // self.heads
        keys = self.sources.per_edge(self.first(x, self.key, self.attention), self.compact)
        messages = self.sources.per_edge(self.first(x, self.value, self.message), self.compact)
        queries = self.by_type(x, self.query).unflatten(1, (self.heads, -1))[self.target]
        scores = (keys * queries).sum(2) * self.prior[self.relation] / math.sqrt(size)
        summed = F.gelu(self.softmax_sum(scores, messages).flatten(1))
        out = self.by_type(summed, self.out)
        if self.skip is None:
            return out
        gate = self.skip.sigmoid()[self.kind][:, None]
        return gate * out + (1 - gate) * x
