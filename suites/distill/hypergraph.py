"""Hypergraphs: which vertices belong to which hyperedges, and the smoothing of features over both.

With H the incidence (vertices x hyperedges), Dv and De the degrees of vertices and hyperedges, and unit weights:

- `symmetric`: L = Dv^-1/2 H De^-1 H^T Dv^-1/2 (HGNN, Feng et al. 2019, arXiv 1809.09401, equation 10);
- `mean`: Dv^-1 H De^-1 H^T, from vertices to the mean of a hyperedge and back (HGNN+, Gao et al. 2022).

A vertex of no hyperedge gets one of its own, so that nothing is divided by zero and it keeps its features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Norm = Literal["symmetric", "mean"]
Form = Literal["incidence", "materialised"]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Hypergraph:
    """Members of hyperedges as pairs (vertex, hyperedge), each once; every vertex is in one hyperedge at least."""

    vertices: int
    hyperedges: int
    vertex: Ints
    hyperedge: Ints

    @property
    def members(self) -> int:
        """Stored entries of the incidence, nnz(H)."""
        return len(self.vertex)

    def without(self, hidden: Ints) -> Hypergraph:
        """The same vertices, but those in `hidden` in no hyperedge with others; hyperedges without members go."""
        seen = ~np.isin(self.vertex, hidden)
        return made(self.vertices, self.vertex[seen], self.hyperedge[seen])


def made(vertices: int, vertex: Any, hyperedge: Any) -> Hypergraph:
    """A hypergraph from pairs; equal pairs count once, hyperedges are numbered anew, lone vertices get their own.

    Args:
        vertices: N, how many there are.
        vertex: [pairs], 0 to N - 1.
        hyperedge: [pairs], any numbers.

    Raises:
        ValueError: a vertex that there is not, or sides of unequal length.
    """
    vertex, hyperedge = np.asarray(vertex, dtype=np.int64), np.asarray(hyperedge, dtype=np.int64)
    if vertex.shape != hyperedge.shape or vertex.ndim != 1:
        raise ValueError(f"{vertex.shape} vertices and {hyperedge.shape} hyperedges: give one of each for every pair")
    if len(vertex) and not (vertex.min() >= 0 and vertex.max() < vertices):
        raise ValueError(f"vertices of pairs are 0 to {vertices - 1}, and there is {vertex.max()} or {vertex.min()}")
    names, number = np.unique(hyperedge, return_inverse=True)
    lone = np.setdiff1d(np.arange(vertices), vertex)
    pairs = np.stack([np.concatenate([vertex, lone]), np.concatenate([number, len(names) + np.arange(len(lone))])])
    pairs = np.unique(pairs, axis=1)
    return Hypergraph(vertices, len(names) + len(lone), pairs[0], pairs[1])


@cache
def digits_features() -> tuple[NDArray[np.float32], Ints]:
    """Pixels of scikit-learn's digits in 0..1, [1797, 64], and what they show, [1797]."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return (bundle.data / 16).astype(np.float32), bundle.target.astype(np.int64)


@cache
def digits_hypergraph(neighbours: int = 9) -> Hypergraph:
    """Hyperedge i is image i with its nearest other images: 1797 hyperedges of `neighbours` + 1 members.

    Raises:
        ValueError: more members than there are images.
    """
    pixels = digits_features()[0].astype(np.float64)
    if neighbours >= len(pixels):
        raise ValueError(f"members={neighbours + 1}: there are {len(pixels)} digits, so take that many or fewer")
    squares = (pixels**2).sum(1)
    apart = squares[:, None] + squares - 2 * pixels @ pixels.T
    np.fill_diagonal(apart, -1.0)  # an image is the first of its own hyperedge, whatever rounding says
    near = np.argsort(apart, axis=1, kind="stable")[:, : neighbours + 1]
    return made(len(pixels), near.ravel(), np.repeat(np.arange(len(pixels)), neighbours + 1))


