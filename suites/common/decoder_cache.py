"""What an attention keeps between two steps, and how it attends over it.

A `Keeper` stands in every attention of a decoder and owns both questions, so that a method that compresses, evicts or
selects is one class. Shapes: queries [batch, heads, tokens, size], keys and values [batch, kv heads, tokens, size];
keys carry their rotary position already, so what is kept never needs to know where it stood.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Positions that a pre-allocated cache reserves beyond the prompt, and by how many it grows when they are used up.
ROOM = 256


def tensors_of(nest: Any) -> list[Tensor]:
    """All tensors in a nest of dataclasses, tuples, lists and dictionaries, in order."""
    if isinstance(nest, Tensor):
        return [nest]
    if is_dataclass(nest) and not isinstance(nest, type):
        return [t for field in fields(nest) for t in tensors_of(getattr(nest, field.name))]
    if isinstance(nest, dict):
        return [t for value in nest.values() for t in tensors_of(value)]
    if isinstance(nest, tuple | list):
        return [t for value in nest for t in tensors_of(value)]
    return []


def copied(nest: Any) -> Any:
    """The same nest with every tensor cloned."""
    if isinstance(nest, Tensor):
        return nest.clone()
    if is_dataclass(nest) and not isinstance(nest, type):
        return replace(nest, **{field.name: copied(getattr(nest, field.name)) for field in fields(nest)})
    if isinstance(nest, dict):
        return {name: copied(value) for name, value in nest.items()}
    if isinstance(nest, tuple | list):
        return type(nest)(copied(value) for value in nest)
    return nest


@dataclass(frozen=True)
class Kept:
    """What one attention keeps. Subclasses add tensors; all are [batch, ...]."""

    @property
    def bytes(self) -> int:
        """Bytes of what is kept; a subclass that reserves room counts only the used part."""
        return sum(t.numel() * t.element_size() for t in tensors_of(self))

    @property
    def allocated(self) -> int:
        """Bytes of the tensors, room included."""
        return sum(t.numel() * t.element_size() for t in tensors_of(self))


@dataclass(frozen=True)
class Line(Kept):
    """Vectors of positions, [batch, groups, capacity, size], pre-allocated: the first `used` positions are filled.

    A step writes in place behind them and returns a new `Line` over the same memory, so a step repeated from an earlier
    `Line` writes the same numbers to the same place.
    """

    x: Tensor
    used: int

    @property
    def bytes(self) -> int:
        """Bytes of the filled positions."""
        return self.filled.numel() * self.x.element_size()

    @property
    def filled(self) -> Tensor:
        """The filled positions, a view."""
        return self.x.narrow(2, 0, self.used)

    def extended(self, new: Tensor, room: int = ROOM) -> Line:
        """The line with more positions; where the room is used up the memory grows by at least `room` positions."""
        memory, more = self.x, new.shape[2]
        if self.used + more > memory.shape[2]:
            memory = self.x.new_empty((*new.shape[:2], self.used + more + room, new.shape[3]))
            memory.narrow(2, 0, self.used).copy_(self.filled)
        memory.narrow(2, self.used, more).copy_(new)
        return Line(memory, self.used + more)


def line(x: Tensor, room: int = ROOM) -> Line:
    """A pre-allocated line that holds these vectors."""
    return Line(x[:, :, :0], 0).extended(x, room)


@dataclass(frozen=True)
class Pair(Kept):
    """Pre-allocated keys and values."""

    k: Line
    v: Line

    @property
    def bytes(self) -> int:
        """Bytes of the filled positions."""
        return self.k.bytes + self.v.bytes

    @property
    def used(self) -> int:
        """Filled positions."""
        return self.k.used

    def extended(self, k: Tensor, v: Tensor, room: int = ROOM) -> Pair:
        """The pair with more positions."""
        return Pair(self.k.extended(k, room), self.v.extended(v, room))


def pair(k: Tensor, v: Tensor, room: int = ROOM) -> Pair:
    """A pre-allocated pair that holds these keys and values."""
    return Pair(line(k, room), line(v, room))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention by the fused kernel, [batch, heads, queries, value size]; key heads may be shared.

    A single query per head is folded: the queries that share a key head become the rows of one product, so shared keys
    are read once and never repeated.
    """
    heads, groups = q.shape[1], k.shape[1]
    if q.shape[2] == 1 and mask is None and heads != groups:
        folded = q.reshape(q.shape[0], groups, heads // groups, q.shape[3])
        out = F.scaled_dot_product_attention(folded, k, v)
        return out.reshape(q.shape[0], heads, 1, v.shape[3])
    shared = heads != groups
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal and q.shape[2] > 1, enable_gqa=shared
    )


