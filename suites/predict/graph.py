"""wa-hls4ml's graph surrogate: attention and messages between neighbouring layers of a network, to its cost.

Source: a repository of authors of wa-hls4ml (arXiv:2511.05615). Nodes are boundaries of layers with their numbers and
those of the whole network, to 256, ELU, dropout 0.2; GATv2 to 512 with 8 heads, averaged; messages gathered by sum and
by product, to 512; GATv2 of 16 heads whose edges hold the first attention; again sum and product; GraphNorm; nodes
pooled by sum and product, to 512; the attention of edges (18 values) to 128 to 1, summed; both to 256 to 1.

GATv2: Brody et al. 2022, arXiv:2105.14491; GraphNorm: Cai et al. 2021, arXiv:2009.03294. What the 18 values are could
not be read: here 16 of the second attention, the mean of the first, and whether an edge is a loop. A network is a chain
of at most some dozens of nodes, so that attention is dense.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suites.predict.operators import ROW_NUMBERS
from suites.predict.predictor import NETWORK_NUMBERS, Question
from suites.predict.surrogate import RowSurrogate

FIRST_HEADS, SECOND_HEADS, EDGE_WIDTH = 8, 16, 128
DROPPED = 0.2
SLOPE = 0.2


class DenseGATv2(nn.Module):
    """GATv2 on dense graphs: nodes [batch, n, inputs] to [batch, n, outputs], heads averaged, and the attention.

    e_ij = a . LeakyReLU(W_l x_j + W_r x_i + W_e edge_ij), a softmax over the neighbours j of i, and their W_l x_j.
    """

    def __init__(self, inputs: int, outputs: int, heads: int, edges: int = 0):
        super().__init__()
        self.heads, self.outputs = heads, outputs
        self.source = nn.Linear(inputs, heads * outputs)
        self.target = nn.Linear(inputs, heads * outputs)
        self.edge = nn.Linear(edges, heads * outputs, bias=False) if edges else None
        self.attention = nn.Parameter(torch.empty(heads, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.attention)

    def forward(self, x: Tensor, linked: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Nodes, and the attention [batch, target, source, heads].

        Args:
            x: nodes.
            linked: whether target i hears source j, [batch, n, n]; a node without any hears itself.
            edges: what is known of each pair, [batch, n, n, edges].
        """
        shape = (*x.shape[:2], self.heads, self.outputs)
        source, target = self.source(x).view(shape), self.target(x).view(shape)
        pairs = source.unsqueeze(1) + target.unsqueeze(2)
        if self.edge is not None and edges is not None:
            pairs = pairs + self.edge(edges).view(*pairs.shape)
        logits = (F.leaky_relu(pairs, SLOPE) * self.attention).sum(-1)
        weights = logits.masked_fill(~linked.unsqueeze(-1), -1e9).softmax(2) * linked.unsqueeze(-1)
        return torch.einsum("btsh,bshf->btf", weights, source) / self.heads + self.bias, weights


class SumProduct(nn.Module):
    """What a node hears from its neighbours as their sum and as their product, side by side, to a width."""

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, linked: Tensor) -> Tensor:
        """Nodes [batch, n, width] to the same shape."""
        heard = linked.unsqueeze(-1)
        total = linked.to(x.dtype) @ x
        product = torch.where(heard, x.unsqueeze(1), torch.ones_like(x).unsqueeze(1)).prod(2)
        return self.project(torch.cat([total, product], -1))


class GraphNorm(nn.Module):
    """Nodes less a learned share of their graph's mean, over their graph's deviation."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.share, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Nodes [batch, n, width], of which `there` [batch, n] are part of a graph."""
        mask = there.unsqueeze(-1)
        count = mask.sum(1, keepdim=True).clamp_min(1)
        moved = (x - self.share * (x * mask).sum(1, keepdim=True) / count) * mask
        deviation = (moved.pow(2).sum(1, keepdim=True) / count + self.eps).sqrt()
        return (self.weight * moved / deviation + self.bias) * mask


class GraphSurrogate(RowSurrogate):
    """Numbers of rows and of networks to costs, over the chain of boundaries between rows."""

    def __init__(self, question: Question, width: int, steps: int, rate: float, draw: int = 0):
        super().__init__(question, steps, rate, draw)
        half = max(1, width // 2)
        inputs = len(ROW_NUMBERS) + 1 + len(NETWORK_NUMBERS)
        self.enter = nn.Sequential(nn.Linear(inputs, half), nn.ELU(), nn.Dropout(DROPPED))
        self.first, self.first_heard = DenseGATv2(half, width, FIRST_HEADS), SumProduct(width)
        self.second = DenseGATv2(width, width, SECOND_HEADS, edges=FIRST_HEADS)
        self.second_heard, self.norm = SumProduct(width), GraphNorm(width)
        self.pool = nn.Linear(2 * width, width)
        edges = nn.Linear(SECOND_HEADS + 2, EDGE_WIDTH)
        self.of_edges = nn.Sequential(edges, nn.ELU(), nn.Linear(EDGE_WIDTH, 1))
        self.leave = nn.Sequential(nn.Linear(width + 1, half), nn.ELU(), nn.Linear(half, 1))

    def raw(self, *encoded: Tensor) -> Tensor:
        """See the class."""
        rows, there, whole = encoded
        nodes, there = self._nodes(rows, there, whole)
        linked = chain(there)
        x, first = self.first(self.enter(nodes), linked)
        x = self.first_heard(F.elu(x), linked)
        x, second = self.second(x, linked, first)
        x = self.norm(self.second_heard(F.elu(x), linked), there)
        mask = there.unsqueeze(-1).bool()
        pooled = torch.cat([(x * mask).sum(1), torch.where(mask, x, torch.ones_like(x)).prod(1)], -1)
        loops = torch.eye(x.shape[1], device=x.device, dtype=x.dtype).expand(x.shape[0], -1, -1).unsqueeze(-1)
        edges = self.of_edges(torch.cat([second, first.mean(-1, keepdim=True), loops], -1))
        heard = (edges.squeeze(-1) * linked).sum((1, 2)).unsqueeze(-1)
        return self.leave(torch.cat([F.elu(self.pool(pooled)), heard], -1)).squeeze(-1)

    def _nodes(self, rows: Tensor, there: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Boundaries [networks, rows + 1, numbers], the input's first, and which of them are there."""
        mask = there.unsqueeze(-1)
        own = torch.cat([torch.zeros_like(rows[:, :1]), self.rows(rows) * mask], 1)
        is_input = torch.zeros_like(own[..., :1])
        is_input[:, 0] = 1
        around = self.whole(whole).unsqueeze(1).expand(-1, own.shape[1], -1)
        return torch.cat([own, is_input, around], -1), torch.cat([torch.ones_like(there[:, :1]), there], 1)


def chain(there: Tensor) -> Tensor:
    """Which nodes hear which: themselves and their neighbours on either side, among those that are there."""
    count = there.shape[1]
    place = torch.arange(count, device=there.device)
    near = (place.unsqueeze(0) - place.unsqueeze(1)).abs() <= 1
    both = there.bool().unsqueeze(1) & there.bool().unsqueeze(2)
    return near.unsqueeze(0) & both
