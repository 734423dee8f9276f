"""FlashSVD: factored BERT layers that are streamed in tiles, beside the same factors unfused (arXiv 2508.01506).

`svd` multiplies both factors at once; `flashsvd` never builds full queries, keys, values or hidden layer
(`suites.lowrank.streaming`). Singular values are folded into U.

Counts of a layer of L tokens (`layer_values`, `layer_macs`): 3 H ra (C + d) + 2 C rw + 2 rf (C + F) values, as many
products a token, 2 L^2 C of attention. Streamed, keys and values are rebuilt once for each tile of queries:
(ceil(L / tile) - 1) 2 L H ra d products more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from bench import costs
from bench.config.settings import Blocks, PositiveInt
from suites.common.bert import BertLayer
from suites.common.cut_attention import CutAttention, CutMlp
from suites.lowrank.digits_bert import layers_of
from suites.lowrank.row_weights import row_weights
from suites.lowrank.streaming import Rows, StreamedAttention, StreamedFfn, SvdAttention, SvdFfn

#: Published rank triples (ra, rf, rw) of BERT-base by the label of the authors' repository.
PUBLISHED_RANKS = {
    "10%": (60, 480, 480), "25%": (56, 384, 384), "35%": (48, 336, 336), "50%": (40, 240, 240), "60%": (32, 192, 192),
}  # fmt: skip


def svd(
    model: nn.Module,
    *,
    ranks: Blocks = [40, 240, 240],  # noqa: B006
    factors: Literal["svd", "fwsvd", "asvd"] = "svd",
) -> nn.Module:
    """The model whose BERT layers are factored and run unfused.

    Args:
        model: has layers of suites.common.bert.
        ranks: ra of a head's queries, keys and values, rf of the network, rw of the output projection.
        factors: plain, weighted by gradients, or by sizes of activations; the last two look at data of the task.

    Raises:
        ValueError: ranks above a side of their weight, not three of them, or no data where some is needed.
    """
    head, network, out = _three(ranks)

    def change(layer: BertLayer, rows: Rows) -> None:
        attention, mlp = _parts(layer)
        layer.attn, layer.mlp = SvdAttention(attention, head, out, rows), SvdFfn(mlp, network, rows)

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
        model: has layers of suites.common.bert.
        ranks: ra of a head's queries, keys and values, rf of the network, rw of the output projection.
        query_tile: rows of a tile of queries, and of keys.
        tile: columns of a tile of the hidden layer.
        factors: plain, weighted by gradients, or by sizes of activations; the last two look at data of the task.

    Raises:
        ValueError: as of `svd`.
    """
    head, network, out = _three(ranks)

    def change(layer: BertLayer, rows: Rows) -> None:
        attention, mlp = _parts(layer)
        layer.attn = StreamedAttention(attention, head, out, rows, query_tile)
        layer.mlp = StreamedFfn(mlp, network, rows, tile)

    return _changed(model, factors, change)


def _three(ranks: list[int]) -> tuple[int, int, int]:
    if len(ranks) != 3:
        raise ValueError(f"ranks={ranks} has {len(ranks)} numbers: give ra, rf and rw, as in ranks=[40, 240, 240]")
    return ranks[0], ranks[1], ranks[2]


def _parts(layer: BertLayer) -> tuple[CutAttention, CutMlp]:
    """The plain attention and network of a layer."""
    if not isinstance(layer.attn, CutAttention) or not isinstance(layer.mlp, CutMlp):
        raise ValueError("a layer is factored already or has a part cut away: start from the plain model")
    return layer.attn, layer.mlp


def _changed(model: nn.Module, how: str, change: Callable[[BertLayer, Rows], None]) -> nn.Module:
    layers = layers_of(model)
    with costs.recorded(model) as cost:
        for layer, rows in zip(layers, row_weights(model, layers, how, cost), strict=True):
            change(layer, rows)
    model.method_cost = cost.as_dict()  # type: ignore[assignment]
    return model.eval()


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
    """Closed form of the cards: products of one sample of `bert_base` under `flashsvd` settings, pooler included."""
    shape = {"width": 768, "size": 64, "layers": 12, "length": 128, "pooler": True, **model}
    width, ranks = shape["width"], tuple(method.get("ranks", [40, 240, 240]))
    tile = method.get("query_tile", 64)
    one = layer_macs(width, 4 * width, width // shape["size"], ranks, shape["length"], tile)
    return shape["layers"] * one + (width**2 if shape["pooler"] else 0)
