"""MILLION: keys and values as codes of a product quantiser, multiplied by look-up (Wang et al. 2025, arXiv 2504.03661).

A head's D numbers are cut into M parts; k-means gives each part 2^bits centroids, one codebook for keys and one for
values over all heads and layers. A step makes a table of the query with all centroids (2^bits D products per query
head) and scores a key by M look-ups; weights are summed by code before the one product with the values' centroids. Up
to 128 newest tokens stay plain and are encoded when the 129th arrives. The prompt is attended exactly. Encoding costs
2^bits D products a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.decoder import Decoder, as_decoder
from suites.common.decoder_cache import Kept
from suites.decode.bits import packed, unpacked
from suites.decode.calibration import calibration_ids
from suites.decode.compressed import CompressingKeeper, concatenated

#: Distances held at once.
BLOCK = 1 << 22


def million(
    model: nn.Module,
    *,
    parts: PositiveInt = 16,
    bits: PositiveInt = 8,
    residual: PositiveInt = 128,
    calibration_tokens: PositiveInt = 2048,
    iterations: Count = 8,
    seed: Count = 0,
) -> Decoder:
    """The decoder with a cache of codes.

    Args:
        model: a decoder with a plain cache.
        parts: M, a divisor of the head.
        bits: of one code: 1, 2, 4, 8 or 12.
        residual: newest tokens that stay plain.
        calibration_tokens: that k-means sees; text of the task that the model was loaded by, else random ids.
        iterations: of k-means.
        seed: of the first centroids and of random ids.

    Raises:
        ValueError: not such a model, or parts and bits that do not fit.
    """
    decoder = as_decoder(model, "million")
    head = decoder.shape.layers[0].head
    if head % parts:
        raise ValueError(f"parts={parts} does not divide a head of {head} numbers")
    if bits not in (1, 2, 4, 8, 12) or parts * bits % 8:
        raise ValueError(f"{parts} codes of {bits} bits do not fill bytes: bits must be 1, 2, 4, 8 or 12")
    if decoder.embed.weight.is_meta:
        books = [torch.empty(parts, 2**bits, head // parts, device="meta")] * 2
    else:
        books = learned_books(decoder, parts, bits, calibration_tokens, iterations, seed)
    shared = Codebooks(*books)
    for block in decoder.blocks:
        block.attention.keeper = CodeKeeper(shared, bits, residual)
    return decoder


def learned_books(decoder: Decoder, parts: int, bits: int, tokens: int, iterations: int, seed: int) -> list[Tensor]:
    """Codebooks [parts, 2^bits, size] of keys and of values over all heads and layers."""
    ids = calibration_ids(decoder, tokens, seed)
    with torch.no_grad():
        _, cache = decoder.prefill(ids)
    books = []
    for name in ("k", "v"):
        rows = torch.cat([getattr(kept, name).filled.flatten(0, 2) for kept in cache.kept])
        cut = rows.unflatten(1, (parts, -1))
        found = [centroids(cut[:, m], 2**bits, iterations, seed) for m in range(parts)]
        books.append(torch.stack(found))
    return books


def centroids(vectors: Tensor, count: int, iterations: int, seed: int = 0) -> Tensor:
    """`count` means of vectors [rows, size] by Lloyd's algorithm from distinct starting rows, [count, size].

    At most 256 rows per centroid are used. Where there are no more distinct vectors than centroids these are the
    vectors.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(vectors), generator=generator)[: 256 * count].to(vectors.device)
    sample = vectors[chosen]
    distinct = sample.unique(dim=0)
    if len(distinct) <= count:
        return torch.cat([distinct, distinct[-1:].expand(count - len(distinct), -1)])
    start = torch.randperm(len(distinct), generator=generator)[:count].to(vectors.device)
    means = distinct[start]
    for _ in range(iterations):
        owner = nearest(sample, means)
        sums = torch.zeros_like(means).index_add_(0, owner, sample)
        sizes = torch.bincount(owner, minlength=count)[:, None]
        means = torch.where(sizes > 0, sums / sizes.clamp(min=1), means)
    return means


