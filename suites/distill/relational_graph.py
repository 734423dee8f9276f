"""Relational graphs: edges of several kinds between vertices of several types, generated with Zipf degrees or read.

Edges are sorted by relation, so that those of one relation are a segment. The pairs (source, relation) that occur are
what compact materialisation computes a message for: U of them on E edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Name = Literal["zipf", "aifb", "mutag", "bgs", "am"]
#: Vertices, edges and relations of knowledge graphs, each relation with its inverse (Schlichtkrull et al. 2018, arXiv
#: 1703.06103, table 1); generated here with as many, for the graphs themselves are not shipped.
SIZES: dict[str, tuple[int, int, int]] = {
    "aifb": (8_285, 2 * 29_043, 2 * 45), "mutag": (23_644, 2 * 74_227, 2 * 23),
    "bgs": (333_845, 2 * 916_199, 2 * 103), "am": (1_666_764, 2 * 5_988_321, 2 * 133),
}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Rows that a matrix of each relation multiplies: a vertex and a relation each, sorted by relation.

    Attributes:
        vertex: [rows].
        relation: [rows], rising.
        sizes: rows of each relation, in order.
        row: of each edge the row that it reads, [edges].
    """

    vertex: Ints
    relation: Ints
    sizes: tuple[int, ...]
    row: Ints


@dataclass(frozen=True, eq=False)
class RelationalGraph:
    """Edges (source, relation, target) sorted by relation; vertices of one type are numbered in a row.

    Attributes:
        types: vertices of each type, in order.
        ends: of each relation the type of its sources and of its targets, [relations, 2].
    """

    vertices: int
    relations: int
    source: Ints
    relation: Ints
    target: Ints
    types: tuple[int, ...]
    ends: Ints

    @property
    def edges(self) -> int:
        """How many edges there are, E."""
        return len(self.source)

    def rows(self, side: Literal["source", "target"], *, compact: bool) -> Rows:
        """What is multiplied for the edges' sources or targets: a row an edge, or a row a pair that occurs."""
        vertex = self.source if side == "source" else self.target
        if not compact:
            return Rows(vertex, self.relation, self._sizes(self.relation), np.arange(self.edges))
        pairs, row = np.unique(self.relation * self.vertices + vertex, return_inverse=True)
        relation = pairs // self.vertices
        return Rows(pairs % self.vertices, relation, self._sizes(relation), row)

    def _sizes(self, relation: Ints) -> tuple[int, ...]:
        return tuple(np.bincount(relation, minlength=self.relations).tolist())

    @cached_property
    def unique_share(self) -> float:
        """U / E: pairs (source, relation) that occur over edges."""
        return len(np.unique(self.relation * self.vertices + self.source)) / self.edges

    @cached_property
    def within_relation(self) -> NDArray[np.float32]:
        """1 over the number of edges of the same relation into the same target, [edges]."""
        _, pair, count = np.unique(self.relation * self.vertices + self.target, return_inverse=True, return_counts=True)
        return (1 / count[pair]).astype(np.float32)


def from_edges(vertices: int, relations: int, edges: Any, types: int = 1) -> RelationalGraph:
    """A graph of given edges; vertices are of one type, or of as many as are asked for in equal parts.

    Args:
        vertices: V.
        relations: R.
        edges: [E, 3] whole numbers: source, relation, target.
        types: of vertices; with several, a relation's ends are those of its first edge, and all others must agree.

    Raises:
        ValueError: numbers out of range, no edges, or a relation between several types.
    """
    found = np.asarray(edges)
    if found.ndim != 2 or found.shape[1:] != (3,) or not len(found) or found.dtype.kind not in "iu":
        raise ValueError(f"edges of shape {found.shape} and type {found.dtype}: give rows of source, relation, target")
    found = found[np.argsort(found[:, 1], kind="stable")].astype(np.int64)
    source, relation, target = found.T
    if min(source.min(), target.min(), relation.min()) < 0 or max(source.max(), target.max()) >= vertices:
        raise ValueError(f"vertices of edges are 0 to {vertices - 1}, and relations from 0 on")
    if relation.max() >= relations:
        raise ValueError(f"there is relation {relation.max()}, and relations={relations}: they count from 0")
    starts = _starts(vertices, types)
    kinds = [np.searchsorted(starts, side, side="right") - 1 for side in (source, target)]
    ends = np.zeros((relations, 2), dtype=np.int64)
    first = np.unique(relation, return_index=True)
    ends[first[0]] = np.stack([kind[first[1]] for kind in kinds], 1)
    if types > 1 and any((ends[relation, side] != kinds[side]).any() for side in (0, 1)):
        raise ValueError(f"types={types}: a relation has sources, or targets, of several types")
    sizes = tuple(np.diff([*starts.tolist(), vertices]).tolist())
    return RelationalGraph(vertices, relations, source.copy(), relation.copy(), target.copy(), sizes, ends)


