"""Messages over hyperedges whose prototypes depend on the picture, as in YOLOv13 (arXiv:2506.17733, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.feature_operator import FeatureOperator


class Hypergraph(nn.Module):
    """Places of a map as nodes: gathered into a few hyperedges and given back, with a shortcut.

    Membership is the softmax over nodes (not over edges) of scaled products with prototypes, averaged over heads.
    """

    def __init__(self, channels: int, edges: int, heads: int):
        super().__init__()
        if heads < 1 or channels % heads:
            raise UsageError(f"a hypergraph of {channels} channels cannot have {heads} heads")
        self.edges, self.heads = edges, heads
        self.prototypes = nn.Parameter(torch.randn(edges, channels) * channels**-0.5)
        self.context = nn.Linear(2 * channels, edges * channels)
        self.project = nn.Linear(channels, channels)
        self.edge = nn.Linear(channels, channels)
        self.node = nn.Linear(channels, channels)

    def membership(self, nodes: Tensor) -> Tensor:
        """[batch, places, edges], which sums to 1 over places; nodes [batch, places, channels]."""
        batch, places, channels = nodes.shape
        pooled = torch.cat((nodes.mean(1), nodes.amax(1)), -1)
        wanted = self.prototypes + self.context(pooled).view(batch, self.edges, channels)
        size = channels // self.heads
        one = self.project(nodes).view(batch, places, self.heads, size).transpose(1, 2)
        other = wanted.view(batch, self.edges, self.heads, size).permute(0, 2, 3, 1)
        return (one @ other * size**-0.5).mean(1).softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w], the same shape."""
        nodes = x.flatten(2).transpose(1, 2)
        member = self.membership(nodes)
        edges = F.gelu(self.edge(member.transpose(1, 2) @ nodes))
        given = F.gelu(self.node(member @ edges))
        return (nodes + given).transpose(1, 2).reshape(x.shape)


def hypergraph(*, width: PositiveInt = 64, edges: PositiveInt = 4, resolution: PositiveInt = 20) -> FeatureOperator:
    """The bare layer as an operator on [batch, width, resolution, resolution], beside a loop over edges.

    Raises:
        UsageError: 16 does not divide the width.
    """
    if width % 16:
        raise UsageError(f"hypergraph: heads are of 16 channels, which do not divide width={width}")
    size = (width, resolution, resolution)
    return FeatureOperator(Hypergraph(width, edges, width // 16), size, reference=_edge_by_edge, tolerance=1e-4)


def _edge_by_edge(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer as a sum over edges, scores written out."""
    assert isinstance(layer, Hypergraph)
    nodes = x.flatten(2).transpose(1, 2)
    projected = layer.project(nodes)
    size = nodes.shape[-1] // layer.heads
    offsets = layer.context(torch.cat((nodes.mean(1), nodes.amax(1)), -1)).view(len(x), layer.edges, -1)
    given = torch.zeros_like(nodes)
    for number in range(layer.edges):
        prototype = layer.prototypes[number] + offsets[:, number]
        score = (projected * prototype[:, None]).sum(-1) / (size**0.5 * layer.heads)
        member = score.exp() / score.exp().sum(1, keepdim=True)
        edge = F.gelu(layer.edge((member[..., None] * nodes).sum(1)))
        given = given + member[..., None] * edge[:, None]
    return (nodes + F.gelu(layer.node(given))).transpose(1, 2).reshape(x.shape)
