"""Closed forms of executed products, for the battery and for tests."""

from __future__ import annotations

from typing import Any

from suites.distill import pfn
from suites.distill.fields import width_of
from suites.distill.hypergraph import digits_hypergraph, factors, random_hypergraph
from suites.distill.relational import graph_of
from suites.distill.relational_graph import RelationalGraph

Settings = dict[str, Any]


def teacher(model: Settings, method: Settings) -> int:
    """Products of one forward of a hypergraph network over all its vertices, however many were asked for.

    N (C H + H K) + s (H + K), where s = 2 nnz(H) by the incidence and nnz(L) by the materialised L.

    Args:
        model: settings of `hgnn`.
        method: of no account.
    """
    vertices, members = model.get("vertices"), model.get("members", 10)
    features, hidden, classes = model.get("features", 64), model.get("hidden", 32), 10
    graph = digits_hypergraph(members - 1) if vertices is None else (
        random_hypergraph(vertices, model.get("degree", 8), members)
    )  # fmt: skip
    if model.get("form", "incidence") == "incidence":
        stored = 2 * graph.members
    else:
        gather, scatter = factors(graph, "symmetric")
        stored = (scatter @ gather).nnz
    return graph.vertices * hidden * (features + classes) + stored * (hidden + classes)


def student(model: Settings, method: Settings) -> int:
    """Products of one vertex: C H + H K.

    Args:
        model: settings of `lighthgnn`.
        method: of no account.
    """
    return model.get("hidden", 128) * (model.get("features", 64) + 10)


