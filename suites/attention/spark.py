"""Spark Transformer: part of the input predicts which units and keys matter (You et al. 2025, arXiv 2506.06644).

Feed-forward: u = K1^T x[:r], gate = act(topk(u)), out = V [gate * (K2^T x[r:])]; with F 1.5 times the gated width the
parameters are as many. Only units with a positive gate need K2 and V. Attention: queries and keys are split at r, each
part with rotary positions of its own; weights are softmax(topk(q1 . k1)) * softplus(q2 . k2), keys outside the best k
dropped. Statistical top-k needs no sort: with theta = mean + std x Phi^-1(1 - k / n) a number becomes max(x - theta,
0), so about k stay. Products per token: feed-forward r F + (d - r) k + d k; attention per head r n + (d_h - r) k + d_h
k with k at most n.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import Attention, Decoder, as_decoder, decoder
from suites.common.decoder_cache import Keeper, Pair, behind
from suites.common.decoder_shape import DecoderShape, LayerShape
from suites.common.initial import draw
from suites.common.rotary import Rotation, rotated

#: What an operator declares of a selection by statistics, and over how many random rows.
KEPT, KEPT_ROWS = ("kept_mean", "kept_min", "kept_max"), 64


def threshold(x: Tensor, k: int, dim: int = -1, seen: Tensor | None = None) -> Tensor:
    """Theta over `dim`, which keeps about k of Gaussian numbers; `seen` limits mean and deviation to what is there.

    Where no more than k numbers are there it is -inf.
    """
    if seen is None:
        count = torch.full_like(x.sum(dim, keepdim=True), x.shape[dim])
        there = x
    else:
        count, there = seen.sum(dim, keepdim=True).to(x.dtype), x.masked_fill(~seen, 0.0)
    mean = there.sum(dim, keepdim=True) / count.clamp(min=1)
    apart = (x - mean) if seen is None else (x - mean).masked_fill(~seen, 0.0)
    deviation = (apart.square().sum(dim, keepdim=True) / count.clamp(min=1)).sqrt()
    share = (1 - k / count).clamp(1e-9, 1 - 1e-9)
    theta = mean + deviation * torch.special.ndtri(share.double()).to(x.dtype)
    return theta.masked_fill(count <= k, -torch.inf)


def gaussian_quantile(k: int, n: int) -> float:
    """Phi^-1(1 - k / n)."""
    return NormalDist().inv_cdf(1 - k / n)


def statistical_topk(
    *,
    size: PositiveInt = 16_384,
    k: PositiveInt = 1024,
    rows: PositiveInt = 1,
    form: Literal["statistical", "topk", "sort"] = "statistical",
) -> TopK:
    """What keeps about k of `size` numbers in each of `rows` rows: by statistics, torch.topk, or a whole sort.

    Raises:
        ValueError: k above the size.
    """
    if k > size:
        raise ValueError(f"k={k} of {size} numbers: at most as many as there are")
    return TopK(size, k, rows, form).eval()


def kept_of(counts: Tensor | None) -> dict[str, float | str]:
    """Mean, least and most of the counts of rows, as an operator declares them; a reason where there are no values."""
    if counts is None:
        return dict.fromkeys(KEPT, "which numbers stay is found by their values, which meta tensors have none of")
    found = counts.double()
    return dict(zip(KEPT, (float(found.mean()), float(found.min()), float(found.max())), strict=True))


class TopK(nn.Module):
    """The operator; kept numbers are soft-thresholded, max(x - theta, 0), theta the first one dropped.

    Where all are kept none is dropped: the numbers stay as they are.
    """

    tolerance = 1e-5
    like: Tensor

    def __init__(self, size: int, k: int, rows: int, form: str):
        super().__init__()
        self.size, self.k, self.rows, self.form = size, k, rows, form
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random rows."""
        return (torch.randn(batch, self.rows, self.size).to(self.like),)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers above the threshold, less the threshold."""
        return x.clone() if self.k == self.size else F.relu(x - self._theta(x))

    def declares(self, x: Tensor) -> dict[str, float | str]:
        """How many of a row's Gaussian numbers stay, over random rows."""
        if x.is_meta:
            return kept_of(None)
        rows = torch.randn(KEPT_ROWS, self.size, generator=torch.Generator().manual_seed(0))
        return kept_of((self(rows) != 0).sum(dim=-1))

    def _theta(self, x: Tensor) -> Tensor:
        if self.form == "statistical":
            return threshold(x, self.k)
        if self.form == "topk":
            return x.topk(self.k + 1, dim=-1).values[..., -1:]
        return x.sort(dim=-1, descending=True).values[..., self.k : self.k + 1]

    def reference(self, x: Tensor) -> Tensor:
        """The same row by row with statistics in fp64, or with a sort."""
        if self.k == self.size:
            return x.clone()
        out = []
        for row in x.reshape(-1, self.size):
            exact = row.double()
            if self.form == "statistical":
                theta = exact.mean() + exact.std(correction=0) * gaussian_quantile(self.k, self.size)
            else:
                theta = exact.sort(descending=True).values[self.k]
            out.append((exact - theta).clamp(min=0))
        return torch.stack(out).reshape(x.shape).to(x.dtype)