def nearest(vectors: Tensor, means: Tensor) -> Tensor:
    """The number of the nearest mean of each vector, [rows]; distances are held a block at a time."""
    squares = (means * means).sum(dim=1)
    block = max(1, BLOCK // len(means))
    block = len(vectors) if vectors.is_meta else block  # shapes take no memory
    return torch.cat([(squares - 2 * rows @ means.t()).argmin(dim=1) for rows in vectors.split(block)])


class Codebooks(nn.Module):
    """Centroids of keys and of values, [parts, 2^bits, size]; the method's own bytes, held once."""

    charged_to = "method"
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.register_buffer("keys", keys)
        self.register_buffer("values", values)


@dataclass(frozen=True)
class Codes(Kept):
    """Packed codes of keys and values, [batch, heads, tokens, parts bits / 8]."""

    k: Tensor
    v: Tensor


class CodeKeeper(CompressingKeeper):
    """Encodes full chunks; multiplies by tables of the query and sums of weights."""

    def __init__(self, books: Codebooks, bits: int, residual: int):
        super().__init__(residual=1, chunk=residual)
        self.books, self.bits = books, bits
        parts, _, size = books.keys.shape
        self.nominal_bits = self.stored_bits = bits / size
        self.parts = parts

    def pack(self, k: Tensor, v: Tensor, old: Codes | None = None) -> Codes:
        """Codes of the nearest centroids."""
        return Codes(self._encoded(k, self.books.keys), self._encoded(v, self.books.values))

    def unpack(self, old: Codes, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values put together from their centroids."""
        return self._decoded(old.k, self.books.keys), self._decoded(old.v, self.books.values)

    def join(self, first: Codes, second: Codes) -> Codes:
        """One after the other."""
        return concatenated(first, second, {"k": 2, "v": 2})

    def scores(self, q: Tensor, old: Codes) -> Tensor:
        """Sums of M look-ups in the table query x centroids."""
        batch, heads, count, _ = q.shape
        codes = unpacked(old.k, self.bits)  # [batch, groups, tokens, parts]
        groups, tokens = codes.shape[1:3]
        cut = q.reshape(batch, groups, -1, self.parts, q.shape[3] // self.parts)
        table = torch.einsum("bgnms,mcs->bgnmc", cut, self.books.keys)
        index = codes.transpose(2, 3)[:, :, None].expand(-1, -1, cut.shape[2], -1, -1)
        return table.gather(4, index).sum(dim=3).reshape(batch, heads, count, tokens)

    def mix(self, weights: Tensor, old: Codes) -> Tensor:
        """Weights summed by code, then one product with the centroids."""
        batch, heads, count, tokens = weights.shape
        codes = unpacked(old.v, self.bits)
        groups = codes.shape[1]
        folded = weights.reshape(batch, groups, -1, 1, tokens).expand(-1, -1, -1, self.parts, -1)
        index = codes.transpose(2, 3)[:, :, None].expand(-1, -1, folded.shape[2], -1, -1)
        sums = weights.new_zeros(*folded.shape[:4], self.books.values.shape[1]).scatter_add(4, index, folded)
        mixed = torch.einsum("bgnmc,mcs->bgnms", sums, self.books.values)
        return mixed.reshape(batch, heads, count, -1)

    def _encoded(self, x: Tensor, book: Tensor) -> Tensor:
        cut = x.unflatten(3, (self.parts, -1))
        codes = [nearest(cut[..., m, :].flatten(0, 2), book[m]) for m in range(self.parts)]
        return packed(torch.stack(codes, dim=-1).reshape(*x.shape[:3], self.parts), self.bits)

    def _decoded(self, codes: Tensor, book: Tensor) -> Tensor:
        numbers = unpacked(codes, self.bits)
        return torch.cat([book[m][numbers[..., m]] for m in range(self.parts)], dim=-1)


def cache_bytes(
    tokens: int, layers: int, kv_heads: int, head: int, *, parts: int, bits: int, residual: int = 128, number: int = 2
) -> dict[str, int]:
    """Bytes of one sequence's codes, plain tokens and codebooks by closed form."""
    plain = (tokens - 1) % residual + 1 if tokens else 0
    pairs = 2 * layers * kv_heads
    return {
        "codes": (tokens - plain) * pairs * parts * bits // 8,
        "residual": plain * pairs * head * number,
        "codebooks": 2 * 2**bits * head * number,
    }
