"""FlashSVD: factored BERT layers that are streamed in tiles, beside the same factors unfused (arXiv 2508.01506).

Factors: queries, keys and values per head, W_h [C, d] ~ U_h [C, ra] V_h [ra, d]; output projection of rank rw, both
maps of the network of rank rf. Biases stay. `svd` multiplies both factors at once: full queries, keys and values exist,
and the whole hidden layer B L F. `flashsvd` never builds them:

- network: P = x U1 [B, L, rf]; over tiles of F, S += gelu(P V1[:, tile] + b1[tile]) U2[tile]; then S V2 + b2;
- attention: P_q, P_k, P_v = x U [B, H, L, ra]; per tile of queries, q = P_q V + b, then over tiles of keys k and v are
  rebuilt from P_k and P_v and enter a softmax with a running maximum; the tile of outputs goes through the factors of
  the output projection at once.

Counts of a layer of L tokens (`layer_values`, `layer_macs`): 3 H ra (C + d) + 2 C rw + 2 rf (C + F) values, as many
products a token, 2 L^2 C of attention. Streamed, keys and values are rebuilt once for each tile of queries:
(ceil(L / tile) - 1) 2 L H ra d products more.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import costs
from bench.config.settings import Blocks, PositiveInt
from suites.common.gpt import Ffn
from suites.common.task import learning_task
from suites.lowrank.bert import BertAttention, BertLayer
from suites.lowrank.factors import FactoredLinear, factored, factors

#: Published rank triples (ra, rf, rw) of BERT-base by the label of the authors' repository.
PUBLISHED_RANKS = {
    "10%": (60, 480, 480), "25%": (56, 384, 384), "35%": (48, 336, 336), "50%": (40, 240, 240), "60%": (32, 192, 192),
}  # fmt: skip
CALIBRATION_BATCHES = 8


class HeadFactors(nn.Module):
    """U and V of all heads of one of queries, keys and values: x U_h V_h + b_h."""

    def __init__(self, linear: nn.Linear, heads: int, rank: int, rows: Tensor | None):
        super().__init__()
        weight = linear.weight.unflatten(0, (heads, -1)).mT  # [H, C, d]
        u, v = factors(weight, rank, rows)
        self.heads, self.rank = heads, rank
        self.u = nn.Parameter(u.mT.flatten(0, 1).contiguous())  # [H ra, C]
        self.v = nn.Parameter(v.contiguous())  # [H, ra, d]
        self.bias = nn.Parameter(linear.bias.detach().unflatten(0, (heads, 1, -1)).clone())  # [H, 1, d]

    def low(self, x: Tensor) -> Tensor:
        """X U, [batch, heads, tokens, ra]."""
        return F.linear(x, self.u).unflatten(-1, (self.heads, self.rank)).transpose(1, 2)

    def full(self, low: Tensor) -> Tensor:
        """Rows of x U V + b of whichever tokens the low part is of, [batch, heads, tokens, d]."""
        return torch.matmul(low, self.v) + self.bias


class SvdAttention(nn.Module):
    """Factored attention; every query, key and value exists."""

    def __init__(self, plain: BertAttention, head_rank: int, out_rank: int, rows: dict[str, Tensor]):
        super().__init__()
        self.heads = plain.heads
        self.q, self.k, self.v = (
            HeadFactors(getattr(plain, name), plain.heads, head_rank, rows.get(name)) for name in ("q", "k", "v")
        )
        self.out = factored(plain.out, out_rank, rows.get("out"))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Attended features [batch, tokens, width]."""
        q, k, v = (part.full(part.low(x)) for part in (self.q, self.k, self.v))
        mask = None if seen is None else seen[:, None, None, :]
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class StreamedAttention(SvdAttention):
    """The same, tile by tile of queries and of keys."""

    def __init__(self, plain: BertAttention, head_rank: int, out_rank: int, rows: dict[str, Tensor], tile: int):
        super().__init__(plain, head_rank, out_rank, rows)
        self.tile = tile

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Attended features [batch, tokens, width]; zeros from a query that sees no key."""
        low_q, low_k, low_v = self.q.low(x), self.k.low(x), self.v.low(x)
        out = torch.empty_like(x)
        for start in range(0, x.shape[1], self.tile):
            end = min(start + self.tile, x.shape[1])
            attended = self._of_queries(low_q[:, :, start:end], low_k, low_v, seen)
            out[:, start:end] = self.out(attended.transpose(1, 2).flatten(2))
        return out

    def _of_queries(self, low_q: Tensor, low_k: Tensor, low_v: Tensor, seen: Tensor | None) -> Tensor:
        """Attention of one tile of queries over all tiles of keys, [batch, heads, queries, d]."""
        q = self.q.full(low_q) * self.v.v.shape[-1] ** -0.5
        top = q.new_full((*q.shape[:-1], 1), -torch.inf)
        total, mixed = torch.zeros_like(top), torch.zeros_like(q)
        for start in range(0, low_k.shape[2], self.tile):
            end = min(start + self.tile, low_k.shape[2])
            scores = q @ self.k.full(low_k[:, :, start:end]).mT
            if seen is not None:
                scores = scores.masked_fill(~seen[:, None, None, start:end], -torch.inf)
            new = torch.maximum(top, scores.amax(dim=-1, keepdim=True))
            safe = new.masked_fill(new == -torch.inf, 0.0)  # nothing seen yet: exp(-inf - 0) is 0
            weights = torch.exp(scores - safe)
            kept = torch.exp(top - safe)
            total = total * kept + weights.sum(dim=-1, keepdim=True)
            mixed = mixed * kept + weights @ self.v.full(low_v[:, :, start:end])
            top = new
        return mixed / total.clamp(min=torch.finfo(total.dtype).tiny)


class StreamedFfn(nn.Module):
    """The factored network over tiles of its hidden layer; V1's rows and U2's columns are read once."""

    def __init__(self, plain: Ffn, rank: int, rows: dict[str, Tensor], tile: int):
        super().__init__()
        self.fc1, self.fc2, self.tile = *_factored_pair(plain, rank, rows), tile

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        low = F.linear(x, self.fc1.u).flatten(0, -2)
        total = low.new_zeros(len(low), self.fc2.rank)
        hidden = self.fc1.v.shape[0]
        for start in range(0, hidden, self.tile):
            end = min(start + self.tile, hidden)
            part = F.gelu(F.linear(low, self.fc1.v[start:end], self.fc1.bias[start:end]))
            total.addmm_(part, self.fc2.u[:, start:end].mT)
            del part  # or the next tile would stand beside it
        return F.linear(total, self.fc2.v, self.fc2.bias).unflatten(0, x.shape[:-1])


def _factored_pair(plain: Ffn, rank: int, rows: dict[str, Tensor]) -> tuple[FactoredLinear, FactoredLinear]:
    first, second = plain.fc1, plain.fc2
    if not isinstance(first, nn.Linear) or not isinstance(second, nn.Linear):
        raise ValueError("the network is already factored: start from the plain model")
    return factored(first, rank, rows.get("fc1")), factored(second, rank, rows.get("fc2"))


def svd(
    model: nn.Module,
    *,
    ranks: Blocks = [40, 240, 240],  # noqa: B006
    factors: Literal["svd", "fwsvd", "asvd"] = "svd",
) -> nn.Module:
    """The model whose BERT layers are factored and run unfused.

    Args:
        model: has layers of suites.lowrank.bert.
        ranks: ra of a head's queries, keys and values, rf of the network, rw of the output projection.
        factors: plain, weighted by gradients, or by sizes of activations; the last two look at data of the task.

    Raises:
        ValueError: ranks above a side of their weight, not three of them, or no data where some is needed.
    """
    head, network, out = _three(ranks)

    def change(layer: BertLayer, rows: dict[str, Tensor]) -> None:
        layer.attention = SvdAttention(_plain(layer), head, out, rows)
        first, second = _factored_pair(_network(layer), network, rows)
        layer.network.fc1, layer.network.fc2 = first, second

    return _changed(model, factors, change)


def flashsvd(
    model: nn.Module,
    *,
    ranks: Blocks = [40, 240, 240],  # noqa: B006
    query_tile: PositiveInt = 64,
    tile: PositiveInt = 128,
    factors: Literal["svd", "fwsvd", "asvd"] = "svd",
) -> nn.Module:
    """The model whose BERT layers are factored and streamed.

    Args:
        model: has layers of suites.lowrank.bert.
        ranks: ra of a head's queries, keys and values, rf of the network, rw of the output projection.
        query_tile: rows of a tile of queries, and of keys.
        tile: columns of a tile of the hidden layer.
        factors: plain, weighted by gradients, or by sizes of activations; the last two look at data of the task.

    Raises:
        ValueError: as of `svd`.
    """
    head, network, out = _three(ranks)

    def change(layer: BertLayer, rows: dict[str, Tensor]) -> None:
        layer.attention = StreamedAttention(_plain(layer), head, out, rows, query_tile)
        layer.network = StreamedFfn(_network(layer), network, rows, tile)

    return _changed(model, factors, change)


def _three(ranks: list[int]) -> tuple[int, int, int]:
    if len(ranks) != 3:
        raise ValueError(f"ranks={ranks} has {len(ranks)} numbers: give ra, rf and rw, as in ranks=[40, 240, 240]")
    return ranks[0], ranks[1], ranks[2]


def _plain(layer: BertLayer) -> BertAttention:
    if not isinstance(layer.attention, BertAttention):
        raise ValueError("the attention is already factored: start from the plain model")
    return layer.attention


def _network(layer: BertLayer) -> Ffn:
    if not isinstance(layer.network, Ffn):
        raise ValueError("the network is already factored: start from the plain model")
    return layer.network


def _changed(model: nn.Module, how: str, change: Any) -> nn.Module:
    layers = [module for module in model.modules() if isinstance(module, BertLayer)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BERT layers: take bert_encoder or digits_bert")
    with costs.recorded(model) as cost:
        rows = _row_weights(model, layers, how, cost)
        for layer, own in zip(layers, rows, strict=True):
            change(layer, own)
    model.method_cost = cost.as_dict()  # type: ignore[assignment]
    return model.eval()


#: Weights of a layer by the name that their rows' weights stand under.
_WEIGHTS = {
    "q": "attention.q", "k": "attention.k", "v": "attention.v", "out": "attention.out",
    "fc1": "network.fc1", "fc2": "network.fc2",
}  # fmt: skip


def _row_weights(model: nn.Module, layers: list[BertLayer], how: str, cost: costs.Cost) -> list[dict[str, Tensor]]:
    """Per layer the weights of the rows of each of its matrices; empty of plain factors."""
    if how == "svd":
        return [{} for _ in layers]
    task = learning_task(model, f'factors="{how}"', 'take factors="svd", or digits_bert with task=digits')
    parts = [{name: layer.get_submodule(path) for name, path in _WEIGHTS.items()} for layer in layers]
    sums = [{name: torch.zeros(part.in_features) for name, part in own.items()} for own in parts]
    hooks = []
    if how == "asvd":
        for own, into in zip(parts, sums, strict=True):
            hooks += [part.register_forward_pre_hook(_sizes(into, name)) for name, part in own.items()]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            for inputs, labels in task.training_batches(32, CALIBRATION_BATCHES, 0):
                cost.samples += len(labels)
                model.zero_grad(set_to_none=True)
                F.cross_entropy(model(inputs), labels).backward()
                if how == "fwsvd":
                    for own, into in zip(parts, sums, strict=True):
                        for name, part in own.items():
                            into[name] += part.weight.grad.square().sum(dim=0)
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
    return [{name: value.sqrt() for name, value in own.items()} for own in sums]


def _sizes(into: dict[str, Tensor], name: str) -> Any:
    """A hook that adds up mean sizes of each input; ASVD takes their square root (its alpha = 1/2)."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        into[name] += inputs[0].detach().abs().flatten(0, -2).mean(dim=0)

    return hook