@cache
def random_hypergraph(vertices: int, degree: int, members: int, seed: int = 0) -> Hypergraph:
    """Hyperedges of random members, as many as give a vertex `degree` of them on average."""
    draw = np.random.default_rng(seed)
    count = max(1, round(vertices * degree / members))
    vertex = draw.integers(vertices, size=count * members)
    return made(vertices, vertex, np.repeat(np.arange(count), members))


def factors(graph: Hypergraph, norm: Norm) -> tuple[Any, Any]:
    """Two sparse matrices whose product is the smoothing: hyperedges x vertices, then vertices x hyperedges."""
    from scipy.sparse import csr_array, diags_array

    shape = (graph.vertices, graph.hyperedges)
    incidence = csr_array((np.ones(graph.members), (graph.vertex, graph.hyperedge)), shape=shape)
    of_vertices, of_hyperedges = incidence.sum(1), incidence.sum(0)
    gather = diags_array(1 / of_hyperedges) @ incidence.T
    if norm == "mean":
        return csr_array(gather), csr_array(diags_array(1 / of_vertices) @ incidence)
    root = diags_array(of_vertices**-0.5)
    return csr_array(gather @ root), csr_array(root @ incidence)


class Sparse(nn.Module):
    """A constant matrix in compressed rows that multiplies features [columns, width]."""

    ends: Tensor
    column: Tensor
    values: Tensor

    def __init__(self, matrix: Any):
        super().__init__()
        matrix.sort_indices()
        self.shape = matrix.shape
        for name, value in {"ends": matrix.indptr, "column": matrix.indices}.items():
            self.register_buffer(name, torch.tensor(value.astype(np.int64)), persistent=False)
        self.register_buffer("values", torch.tensor(matrix.data.astype(np.float32)), persistent=False)

    @property
    def stored(self) -> int:
        """Stored entries."""
        return len(self.values)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, width] of [columns, width]."""
        return product(self.ends, self.column, self.values, self.shape, x)

    def rows(self, index: Tensor) -> tuple[Any, Tensor]:
        """Rows of the matrix over the columns that they touch: a function of [touched, width], and those columns."""
        counts = self.ends[index + 1] - self.ends[index]
        ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        place = torch.arange(int(ends[-1]), device=index.device)
        place = place + (self.ends[index] - ends[:-1]).repeat_interleave(counts)
        touched, column = self.column[place].unique(return_inverse=True)
        values, size = self.values[place], (len(index), len(touched))
        return (lambda x: product(ends, column, values, size, x)), touched


def product(ends: Tensor, column: Tensor, values: Tensor, size: tuple[int, int], x: Tensor) -> Tensor:
    """A matrix in compressed rows times features.

    Without storage torch has no such product: there each stored entry multiplies a row by itself, as often.
    """
    if x.is_meta:
        each = values[:, None, None] @ x[column][:, None]
        return x.new_zeros(size[0], x.shape[1]).index_add(0, column, each[:, 0])
    matrix = torch.sparse_csr_tensor(ends, column, values, size=size, check_invariants=False)
    return matrix @ x


class Smoothing(nn.Module):
    """Features of vertices, averaged over the hyperedges that they are in.

    Attributes:
        steps: the sparse matrices that multiply one after another, the last one's rows being vertices.
    """

    def __init__(self, graph: Hypergraph, norm: Norm, form: Form):
        super().__init__()
        found = factors(graph, norm)
        self.steps = nn.ModuleList(map(Sparse, found if form == "incidence" else [found[1] @ found[0]]))

    @property
    def stored(self) -> int:
        """Products of one feature of all vertices: 2 nnz(H), or nnz(L)."""
        return sum(step.stored for step in self._each())

    def _each(self) -> list[Any]:
        return list(self.steps)

    def forward(self, x: Tensor) -> Tensor:
        """[vertices, width] of [vertices, width]."""
        for step in self._each():
            x = step(x)
        return x

    def around(self, index: Tensor) -> tuple[Any, Tensor]:
        """The smoothed features of some vertices as a function of those that they depend on, and which these are."""
        calls = list[Any]()
        for step in reversed(self._each()):
            call, index = step.rows(index)
            calls.insert(0, call)

        def smooth(x: Tensor) -> Tensor:
            for call in calls:
                x = call(x)
            return x

        return smooth, index
