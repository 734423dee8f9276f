"""Attention in the sparse patterns of video transformers, each read as what it is: no product of it is masked away.

Tokens come frame by frame, F frames of P places. `pairs` is what a pattern keeps of a head's N^2 pairs, `executed`
what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.diffusion.banded import band_mask, band_pairs, banded_attention, executed_pairs


@dataclass(frozen=True)
class Layout:
    """Frames, places of a frame, and the sizes of the patterns: half band, half band of places, global columns."""

    frames: int
    places: int
    band: int
    near: int
    columns: int

    @property
    def tokens(self) -> int:
        """N = F P."""
        return self.frames * self.places


@dataclass(frozen=True)
class Pattern:
    """How a pattern attends, what it keeps and runs, and its mask for the slow reference."""

    attend: Callable[[Tensor, Tensor, Tensor, Layout], Tensor]
    pairs: Callable[[Layout], int]
    executed: Callable[[Layout], int]
    mask: Callable[[Layout], Tensor]


def _full(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def _diagonal(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    if layout.band >= layout.tokens - 1:
        return _full(q, k, v, layout)
    return banded_attention(q, k, v, layout.band)[0]


def place_major(x: Tensor, layout: Layout) -> Tensor:
    """Tokens frame by frame as [batch, heads, places, frames, size]."""
    return x.unflatten(2, (layout.frames, layout.places)).transpose(2, 3)


def _multi_diagonal(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    if 2 * layout.near + 1 >= layout.places:
        return _full(q, k, v, layout)
    return multi_attention(q, k, v, layout)[0]


def multi_attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Every place sees the near places, around the ends, of all frames; and the logarithm of each row's sum.

    There are more places than it sees, 2 near + 1.
    """
    queries = place_major(q, layout)
    keys, values = (_around(place_major(each, layout), layout.near) for each in (k, v))
    scores = queries @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5
    out = (scores.softmax(-1) @ values).transpose(2, 3).flatten(2, 3)
    return out, scores.logsumexp(-1).transpose(2, 3).flatten(2, 3)


def _around(x: Tensor, near: int) -> Tensor:
    """Tokens of the places around each place, [batch, heads, places, (2 near + 1) x frames, size]."""
    wide = torch.cat([x[:, :, x.shape[2] - near :], x, x[:, :, :near]], dim=2)
    return wide.unfold(2, 2 * near + 1, 1).movedim(-1, 3).flatten(3, 4)


def columns_of(layout: Layout, device: torch.device | None = None) -> Tensor:
    """The global tokens: as many as there are columns, evenly through the video."""
    return torch.arange(layout.columns, device=device) * layout.tokens // layout.columns


def _stripe(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    if layout.columns >= layout.tokens:
        return _full(q, k, v, layout)
    seen = columns_of(layout, k.device)
    return F.scaled_dot_product_attention(q, k[:, :, seen], v[:, :, seen])


def _skip(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    return torch.zeros_like(v)


def _multi_pairs(layout: Layout) -> int:
    return layout.tokens * layout.frames * min(2 * layout.near + 1, layout.places)


def _multi_mask(layout: Layout) -> Tensor:
    token = torch.arange(layout.tokens)
    apart = (token[:, None] - token[None]) % layout.places
    return torch.minimum(apart, layout.places - apart) <= layout.near


def _stripe_mask(layout: Layout) -> Tensor:
    mask = torch.zeros(layout.tokens, layout.tokens, dtype=torch.bool)
    mask[:, columns_of(layout) if layout.columns < layout.tokens else slice(None)] = True
    return mask


PATTERNS: Mapping[str, Pattern] = {
    "full": Pattern(
        _full, lambda x: x.tokens**2, lambda x: x.tokens**2, lambda x: torch.ones(x.tokens, x.tokens, dtype=torch.bool)
    ),
    "diagonal": Pattern(
        _diagonal,
        lambda x: band_pairs(x.tokens, x.band),
        lambda x: executed_pairs(x.tokens, x.band),
        lambda x: band_mask(x.tokens, x.band),
    ),
    "multi_diagonal": Pattern(_multi_diagonal, _multi_pairs, _multi_pairs, _multi_mask),
    "stripe": Pattern(
        _stripe,
        lambda x: x.tokens * min(x.columns, x.tokens),
        lambda x: x.tokens * min(x.columns, x.tokens),
        _stripe_mask,
    ),
    "skip": Pattern(_skip, lambda x: 0, lambda x: 0, lambda x: torch.zeros(x.tokens, x.tokens, dtype=torch.bool)),
}


# ------------------------------------------------------------------------------------------ beside words


def whole(q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention over all these keys, and the logarithm of each row's sum.

    `padding` [batch, 1, 1, keys] is False at keys that are none.
    """
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if padding is not None:
        scores = scores.masked_fill(~padding, float("-inf"))
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def joined(near: tuple[Tensor, Tensor], far: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """One attention of two over different keys, each told with the logarithm of its rows' sums."""
    share = torch.sigmoid(near[1] - far[1])[..., None]
    return share * near[0] + (1 - share) * far[0], torch.logaddexp(near[1], far[1])


def attend_beside_words(
    name: str, q: Tensor, k: Tensor, v: Tensor, layout: Layout, words: int, padding: Tensor | None = None
) -> Tensor:
    """A pattern over a video with so many words before it, which see everything and are seen by everything.

    A query's words and its pattern are two softmaxes that are joined by their rows' sums, so that nothing is multiplied
    and masked away. A head that is left out gives zeros.

    Args:
        name: of the pattern.
        q: [batch, heads, words + tokens, size], as k and v.
        k: keys.
        v: values.
        layout: of the video.
        words: before it.
        padding: [batch, 1, 1, words], False at words that are none.
    """
    if name == "skip" or (not words and padding is None):
        return PATTERNS[name].attend(q, k, v, layout)
    everything = None if padding is None else F.pad(padding, (0, layout.tokens), value=True)
    if name == "full":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=everything)
    told = F.scaled_dot_product_attention(q[:, :, :words], k, v, attn_mask=everything)
    return torch.cat([told, _of_video(name, q[:, :, words:], k, v, layout, words, padding)], dim=2)


def _of_video(name: str, q: Tensor, k: Tensor, v: Tensor, layout: Layout, words: int, padding: Tensor | None) -> Tensor:
    """The tokens of the video over the words and over those that the pattern shows them."""
    own_k, own_v = k[:, :, words:], v[:, :, words:]
    if name == "stripe":
        if layout.columns < layout.tokens:
            seen = columns_of(layout, k.device)
            own_k, own_v = own_k[:, :, seen], own_v[:, :, seen]
        k, v = torch.cat([k[:, :, :words], own_k], dim=2), torch.cat([v[:, :, :words], own_v], dim=2)
        mask = None if padding is None else F.pad(padding, (0, own_k.shape[2]), value=True)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if name == "diagonal":
        near = banded_attention(q, own_k, own_v, min(layout.band, layout.tokens - 1))
    elif 2 * layout.near + 1 < layout.places:
        near = multi_attention(q, own_k, own_v, layout)
    else:
        near = whole(q, own_k, own_v)
    return joined(near, whole(q, k[:, :, :words], v[:, :, :words], padding))[0]


def density(name: str, layout: Layout) -> float:
    """Share of all pairs that a pattern keeps."""
    return PATTERNS[name].pairs(layout) / layout.tokens**2