class SparkFFN(nn.Module):
    """The feed-forward network with predicted units; `gathered` reads only live columns for a single token.

    `kept` holds the numbers of live units of the last forward's tokens.
    """

    def __init__(self, width: int, hidden: int, split: int, k: int, form: str):
        super().__init__()
        self.split, self.k, self.form = split, k, form
        self.predict = nn.Parameter(torch.empty(hidden, split))
        self.up = nn.Parameter(torch.empty(hidden, width - split))
        self.down = nn.Parameter(torch.empty(hidden, width))  # one row per unit, so that live ones are contiguous
        for weight in (self.predict, self.up, self.down):
            draw(weight)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        u = F.linear(x[..., : self.split], self.predict)
        gate = F.gelu(F.relu(u - threshold(u, self.k))) if self.k < u.shape[-1] else F.gelu(u)
        if self.form == "gathered" and x.shape[:-1].numel() == 1 and not x.is_meta:
            return self._gathered(x, gate)
        self.kept = (gate != 0).sum(dim=-1)
        return (gate * F.linear(x[..., self.split :], self.up)) @ self.down

    def _gathered(self, x: Tensor, gate: Tensor) -> Tensor:
        live = gate.reshape(-1).nonzero().flatten()
        self.kept = torch.tensor([len(live)])
        units = gate[..., live] * F.linear(x[..., self.split :], self.up[live])
        return units @ self.down[live]


class SparkAttention(Attention):
    """Attention whose queries and keys are turned half by half."""

    def placed_queries(self, q: Tensor, by: Rotation) -> Tensor:
        """Queries after their norm, each half rotated."""
        return rotated_apart(q if self.q_norm is None else self.q_norm(q), by)

    def placed_keys(self, k: Tensor, by: Rotation) -> Tensor:
        """Keys after their norm, each half rotated."""
        return rotated_apart(k if self.k_norm is None else self.k_norm(k), by)


def rotated_apart(x: Tensor, by: Rotation) -> Tensor:
    """X [..., tokens, size] in two halves, each turned as a head of half the size is; the size is a multiple of 4.

    Every second angle of the whole is one of the half: base^(-2 (2 i) / size) = base^(-2 i / (size / 2)).
    """
    half = x.shape[-1] // 2
    cos, sin = (torch.cat([part[..., :half:2]] * 2, dim=-1) for part in by)
    return torch.cat([rotated(part, (cos, sin)) for part in x.chunk(2, dim=-1)], dim=-1)


def turned_apart(plain: Attention, shape: DecoderShape, layer: LayerShape) -> SparkAttention:
    """The attention with its maps and cache, whose halves have positions of their own."""
    with torch.device("meta"):  # every map is replaced
        own = SparkAttention(shape.width, layer, shape.qkv_bias, shape.qk_norm)
    for name, part in plain.named_children():
        setattr(own, name, part)
    return own