def layer_values(width: int, hidden: int, heads: int, ranks: tuple[int, int, int]) -> int:
    """Values of a factored layer without biases: 3 H ra (C + d) + 2 C rw + 2 rf (C + F)."""
    head, network, out = ranks
    return 3 * heads * head * (width + width // heads) + 2 * width * out + 2 * network * (width + hidden)


def layer_macs(
    width: int, hidden: int, heads: int, ranks: tuple[int, int, int], tokens: int, query_tile: int | None = None
) -> int:
    """Products of a factored layer; with `query_tile` streamed, keys and values rebuilt once a tile of queries."""
    again = 0 if query_tile is None else math.ceil(tokens / query_tile) - 1
    rebuilt = again * 2 * tokens * heads * ranks[0] * (width // heads)
    return tokens * layer_values(width, hidden, heads, ranks) + 2 * tokens**2 * width + rebuilt


def break_even_ranks(width: int, hidden: int, heads: int) -> tuple[float, float, float]:
    """Ranks (ra, rf, rw) below which factors are smaller than the weight: C d/(C + d), C F/(C + F), C/2."""
    size = width // heads
    return width * size / (width + size), width * hidden / (width + hidden), width / 2


def network_elements(batch: int, tokens: int, hidden: int, rank: int, tile: int | None = None) -> int:
    """Elements that the network keeps beside its input and output at its peak.

    Unfused the hidden layer and its GELU exist at once; streamed P, S and one tile with its GELU.
    """
    rows = batch * tokens
    return rows * (2 * rank + 2 * min(tile, hidden)) if tile else rows * 2 * hidden


def encoder(model: dict[str, Any], method: dict[str, Any]) -> int:
    """Closed form of the cards: products of one sample of `bert` under `flashsvd` settings."""
    shape = {"width": 768, "heads": 12, "hidden": 3072, "layers": 12, "length": 128, **model}
    ranks = tuple(method.get("ranks", [40, 240, 240]))
    one = layer_macs(
        shape["width"], shape["hidden"], shape["heads"], ranks, shape["length"], method.get("query_tile", 64)
    )
    return shape["layers"] * one