def _starts(vertices: int, types: int) -> Ints:
    """The first vertex of each type."""
    if types > vertices:
        raise ValueError(f"types={types}: there are only {vertices} vertices")
    return np.arange(types) * vertices // types


@cache
def generated(
    vertices: int, edges: int, relations: int, types: int = 1, exponent: float = 1.0, unique: int | None = None,
    seed: int = 0,
) -> RelationalGraph:  # fmt: skip
    """Edges whose relations, sources and targets are drawn by Zipf's law, p(k) ~ k^-exponent.

    Args:
        vertices: V.
        edges: E.
        relations: R, each between two types.
        types: of vertices, in equal parts.
        exponent: of the law; 0 draws evenly.
        unique: U, pairs (source, relation) that occur, to be met exactly; None leaves it to the draws.
        seed: of all draws.

    Raises:
        ValueError: more pairs than there are edges or can be, or fewer than relations that have an edge.
    """
    if relations > edges:
        raise ValueError(f"relations={relations} are more than edges={edges}: each has one at least")
    draw, starts = np.random.default_rng(seed), _starts(vertices, types)
    sizes = np.diff([*starts.tolist(), vertices])
    ends = np.stack([np.arange(relations) % types, np.arange(relations) // types % types], 1)
    weights = _zipf(relations, exponent)
    relation = np.concatenate([np.arange(relations), draw.choice(relations, edges - relations, p=weights)])
    relation.sort()
    sides = [starts[ends[relation, side]] + _ranked(draw, sizes[ends[relation, side]], exponent) for side in (0, 1)]
    if unique is not None:
        relation, sides[0] = _exactly(draw, relation, sides[0], unique, (starts, sizes, ends, vertices))
        sides[1] = starts[ends[relation, 1]] + _ranked(draw, sizes[ends[relation, 1]], exponent)
    return from_edges(vertices, relations, np.stack([sides[0], relation, sides[1]], 1), types)


def _zipf(count: int, exponent: float) -> NDArray[np.float64]:
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def _ranked(draw: np.random.Generator, sizes: Ints, exponent: float) -> Ints:
    """A rank below each size by Zipf's law; the ranks of one size are shuffled alike, so that numbers tell nothing."""
    found = np.empty(len(sizes), dtype=np.int64)
    for size in np.unique(sizes):
        here = sizes == size
        names = draw.permutation(size)
        found[here] = names[draw.choice(size, int(here.sum()), p=_zipf(int(size), exponent))]
    return found


def _exactly(
    draw: np.random.Generator, relation: Ints, source: Ints, unique: int, where: tuple[Ints, Ints, Ints, int]
) -> tuple[Ints, Ints]:  # fmt: skip
    """Relations and sources of as many edges with exactly so many pairs: some are dropped, or even ones added."""
    starts, sizes, ends, vertices = where
    edges, possible = len(relation), int(sizes[ends[:, 0]].sum())
    if not len(ends) <= unique <= min(edges, possible):
        raise ValueError(f"unique={unique}: {len(ends)} (relations) to {min(edges, possible)} pairs can occur")
    pairs = np.unique(relation * vertices + source)
    _, firsts = np.unique(pairs // vertices, return_index=True)
    kept = set(pairs[firsts].tolist())
    order = np.concatenate([pairs[draw.permutation(len(pairs))]])
    for pair in order.tolist():
        if len(kept) == unique:
            break
        kept.add(pair)
    while len(kept) < unique:  # even draws where Zipf's law met too few
        missing = 2 * (unique - len(kept)) + 16
        chosen = draw.integers(len(ends), size=missing)
        vertex = starts[ends[chosen, 0]] + draw.integers(sizes[ends[chosen, 0]])
        for pair in (chosen * vertices + vertex).tolist():
            if len(kept) == unique:
                break
            kept.add(pair)
    every = np.fromiter(sorted(kept), dtype=np.int64)
    found = np.concatenate([every, every[draw.integers(len(every), size=edges - len(every))]])
    return found // vertices, found % vertices


def read(file: str, types: int = 1) -> RelationalGraph:
    """A graph of the user's: a .npy file of whole numbers [edges, 3], source, relation, target.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"file={file}: there is no such file; save an array [edges, 3] by numpy.save")
    try:
        edges = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"file={file} is no array of numbers: {error}") from error
    if edges.ndim != 2 or edges.shape[1:] != (3,) or not len(edges):
        raise ValueError(f"file={file}: an array of shape {edges.shape}, and rows are source, relation, target")
    return from_edges(int(edges[:, [0, 2]].max()) + 1, int(edges[:, 1].max()) + 1, edges, types)
