"""RGCN's layer by PyTorch Geometric (MIT), as others run it: the baseline of the transforms, where it is installed.

`loop` is its `RGCNConv`: for each relation the mean of the neighbours of all vertices, then a product of V rows;
`gathered` is its `FastRGCNConv`: a matrix fetched for every edge. Fey and Lenssen 2019, arXiv 1903.02428.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from bench.config.settings import PositiveInt
from suites.common.operators import Operator
from suites.distill.relational import rgcn
from suites.distill.relational_layers import Rgcn


def rgcn_pyg(
    *,
    form: Literal["loop", "gathered"] = "loop",
    vertices: PositiveInt = 2000,
    edges: PositiveInt = 10_000,
    relations: PositiveInt = 16,
    unique: PositiveInt | None = None,
    width: PositiveInt = 64,
    outer: PositiveInt | None = None,
    backward: bool = False,
) -> RgcnPyg:
    """RGCN's layer of the library with random weights over the graph that `rgcn` has at these settings.

    Args:
        form: loop, its RGCNConv, or gathered, its FastRGCNConv.
        vertices: V.
        edges: E.
        relations: R.
        unique: U, pairs (source, relation) that occur; None leaves it to the draws.
        width: features of a vertex.
        outer: features that come out; None for as many.
        backward: a run also takes the gradients.

    Raises:
        ValueError: numbers that no graph has.
        NotImplementedError: the library is not installed.
    """
    try:
        from torch_geometric.nn import FastRGCNConv, RGCNConv
    except ImportError as error:
        raise NotImplementedError(
            "torch-geometric is not installed: pip install 'waterline-bench[graphs]', or take rgcn"
        ) from error
    own = rgcn(vertices=vertices, edges=edges, relations=relations, unique=unique, width=width, outer=outer)
    conv = (RGCNConv if form == "loop" else FastRGCNConv)(width, outer or width, relations, aggr="mean", bias=False)
    return RgcnPyg(own, conv, form, backward).eval()


class RgcnPyg(Operator):
    """The library's layer: features of all vertices in, [vertices, inner], and out, [vertices, outer]."""

    tolerance_fp32 = 1e-4
    edge_index: Tensor
    relation: Tensor

    def __init__(self, own: Rgcn, conv: Any, form: str, backward: bool):
        super().__init__(form=f"torch_geometric {form}", backward=backward)
        self.conv, self.graph, self.inner = conv, own.graph, own.inner
        with torch.no_grad():
            assert own.root is not None
            conv.weight.copy_(own.weight[:, 0])
            conv.root.copy_(own.root)
        graph = own.graph
        edges = torch.tensor([graph.source.tolist(), graph.target.tolist()])
        self.register_buffer("edge_index", edges, persistent=False)
        self.register_buffer("relation", torch.tensor(graph.relation), persistent=False)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random features of all vertices; a run is one graph."""
        return (torch.randn(self.graph.vertices, self.inner).to(self.like),)

    def function(self, x: Tensor) -> Tensor:
        """[vertices, outer] of [vertices, inner]."""
        return self.conv(x, self.edge_index, self.relation)

    def definition(self, x: Tensor) -> Tensor:
        """Relation by relation, each edge over the number of its kind into the same vertex."""
        out = x @ self.conv.root
        share = torch.tensor(self.graph.within_relation, device=x.device).to(x)
        for number in range(self.graph.relations):
            of = (self.relation == number).nonzero()[:, 0]
            rows = (x[self.edge_index[0, of]] @ self.conv.weight[number]) * share[of, None]
            out = out.index_add(0, self.edge_index[1, of], rows)
        return out