def nerf(model: Settings, method: Settings) -> int:
    """Products of one point through NeRF's network.

    Args:
        model: settings of `nerf`.
        method: of no account.
    """
    width, depth = model.get("width", 256), model.get("depth", 8)
    wide, view = width_of(model.get("frequencies", 10)), width_of(model.get("view_frequencies", 4))
    layers = wide * width + (depth - 1) * width**2 + wide * width
    return layers + width * (1 + width) + (width + view) * (width // 2) + width // 2 * 3


def distance(model: Settings) -> int:
    """Products of one point through NeuS's network of distances, without its gradient."""
    width, depth = model.get("width", 256), model.get("depth", 8)
    wide = width_of(model.get("frequencies", 6))
    before = wide if depth // 2 == 1 else width  # of the layer that leaves room for the positions: the first of three
    return (wide + (depth - 1) * width) * width - before * wide + width * (width + 1)


def neus(model: Settings, method: Settings) -> int:
    """Products of one point: the distance, as many again for its gradient, and the colour.

    Args:
        model: settings of `neus`.
        method: of no account.
    """
    width, depth = model.get("width", 256), model.get("colour_depth", 4)
    seen = width + 6 + width_of(model.get("view_frequencies", 4))
    return 2 * distance(model) + seen * width + (depth - 1) * width**2 + 3 * width


def kilonerf(model: Settings, method: Settings) -> int:
    """Products of one point through its tiny network; sizes are rounded up to whole pieces where it is grouped.

    Args:
        model: settings of `kilonerf`; of the padded form it is what is useful.
        method: of no account.
    """
    width, wide, view = (model.get("width", 32), width_of(model.get("frequencies", 10)),
                         width_of(model.get("view_frequencies", 4)))  # fmt: skip
    sizes = [(wide, width), (width, width), (width, 1), (width, width), (width + view, width), (width, 3)]
    return sum(inner * outer for inner, outer in _executed(sizes, model))


def kiloneus(model: Settings, method: Settings) -> int:
    """Products of one point through its tiny networks: the distance, as many again for its gradient, and the colour.

    Args:
        model: settings of `kiloneus`; of the padded form it is what is useful.
        method: of no account.
    """
    width, wide, view = (model.get("width", 32), width_of(model.get("frequencies", 6)),
                         width_of(model.get("view_frequencies", 4)))  # fmt: skip
    shape = [(wide, width), (width, width), (width, width + 1)]
    colour = [(width + 6 + view, width), (width, 3)]
    sizes = _executed([*shape, *shape, *colour], model)
    return sum(inner * outer for inner, outer in sizes)


def _executed(sizes: list[tuple[int, int]], model: Settings) -> list[tuple[int, int]]:
    if model.get("form") != "grouped":
        return sizes
    return [(inner + -inner % 4, outer + -outer % 4) for inner, outer in sizes]


def message_macs(rows: int, inner: int, outer: int) -> int:
    """Products of a matrix of each relation with so many rows: E edges, or U pairs where they are compact."""
    return rows * inner * outer


def relational(model: Settings, method: Settings, layer: str) -> int:
    """Products of one run of a relational layer.

    Args:
        model: settings of `rgcn`, `rgat` or `hgt`.
        method: settings of `pigeon`, all of them; empty without.
        layer: which of them.
    """
    found = {"form": "loop", "compact": False, "reordered": False, **model, **method}
    sizes = {"graph": "zipf", "file": None, "vertices": 2000, "edges": 10_000, "relations": 16,
             "types": 4 if layer == "hgt" else 1, "exponent": 1.0, "unique": None}  # fmt: skip
    graph = graph_of(**{name: found.get(name, value) for name, value in sizes.items()})  # type: ignore[arg-type]
    inner = found.get("width", 64)
    outer = found.get("outer") or inner
    return {"rgcn": _rgcn, "rgat": _rgat, "hgt": _hgt}[layer](found, graph, inner, outer)


def _rows(found: Settings, graph: RelationalGraph) -> tuple[int, int]:
    compact = found["compact"]
    return len(graph.rows("source", compact=compact).vertex), len(graph.rows("target", compact=compact).vertex)


def _rgcn(found: Settings, graph: RelationalGraph, inner: int, outer: int) -> int:
    own = graph.vertices if found.get("self_loop", True) else 0
    return message_macs(_rows(found, graph)[0] + own, inner, outer)


def _rgat(found: Settings, graph: RelationalGraph, inner: int, outer: int) -> int:
    sources, targets = _rows(found, graph)
    messages = message_macs(sources, inner, outer)
    if found["reordered"]:
        return messages + 2 * graph.relations * inner * outer + (sources + targets) * inner
    return messages + message_macs(targets, inner, outer) + (sources + targets) * outer


def _hgt(found: Settings, graph: RelationalGraph, inner: int, outer: int) -> int:
    sources, size = _rows(found, graph)[0], outer // found.get("heads", 1)
    ends = graph.vertices * outer * (inner + outer)  # queries, and the layer behind the sum
    if found["reordered"]:
        return ends + 2 * (graph.relations * inner * outer * size + sources * inner * outer)
    return ends + 2 * (graph.vertices * inner * outer + sources * outer * size)


def rgcn(model: Settings, method: Settings) -> int:
    """Products of one run of `rgcn`, with `pigeon` where it has settings."""
    return relational(model, method, "rgcn")


def rgat(model: Settings, method: Settings) -> int:
    """Products of one run of `rgat`, with `pigeon` where it has settings."""
    return relational(model, method, "rgat")


def hgt(model: Settings, method: Settings) -> int:
    """Products of one run of `hgt`, with `pigeon` where it has settings."""
    return relational(model, method, "hgt")


def posterior(model: Settings, method: Settings) -> int:
    """Products of one forward of `pfn`, by its settings.

    Args:
        model: settings of `pfn`.
        method: of no account.
    """
    given = {"features": 5, "width": 512, "depth": 6, "hidden": 1024, "bins": 1000, "points": 100, "queries": 100,
             "form": "cross", **model}  # fmt: skip
    return pfn.macs(given["features"], given["width"], given["depth"], given["hidden"], given["bins"], given["points"],
                    given["queries"], given["form"])  # fmt: skip


def detector(model: Settings, method: Settings) -> int:
    """Products of one flow: its embedding, and 64 for a centre or 64 N for a bank of N.

    Args:
        model: settings of `clan` or `contrastive`; `scoring` has to be told.
        method: of no account.
    """
    features, width, depth = model.get("features", 72), model.get("width", 1024), model.get("depth", 4)
    embedding, bank = model.get("embedding", 64), model.get("bank", 500)
    first = features * width * (1 if features == width else 2)
    compared = bank if model.get("scoring", "centroid") == "neighbours" else 1
    return first + (depth - 1) * width**2 + width * embedding + compared * embedding