def behind(queries: int, keys: int, device: torch.device) -> Tensor:
    """Which keys the last `queries` of `keys` positions may see, [queries, keys]: itself and all before."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def probabilities(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(size)) with shared key heads, [batch, heads, queries, keys]; `mask` is true where seen."""
    scores = grouped_scores(q, k) * q.shape[-1] ** -0.5
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)


def grouped_scores(q: Tensor, k: Tensor) -> Tensor:
    """Q k^T, [batch, heads, queries, keys]; key heads are shared without being repeated."""
    batch, heads, count, size = q.shape
    groups = k.shape[1]
    folded = q.reshape(batch, groups, heads // groups * count, size)
    return (folded @ k.transpose(-2, -1)).reshape(batch, heads, count, k.shape[2])


def grouped_mix(weights: Tensor, v: Tensor) -> Tensor:
    """Weights x values, [batch, heads, queries, value size]; value heads are shared without being repeated."""
    batch, heads, count, keys = weights.shape
    groups = v.shape[1]
    folded = weights.reshape(batch, groups, heads // groups * count, keys)
    return (folded @ v).reshape(batch, heads, count, v.shape[3])


class Keeper(nn.Module):
    """The plain cache: everything is kept, pre-allocated, at the numbers' own size.

    A subclass overrides what it changes:

    - `attend(q, k, v)`: attention of a whole sequence, without a cache (training, one forward);
    - `keep(q, k, v)`: what a prompt leaves behind;
    - `prefill(q, k, v)`: both, for a method that attends to a prompt in its own way;
    - `step(q, k, v, kept)`: attention of further tokens, one or several, and what is kept after them.

    Attributes:
        nominal_bits, stored_bits: bits of one cached number as the method's paper calls them, and as they are stored in
            the long run, scales and indices included; None for the number's own.
        room: positions reserved beyond the prompt.
        charged_to: buffers below a keeper (codebooks, ...) are the method's own bytes.
    """

    charged_to = "method"
    nominal_bits: float | None = None
    stored_bits: float | None = None

    def __init__(self, room: int = ROOM):
        super().__init__()
        self.room = room

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of a whole sequence."""
        return attend(q, k, v, causal=True)

    def keep(self, q: Tensor, k: Tensor, v: Tensor) -> Kept:
        """What a prompt leaves behind."""
        return pair(k, v, self.room)

    def prefill(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Kept]:
        """Attention of a prompt, and what it leaves behind."""
        return self.attend(q, k, v), self.keep(q, k, v)

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Any) -> tuple[Tensor, Kept]:
        """Attention of tokens that follow, and what is kept afterwards."""
        kept = kept.extended(k, v, self.room)
        mask = None if q.shape[2] == 1 else behind(q.shape[2], kept.used, q.device)
        return attend(q, kept.k.filled, kept.v.filled, mask), kept


@dataclass(frozen=True)
class Joined(Kept):
    """Keys and values that grow by concatenation."""

    k: Tensor
    v: Tensor


class DynamicKeeper(Keeper):
    """The plain cache by concatenation: every step copies the whole cache, O(T) bytes more; a row of its own."""

    def keep(self, q: Tensor, k: Tensor, v: Tensor) -> Joined:
        """Keys and values as they are."""
        return Joined(k, v)

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Joined) -> tuple[Tensor, Joined]:
        """Attention over the cache with the new tokens at its end."""
        kept = Joined(torch.cat([kept.k, k], dim=2), torch.cat([kept.v, v], dim=2))
        mask = None if q.shape[2] == 1 else behind(q.shape[2], kept.k.shape[2], q.device)
        return attend(q, kept.k, kept.v, mask), kept


@dataclass(frozen=True)
class Ring(Kept):
    """The first `sinks` positions and the newest `window` ones, at slot sinks + (position - sinks) mod window."""

    k: Tensor
    v: Tensor
    seen: int

    @property
    def bytes(self) -> int:
        """Bytes of the filled slots."""
        filled = min(self.seen, self.k.shape[2])
        rows = self.k.shape[:2].numel() * filled
        return rows * (self.k.shape[-1] + self.v.shape[-1]) * self.k.element_size()


class WindowKeeper(Keeper):
    """Sliding window: a token sees the newest `window` positions, itself included, and the first `sinks` ones.

    Sinks: Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks" (arXiv 2309.17453); keys keep
    the rotary position that they were written with.
    """

    def __init__(self, window: int, sinks: int = 0):
        super().__init__()
        self.window, self.sinks = window, sinks

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Banded causal attention."""
        places = torch.arange(q.shape[2], device=q.device)
        if q.shape[2] <= self.window + self.sinks:
            return attend(q, k, v, causal=True)
        return attend(q, k, v, self._seen(places, places))

    def keep(self, q: Tensor, k: Tensor, v: Tensor) -> Ring:
        """The sinks and the newest positions of the prompt."""
        places = torch.arange(k.shape[2], device=k.device)
        return self._ring(k, v, places, k.shape[2])

    def step(self, q: Tensor, k: Tensor, v: Tensor, kept: Ring) -> tuple[Tensor, Ring]:
        """Attention over the window; several tokens at once go through a mask and a rebuilt ring."""
        more = q.shape[2]
        if more > 1:
            return self._chunk(q, k, v, kept)
        slot = self._slot(kept.seen)
        kept.k.narrow(2, slot, 1).copy_(k)
        kept.v.narrow(2, slot, 1).copy_(v)
        filled = min(kept.seen + 1, kept.k.shape[2])
        out = attend(q, kept.k.narrow(2, 0, filled), kept.v.narrow(2, 0, filled))
        return out, Ring(kept.k, kept.v, kept.seen + 1)

    def _slot(self, place: int) -> int:
        return place if place < self.sinks else self.sinks + (place - self.sinks) % self.window

    def _seen(self, queries: Tensor, keys: Tensor) -> Tensor:
        distance = queries[:, None] - keys[None, :]
        return (distance >= 0) & ((distance < self.window) | (keys < self.sinks)[None, :])

    def _places(self, seen: int, device: torch.device) -> Tensor:
        """The position that each filled slot holds after `seen` positions."""
        slots = torch.arange(min(seen, self.sinks + self.window), device=device)
        behind_sinks = slots - self.sinks
        turns = torch.div(seen - 1 - slots, self.window, rounding_mode="floor")
        return torch.where(behind_sinks < 0, slots, slots + turns * self.window)

    def _ring(self, k: Tensor, v: Tensor, places: Tensor, seen: int) -> Ring:
        """A ring from keys and values that stand at ascending `places`, the newest last."""
        capacity = self.sinks + self.window
        index = torch.searchsorted(places, self._places(seen, places.device))
        ring = k.new_empty((*k.shape[:2], capacity, k.shape[3])), v.new_empty((*v.shape[:2], capacity, v.shape[3]))
        for target, source in zip(ring, (k, v), strict=True):
            target.narrow(2, 0, len(index)).copy_(source.index_select(2, index))
        return Ring(*ring, seen)

    def _chunk(self, q: Tensor, k: Tensor, v: Tensor, kept: Ring) -> tuple[Tensor, Ring]:
        old, order = self._places(kept.seen, q.device).sort()
        new = torch.arange(kept.seen, kept.seen + q.shape[2], device=q.device)
        places = torch.cat([old, new])
        keys = torch.cat([kept.k.index_select(2, order), k], dim=2)
        values = torch.cat([kept.v.index_select(2, order), v], dim=2)
        out = attend(q, keys, values, self._seen(new, places))
        return out, self._ring(keys, values, places, kept.seen + q.shape[2])
