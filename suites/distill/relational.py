"""Layers over relational graphs by name, and the method that runs them as a compiler would; see `relational_layers`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from bench.config.settings import Positive, PositiveInt
from suites.distill.relational_graph import SIZES, Name, RelationalGraph, generated, read
from suites.distill.relational_layers import Hgt, Relational, Rgat, Rgcn


def graph_of(graph: Name, file: str | None, vertices: int, edges: int, relations: int, types: int, exponent: float,
             unique: int | None) -> RelationalGraph:  # fmt: skip
    """The graph that settings ask for.

    Raises:
        ValueError: numbers that no graph has, or a file that holds none.
    """
    if file is not None:
        return read(file, types)
    vertices, edges, relations = SIZES.get(graph, (vertices, edges, relations))
    return generated(vertices, edges, relations, types, exponent, unique)


def rgcn(
    *,
    form: Literal["loop", "gathered", "segment"] = "loop",
    compact: bool = False,
    reordered: bool = False,
    graph: Literal["zipf", "aifb", "mutag", "bgs", "am"] = "zipf",
    file: str | None = None,
    vertices: PositiveInt = 2000,
    edges: PositiveInt = 10_000,
    relations: PositiveInt = 16,
    types: PositiveInt = 1,
    exponent: Annotated[float, Field(ge=0.0)] = 1.0,
    unique: PositiveInt | None = None,
    width: PositiveInt = 64,
    outer: PositiveInt | None = None,
    self_loop: bool = True,
    backward: bool = False,
) -> Rgcn:
    """RGCN's layer with random weights over a relational graph.

    Args:
        form: loop, gathered, or segment.
        compact: what depends on (source, relation) only once for each pair.
        reordered: of no account here: there are no scores.
        graph: zipf, of the sizes below, or as large as a known one.
        file: the user's edges instead, a .npy file [edges, 3].
        vertices: V.
        edges: E.
        relations: R.
        types: of vertices.
        exponent: of Zipf's law.
        unique: U, pairs (source, relation) that occur; None leaves it to the draws.
        width: features of a vertex.
        outer: features that come out; None for as many.
        self_loop: whether a vertex's own features are added by a matrix of their own.
        backward: a run also takes the gradients.

    Raises:
        ValueError: numbers that no graph has, or a file that holds none.
    """
    found = graph_of(graph, file, vertices, edges, relations, types, exponent, unique)
    return Rgcn(found, width, outer or width, form, compact, reordered, backward, self_loop).eval()


def rgat(
    *,
    form: Literal["loop", "gathered", "segment"] = "loop",
    compact: bool = False,
    reordered: bool = False,
    graph: Literal["zipf", "aifb", "mutag", "bgs", "am"] = "zipf",
    file: str | None = None,
    vertices: PositiveInt = 2000,
    edges: PositiveInt = 10_000,
    relations: PositiveInt = 16,
    types: PositiveInt = 1,
    exponent: Annotated[float, Field(ge=0.0)] = 1.0,
    unique: PositiveInt | None = None,
    width: PositiveInt = 64,
    outer: PositiveInt | None = None,
    slope: Positive = 0.2,
    backward: bool = False,
) -> Rgat:
    """RGAT's layer of one head with random weights over a relational graph.

    Args:
        form: loop, gathered, or segment.
        compact: what depends on (vertex, relation) only once for each pair.
        reordered: scores by W_r^T a_r instead of by W_r h.
        graph: zipf, of the sizes below, or as large as a known one.
        file: the user's edges instead, a .npy file [edges, 3].
        vertices: V.
        edges: E.
        relations: R.
        types: of vertices.
        exponent: of Zipf's law.
        unique: U, pairs (source, relation) that occur; None leaves it to the draws.
        width: features of a vertex.
        outer: features that come out; None for as many.
        slope: of the score's LeakyReLU below zero.
        backward: a run also takes the gradients.

    Raises:
        ValueError: numbers that no graph has, or a file that holds none.
    """
    found = graph_of(graph, file, vertices, edges, relations, types, exponent, unique)
    return Rgat(found, width, outer or width, form, compact, reordered, backward, slope).eval()


def hgt(
    *,
    form: Literal["loop", "gathered", "segment"] = "loop",
    compact: bool = False,
    reordered: bool = False,
    graph: Literal["zipf", "aifb", "mutag", "bgs", "am"] = "zipf",
    file: str | None = None,
    vertices: PositiveInt = 2000,
    edges: PositiveInt = 10_000,
    relations: PositiveInt = 16,
    types: PositiveInt = 4,
    exponent: Annotated[float, Field(ge=0.0)] = 1.0,
    unique: PositiveInt | None = None,
    width: PositiveInt = 64,
    outer: PositiveInt | None = None,
    heads: PositiveInt = 1,
    backward: bool = False,
) -> Hgt:
    """HGT's layer with random weights over a relational graph.

    Args:
        form: loop, gathered, or segment.
        compact: what depends on (source, relation) only once for each pair.
        reordered: keys and values by W_type W_relation as one matrix.
        graph: zipf, of the sizes below, or as large as a known one.
        file: the user's edges instead, a .npy file [edges, 3].
        vertices: V.
        edges: E.
        relations: R.
        types: of vertices.
        exponent: of Zipf's law.
        unique: U, pairs (source, relation) that occur; None leaves it to the draws.
        width: features of a vertex.
        outer: features that come out; None for as many.
        heads: of attention.
        backward: a run also takes the gradients.

    Raises:
        ValueError: numbers that no graph has, heads that do not divide the width, or a file that holds none.
    """
    wide = outer or width
    if wide % heads:
        raise ValueError(f"heads={heads} do not divide a width of {wide}")
    found = graph_of(graph, file, vertices, edges, relations, types, exponent, unique)
    return Hgt(found, width, wide, form, compact, reordered, backward, heads).eval()


def pigeon(
    model: nn.Module,
    *,
    form: Literal["loop", "gathered", "segment"] = "segment",
    compact: bool = True,
    reordered: bool = True,
) -> Relational:
    """A relational layer as the compiler would run it: the same weights, other products.

    Args:
        model: rgcn, rgat or hgt, changed in place.
        form: loop, gathered, or segment.
        compact: what depends on (vertex, relation) only once for each pair.
        reordered: weights are multiplied with each other first.

    Raises:
        ValueError: another network.
    """
    if not isinstance(model, Relational):
        raise ValueError(f"pigeon transforms rgcn, rgat or hgt, and this is {type(model).__name__}")
    model.transform(form, compact, reordered)
    return model