class SparkKeeper(Keeper):
    """Attention in which the first part of queries and keys picks the keys, and the second weighs them.

    A query whose scores all lie at or below the threshold, as equal ones do, keeps none: it gets zeros.
    In `gathered` form a single query reads the second part and the values of its live keys alone.
    """

    def __init__(self, split: int, k: int, form: str):
        super().__init__()
        self.split, self.k, self.form = split, k, form

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of a whole sequence."""
        return self._masked(q, k, v, behind(q.shape[2], k.shape[2], q.device))

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Pair) -> tuple[Tensor, Pair]:
        """Attention of tokens that follow."""
        kept = kept.extended(k, v, self.room)
        keys, values = kept.k.filled, kept.v.filled
        if self.form == "gathered" and q.shape[0] == q.shape[2] == 1 and not q.is_meta:
            return self._gathered(q, keys, values), kept
        return self._masked(q, keys, values, behind(q.shape[2], kept.used, q.device)), kept

    def _picked(self, q: Tensor, k: Tensor, seen: Tensor | None) -> Tensor:
        """Softmax over the live keys by the first part."""
        scores = q[..., : self.split] @ k[..., : self.split].transpose(-2, -1)
        if seen is not None:
            seen = seen.expand_as(scores)
        theta = threshold(scores, self.k, seen=seen)
        dropped = scores <= theta if seen is None else (scores <= theta) | ~seen
        weights = (scores * self.split**-0.5).masked_fill(dropped, -torch.inf).softmax(dim=-1)
        return weights.masked_fill(dropped, 0.0)  # where none is left the softmax is of nothing

    def _masked(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
        rest = q[..., self.split :] @ k[..., self.split :].transpose(-2, -1)
        return (self._picked(q, k, seen) * F.softplus(rest * (q.shape[-1] - self.split) ** -0.5)) @ v

    def _gathered(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        share = q.shape[1] // k.shape[1]
        first = k[..., : self.split].repeat_interleave(share, dim=1)
        weights = self._picked(q[..., : self.split], first, None)
        out = []
        for head in range(q.shape[1]):
            live = weights[0, head, 0].nonzero().flatten()
            rows, values = k[0, head // share, live, self.split :], v[0, head // share, live]
            rest = F.softplus(rows @ q[0, head, 0, self.split :] * (q.shape[-1] - self.split) ** -0.5)
            out.append((weights[0, head, 0, live] * rest) @ values)
        return torch.stack(out)[None, :, None]


def spark(
    model: nn.Module,
    *,
    ffn: bool = True,
    attention: bool = True,
    units: PositiveInt = 61,
    keys: PositiveInt = 256,
    form: Literal["gathered", "masked"] = "gathered",
) -> Decoder:
    """The decoder with Spark's feed-forward, attention, or both, at equal parameters; new parts are random.

    Args:
        model: a decoder with a plain cache.
        ffn: replaces the gated network by one of 1.5 times its width.
        attention: splits queries and keys in half.
        units: about how many units stay (8 % of 768 for byte_3m).
        keys: about how many keys stay.
        form: gathered reads live rows for a single token of a single sequence; masked multiplies by zeros.

    Raises:
        ValueError: not such a model, more units than there are, or heads whose halves have no pairs to rotate.
    """
    plain = as_decoder(model, "spark")
    width = plain.shape.width
    if attention and any(layer.head % 4 for layer in plain.shape.layers):
        sizes = sorted({layer.head for layer in plain.shape.layers})
        raise ValueError(f"spark cuts heads in halves that are rotated in pairs: heads of {sizes} are no multiple of 4")
    for block, layer in zip(plain.blocks, plain.shape.layers, strict=True):
        if ffn:
            hidden = layer.hidden * 3 // 2
            if units > hidden:
                raise ValueError(f"units={units}: the network has {hidden}")
            block.network = SparkFFN(width, hidden, width // 2, units, form).to(block.norm1.weight)
        if attention:
            block.attention = turned_apart(block.attention, plain.shape, layer)
            block.attention.keeper = SparkKeeper(layer.head // 2, keys, form)
    return plain.eval()


def spark_decoder(
    *,
    width: PositiveInt = 192,
    layers: PositiveInt = 6,
    heads: PositiveInt = 6,
    hidden: PositiveInt = 512,
    ffn: bool = True,
    attention: bool = True,
    units: PositiveInt = 61,
    keys: PositiveInt = 64,
    form: Literal["gathered", "masked"] = "gathered",
) -> Decoder:
    """A byte decoder with Spark's parts from the start, so that a task trains it; the defaults are byte_3m's sizes.

    Args:
        width: features per token.
        layers: number of blocks.
        heads: query and key heads, of a multiple of 4 numbers each.
        hidden: width of the gated network in whose place Spark's is.
        ffn: as of `spark`.
        attention: as of `spark`.
        units: as of `spark`.
        keys: as of `spark`.
        form: as of `spark`.

    Raises:
        ValueError: the numbers do not fit together.
    """
    made = decoder(width=width, layers=layers, heads=heads, hidden=hidden)
    return spark(made, ffn=ffn, attention=attention, units=units, keys=keys, form=form)


def ffn_macs(width: int, hidden: int, split: int, k: int) -> int:
    """Products of one token: r F + (d - r) k + d k."""
    return split * hidden + (width - split) * k + width * k


def attention_macs(keys: int, heads: int, size: int, split: int, k: int = 256) -> int:
    """Products of one query's scores and values: per head r n + (d_h - r) k + d_h k, k at most n."""
    live = min(k, keys)
    return heads * (split * keys + (size - split) * live + size * live)
