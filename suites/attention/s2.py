"""S2-Attention: each head sees a local band and its own stripe of blocks (Lin et al. 2024, arXiv 2407.17678).

With blocks of b tokens, head h looks from block row i at block column j <= i if i - j < local, or if
(j + h step + 1) mod stride = 0 with step = max(1, stride // heads), 0 where heads are homogeneous. On the diagonal
block it is causal. Stripes stand at absolute positions, so a key that has left the band and is on no stripe is never
read again: the cache keeps local blocks and stripes. With at least `stride` heads the union over heads is the whole
lower triangle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.attention.operator import AttentionOperator, masked_attention
from suites.common.decoder import Decoder, as_decoder
from suites.common.decoder_cache import Keeper, Kept


def head_step(heads: int, stride: int, homogeneous: bool = False) -> int:
    """By how many blocks the stripes of a head lie before those of the one above it."""
    return 0 if homogeneous else max(1, stride // heads)


def block_mask(heads: int, blocks: int, local: int, stride: int, homogeneous: bool = False) -> Tensor:
    """Which block columns each head sees from each block row, [heads, blocks, blocks]."""
    step = head_step(heads, stride, homogeneous)
    head = torch.arange(heads)[:, None, None]
    row, column = torch.arange(blocks)[None, :, None], torch.arange(blocks)[None, None, :]
    stripe = (column + head * step + 1) % stride == 0
    return (column <= row) & ((row - column < local) | stripe)


def token_mask(blocks: Tensor, block: int, tokens: int) -> Tensor:
    """The same by tokens, causal, [heads, tokens, tokens]."""
    wide = blocks.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :tokens, :tokens]
    return wide & torch.ones(tokens, tokens, dtype=torch.bool, device=blocks.device).tril()


def s2_attention(
    *,
    length: PositiveInt = 2048,
    heads: PositiveInt = 8,
    width: PositiveInt = 64,
    block: PositiveInt = 64,
    local: PositiveInt = 4,
    stride: PositiveInt = 4,
    homogeneous: bool = False,
    form: Literal["blocks", "masked", "flex"] = "blocks",
) -> S2Attention:
    """The operator.

    Args:
        length: N.
        heads: attention heads.
        width: numbers per head.
        block: tokens of a block.
        local: blocks of the band, the diagonal one included.
        stride: distance of the stripes in blocks.
        homogeneous: whether all heads have the same stripes.
        form: blocks gathers the visible blocks of each row and skips the others; masked executes the square; flex gives
            torch's flex_attention a mask.
    """
    return S2Attention(heads, length, width, block, local, stride, homogeneous, form).eval()


class S2Attention(AttentionOperator):
    """The operator in one of its forms."""

    visible: Tensor

    def __init__(
        self, heads: int, tokens: int, size: int, block: int, local: int, stride: int, homogeneous: bool, form: str
    ):
        super().__init__(heads, tokens, size)
        self.block, self.form, self.blocks = block, form, -(-tokens // block)
        with torch.device("cpu"):
            visible = block_mask(heads, self.blocks, local, stride, homogeneous)
            self.block_pairs, self.token_pairs = pairs(visible, block, tokens)
        self.rows = [[row.nonzero().flatten().tolist() for row in head] for head in visible]
        self.register_buffer("visible", visible, persistent=False)

    def seen(self) -> Tensor:
        """Which keys each head's queries see, [heads, tokens, tokens]."""
        return token_mask(self.visible, self.block, self.tokens)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What is attended."""
        if self.form == "blocks":
            return self._blocks(q, k, v)
        if self.form == "masked":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.seen())
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        seen = self.seen()
        mask: Any = create_block_mask(
            lambda b, h, i, j: seen[h, i, j], None, self.heads, self.tokens, self.tokens, device=q.device.type
        )
        return flex_attention(q, k, v, block_mask=mask)

    def reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All scores written out and masked."""
        return masked_attention(q, k, v, self.seen())

    def _blocks(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Row of blocks by row of blocks; heads that see equally many blocks are one product."""
        out = torch.empty_like(q)
        for row in range(self.blocks):
            first, last = row * self.block, min(self.tokens, (row + 1) * self.block)
            by_count: dict[int, list[int]] = {}
            for head in range(self.heads):
                by_count.setdefault(len(self.rows[head][row]), []).append(head)
            for members in by_count.values():
                columns = torch.tensor([self.rows[head][row] for head in members], device=q.device)
                places = (columns[..., None] * self.block + torch.arange(self.block, device=q.device)).flatten(1)
                places = places[
                    :, : places.shape[1] - (self.blocks * self.block - self.tokens if last == self.tokens else 0)
                ]
                heads = torch.tensor(members, device=q.device)
                keys, values = k[:, heads[:, None], places], v[:, heads[:, None], places]
                mask = places[:, None, :] <= torch.arange(first, last, device=q.device)[None, :, None]
                rows = F.scaled_dot_product_attention(q[:, heads, first:last], keys, values, attn_mask=mask)
                out[:, heads, first:last] = rows
        return out

    @property
    def required_macs(self) -> int:
        """Products of the allowed token pairs."""
        return 2 * self.token_pairs * self.size

    @property
    def macs_nonzero(self) -> int:
        """The same by the name that a record has."""
        return self.required_macs

    @property
    def macs_dense(self) -> int:
        """Products of the whole square."""
        return 2 * self.heads * self.tokens**2 * self.size

    @property
    def executed_macs(self) -> int:
        """Products of the whole blocks that the form `blocks` multiplies; the other forms multiply the square."""
        if self.form != "blocks":
            return self.macs_dense
        last = self.tokens - (self.blocks - 1) * self.block
        width = [self.block] * (self.blocks - 1) + [last]
        total = sum(width[row] * width[c] for head in self.rows for row, columns in enumerate(head) for c in columns)
        return 2 * total * self.size


def pairs(visible: Tensor, block: int, tokens: int) -> tuple[int, int]:
    """Visible block pairs and token pairs over all heads."""
    blocks = int(visible.sum())
    row = torch.arange(tokens)
    inside = row % block + 1  # keys of the diagonal block
    whole = visible.clone()
    whole.diagonal(dim1=1, dim2=2).fill_(False)
    diagonal = visible.diagonal(dim1=1, dim2=2).sum(dim=0)
    per_row = whole.sum(dim=(0, 2)) * block
    return blocks, int((per_row[row // block] + diagonal[row // block] * inside).sum())


def s2_decoder(
    model: nn.Module,
    *,
    block: PositiveInt = 64,
    local: PositiveInt = 4,
    stride: PositiveInt = 4,
    homogeneous: bool = False,
    dense_layers: Literal["none", "first", "alternate"] = "none",
) -> Decoder:
    """The decoder whose heads see bands and stripes, and whose cache drops what no head will read again.

    Args:
        model: a decoder with a plain cache and as many key as query heads.
        block: tokens of a block.
        local: blocks of the band.
        stride: distance of the stripes in blocks.
        homogeneous: whether all heads have the same stripes.
        dense_layers: layers that stay dense: none, the first, or every second one from the first.

    Raises:
        ValueError: not such a model.
    """
    decoder = as_decoder(model, "s2_decoder")
    if any(layer.heads != layer.kv_heads for layer in decoder.shape.layers):
        raise ValueError(
            "s2_decoder: heads that share keys see different stripes; take a decoder with kv_heads = heads"
        )
    for index, layer in enumerate(decoder.blocks):
        if (dense_layers == "first" and index == 0) or (dense_layers == "alternate" and index % 2 == 0):
            continue
        layer.attention.keeper = S2Keeper(layer.attention.heads, block, local, stride, homogeneous)
    return decoder


@dataclass(frozen=True)
class Striped(Kept):
    """Keys and values in slots [batch, heads, slots, size]; each slot's position [heads, slots], -1 if free."""

    k: Tensor
    v: Tensor
    places: Tensor
    seen: int

    @property
    def bytes(self) -> int:
        """Bytes of the slots that hold a token, and of all positions."""
        filled = int((self.places >= 0).sum())
        rows = self.k.shape[0] * filled * (self.k.shape[3] + self.v.shape[3])
        return rows * self.k.element_size() + self.places.numel() * self.places.element_size()


class S2Keeper(Keeper):
    """Attends to band and stripes; at the start of every block drops what has left both."""

    def __init__(self, heads: int, block: int, local: int, stride: int, homogeneous: bool = False):
        super().__init__()
        self.heads, self.block, self.local, self.stride = heads, block, local, stride
        self.apart = head_step(heads, stride, homogeneous)

    def rule(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether queries at positions [n] see keys at positions [heads, m] (-1: none), [heads, n, m]."""
        head = torch.arange(self.heads, device=keys.device)[:, None, None]
        row, column = queries[None, :, None] // self.block, keys[:, None, :] // self.block
        near = row - column < self.local
        stripe = (column + head * self.apart + 1) % self.stride == 0
        before = keys[:, None, :] <= queries[None, :, None]
        return before & (keys >= 0)[:, None, :] & (near | stripe)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of a whole sequence under the mask."""
        places = torch.arange(q.shape[2], device=q.device)
        mask = self.rule(places, places.expand(self.heads, -1))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def keep(self, q: Tensor, k: Tensor, v: Tensor) -> Striped:
        """What later tokens may still read."""
        places = torch.arange(k.shape[2], device=k.device).expand(self.heads, -1)
        return self._dropped(k, v, places, k.shape[2])

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Striped) -> tuple[Tensor, Striped]:
        """Attention over band and stripes."""
        new = torch.arange(kept.seen, kept.seen + k.shape[2], device=k.device)
        places = torch.cat([kept.places, new.expand(self.heads, -1)], dim=1)
        keys, values = torch.cat([kept.k, k], dim=2), torch.cat([kept.v, v], dim=2)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=self.rule(new, places))
        seen = kept.seen + k.shape[2]
        if seen // self.block == kept.seen // self.block:
            return out, Striped(keys, values, places, seen)
        return out, self._dropped(keys, values, places, seen)

    def _dropped(self, k: Tensor, v: Tensor, places: Tensor, seen: int) -> Striped:
        """Only what a token at position `seen` or later sees; heads that keep fewer have free slots at their end."""
        alive = self.rule(torch.tensor([seen], device=k.device), places)[:, 0]
        count = int(alive.sum(dim=1).max())
        order = (~alive).to(torch.int32).argsort(dim=1, stable=True)[:, :count]
        rows = order[None, :, :, None]
        left = places.gather(1, order).masked_fill(~alive.gather(1, order), -1)
        k = k.gather(2, rows.expand(k.shape[0], -1, -1, k.shape[3]))
        return Striped(k, v.gather(2, rows.expand(v.shape[0], -1, -1, v.shape[3])), left, seen)


def alive_tokens(heads: int, block: int, local: int, stride: int, seen: int) -> int:
    """Positions kept over all heads after `seen` tokens, dropped at the start of every block."""
    row, total = seen // block, seen % block * heads
    visible = block_mask(heads, row + 1, local, stride)[:, row, :row]
    return total + int(visible.sum()) * block
