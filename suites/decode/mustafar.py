"""Mustafar: keys and values pruned by magnitude, kept as bitmaps and non-zeros (Joo et al. 2025, arXiv 2505.22913).

Of the D numbers of one token and head those below the int(s D)-th smallest magnitude become zero: D - int(s D) + 1
stay. The newest 32 tokens are dense and older ones are compressed 256 at a time, so 32 to 287 tokens are dense and
short contexts are not compressed at all. A tile of 64 numbers (keys: 64 tokens of one channel; values: 64 channels of
one token) holds a 64-bit bitmap, a 4-byte offset and its non-zeros, padded to 8. A head under 64 numbers makes the
value tile; its bitmap then has that many bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt, Rate
from suites.common.decoder import Decoder, as_decoder
from suites.common.decoder_cache import Kept
from suites.decode.compressed import CompressingKeeper, concatenated

TILE = 64
PAD = 8


def mustafar(
    model: nn.Module,
    *,
    sparsity: Rate = 0.5,
    form: Literal["bitmap", "masked", "csr"] = "bitmap",
    residual: PositiveInt = 32,
    chunk: PositiveInt = 256,
) -> Decoder:
    """The decoder that keeps only the largest numbers of older keys and values.

    Args:
        model: a decoder with a plain cache.
        sparsity: s; of D numbers int(s D) - 1 go.
        form: bitmap (tiles are unpacked, then multiplied), csr (sparse products), masked (dense products on zeros:
            saves nothing).
        residual: newest tokens that stay dense.
        chunk: tokens compressed at once, a multiple of 64.

    Raises:
        ValueError: not such a model, or a chunk that does not fill tiles.
    """
    decoder = as_decoder(model, "mustafar")
    head = decoder.shape.layers[0].head
    if chunk % TILE:
        raise ValueError(f"chunk={chunk} does not fill tiles of {TILE} tokens: take a multiple, such as {TILE}")
    if head % min(TILE, head) or min(TILE, head) % PAD:
        raise ValueError(f"a head of {head} numbers does not fill tiles: mustafar needs 8, 16, 32 or a multiple of 64")
    for block in decoder.blocks:
        block.attention.keeper = PruningKeeper(head, sparsity, form, residual, chunk)
    return decoder


def survivors(size: int, sparsity: float) -> int:
    """How many of `size` distinct numbers stay: size - int(s size) + 1, all of them where int(s size) is 0."""
    rank = int(sparsity * size)
    return size if rank == 0 else size - rank + 1


def pruned(x: Tensor, sparsity: float) -> Tensor:
    """X with what is below the int(s D)-th smallest magnitude of its last dimension set to zero."""
    rank = int(sparsity * x.shape[-1])
    if rank <= 1:
        return x
    threshold = x.abs().kthvalue(rank, dim=-1, keepdim=True).values
    return torch.where(x.abs() >= threshold, x, torch.zeros_like(x))


@dataclass(frozen=True)
class Bitmap(Kept):
    """Tiles of a tensor [batch, heads, tokens, size].

    Attributes:
        bits: one byte per 8 numbers, [batch, heads, tokens or groups, tiles, tile / 8].
        offsets: where each tile's non-zeros begin in `values`, in units of 8, int32.
        values: all non-zeros, each tile padded to a multiple of 8.
    """

    bits: Tensor
    offsets: Tensor
    values: Tensor


_WEIGHTS = (1, 2, 4, 8, 16, 32, 64, 128)


def compressed(tiles: Tensor) -> Bitmap:
    """The bitmap form of tiles [..., tile], zeros left out."""
    there = tiles != 0
    weights = torch.tensor(_WEIGHTS, dtype=torch.int32, device=tiles.device)
    bits = (there.unflatten(-1, (-1, PAD)).to(torch.int32) * weights).sum(dim=-1).to(torch.uint8)
    units = (there.sum(dim=-1) + PAD - 1) // PAD
    ends = units.flatten().cumsum(0)
    offsets = (ends - units.flatten()).reshape(units.shape)
    values = tiles.new_zeros(int(ends[-1]) * PAD)
    places = offsets[..., None] * PAD + there.cumsum(dim=-1) - 1
    values[places[there]] = tiles[there]
    return Bitmap(bits, offsets.to(torch.int32), values)


def dense_tiles(form: Bitmap) -> Tensor:
    """The tiles [..., tile] that a bitmap form stands for."""
    weights = torch.tensor(_WEIGHTS, dtype=torch.uint8, device=form.bits.device)
    there = ((form.bits[..., None] & weights) != 0).flatten(-2)
    places = form.offsets.long()[..., None] * PAD + there.cumsum(dim=-1) - 1
    tiles = form.values.new_zeros(there.shape)
    tiles[there] = form.values[places[there]]
    return tiles


@dataclass(frozen=True)
class Pruned(Kept):
    """Keys and values in bitmap form; in csr form one matrix per sample and head; in masked form dense."""

    k: Bitmap | Tensor | tuple[Tensor, Tensor, Tensor]
    v: Bitmap | Tensor | tuple[Tensor, Tensor, Tensor]


class PruningKeeper(CompressingKeeper):
    """Prunes and compresses whole chunks of tokens."""

    def __init__(self, head: int, sparsity: float, form: str, residual: int, chunk: int):
        super().__init__(residual, chunk)
        self.head, self.sparsity, self.form = head, sparsity, form
        self.tile = min(TILE, head)

    def measured(self, packed: Pruned, numbers: int, bits: float) -> Pruned:
        """The packed chunk; its bits are what `cache_bits` tells, since non-zeros per tile depend on the data."""
        self.nominal_bits = bits * survivors(self.head, self.sparsity) / self.head
        self.stored_bits = 8.0 * packed.bytes / numbers
        return packed

    def pack(self, k: Tensor, v: Tensor, old: Pruned | None = None) -> Pruned:
        """The compressed form of whole chunks."""
        found = self._form(pruned(k, self.sparsity), pruned(v, self.sparsity))
        return self.measured(found, k.numel() + v.numel(), 8.0 * k.element_size())

    def _form(self, k: Tensor, v: Tensor) -> Pruned:
        if self.form == "masked":
            return Pruned(k.contiguous(), v.contiguous())
        if self.form == "csr":
            return Pruned(_csr(k), _csr(v))
        keys = k.transpose(2, 3).unflatten(3, (-1, TILE)).transpose(2, 3)  # [batch, heads, groups, channels, 64 tokens]
        return Pruned(compressed(keys), compressed(v.unflatten(3, (-1, self.tile))))

    def unpack(self, old: Pruned, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values, dense."""
        if isinstance(old.k, Tensor) and isinstance(old.v, Tensor):
            return old.k, old.v
        if isinstance(old.k, tuple) and isinstance(old.v, tuple):
            return _from_csr(old.k, self.head), _from_csr(old.v, self.head)
        assert isinstance(old.k, Bitmap) and isinstance(old.v, Bitmap)
        keys = dense_tiles(old.k).transpose(3, 4).flatten(2, 3)
        return keys, dense_tiles(old.v).flatten(3)

    def join(self, first: Pruned, second: Pruned) -> Pruned:
        """One after the other; offsets of the second move behind the values of the first."""
        return Pruned(_joined(first.k, second.k), _joined(first.v, second.v))

    def scores(self, q: Tensor, old: Pruned) -> Tensor:
        """Q k^T; in csr form a sparse product per sample and head."""
        if not isinstance(old.k, tuple):
            return super().scores(q, old)
        batch, heads, count, size = q.shape
        groups = old.k[0].shape[1]
        folded = q.reshape(batch, groups, -1, size)
        rows = [
            torch.stack([_matrix(old.k, b, g, size) @ folded[b, g].t() for g in range(groups)]) for b in range(batch)
        ]
        return torch.stack(rows).transpose(-2, -1).reshape(batch, heads, count, -1)

    def mix(self, weights: Tensor, old: Pruned) -> Tensor:
        """Weights x values; in csr form a sparse product per sample and head."""
        if not isinstance(old.v, tuple):
            return super().mix(weights, old)
        batch, heads, count, keys = weights.shape
        groups = old.v[0].shape[1]
        folded = weights.reshape(batch, groups, -1, keys)
        rows = [
            torch.stack([_matrix(old.v, b, g, self.head).t() @ folded[b, g].t() for g in range(groups)])
            for b in range(batch)
        ]
        return torch.stack(rows).transpose(-2, -1).reshape(batch, heads, count, self.head)


def _csr(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row ends [batch, heads, tokens + 1], columns and values [batch, heads, tokens x kept]; rows keep equally."""
    kept = int((x != 0).sum(dim=-1).max())
    columns = (x != 0).to(torch.uint8).topk(kept, dim=-1, sorted=False).indices.sort(dim=-1).values
    values = x.gather(3, columns)
    ends = torch.arange(0, (x.shape[2] + 1) * kept, kept, dtype=torch.int32, device=x.device)
    return ends.expand(*x.shape[:2], -1).contiguous(), columns.flatten(2).to(torch.int32), values.flatten(2)


def _from_csr(parts: tuple[Tensor, Tensor, Tensor], size: int) -> Tensor:
    ends, columns, values = parts
    kept = int(ends[0, 0, 1])
    rows = values.unflatten(2, (-1, kept))
    return values.new_zeros(*rows.shape[:3], size).scatter(3, columns.long().unflatten(2, (-1, kept)), rows)


def _matrix(parts: tuple[Tensor, Tensor, Tensor], sample: int, head: int, size: int) -> Tensor:
    ends, columns, values = (part[sample, head] for part in parts)
    return torch.sparse_csr_tensor(ends, columns, values, size=(len(ends) - 1, size), check_invariants=False)


def _joined(first: object, second: object) -> Bitmap | Tensor | tuple[Tensor, Tensor, Tensor]:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second], dim=2)
    if isinstance(first, tuple) and isinstance(second, tuple):
        ends = torch.cat([first[0], second[0][:, :, 1:] + first[0][:, :, -1:]], dim=2)
        return ends, torch.cat([first[1], second[1]], dim=2), torch.cat([first[2], second[2]], dim=2)
    assert isinstance(first, Bitmap) and isinstance(second, Bitmap)
    moved = Bitmap(second.bits, second.offsets + len(first.values) // PAD, second.values)
    return concatenated(first, moved, {"bits": 2, "offsets": 2, "values": 0})


def value_bytes_per_token(size: int, kept: int, bytes_per_number: int = 2, tile: int = TILE) -> tuple[int, int]:
    """Least and most bytes of a token's value in bitmap form, over all ways to split `kept` among its tiles."""
    tiles = size // tile
    per_tile = tile // 8 + 4
    least = -(-kept // PAD) * PAD
    most = min(size, (kept + tiles * (PAD - 1)) // PAD * PAD)
    return tiles * per_tile + least * bytes_per_number, tiles * per_tile + most * bytes_per_number
