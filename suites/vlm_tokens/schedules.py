"""How many visual tokens enter each layer, method by method: pure, for counting; what runs has to agree.

v visual tokens enter layer 0 of L; a cut after layer k means that layers 0 .. k - 1 saw the old set and layer k sees
the new one. Every function gives v_l for l = 0 .. L - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from suites.common.shares import at_least, at_most

#: Layers of the decoder that the papers' lists of cuts are meant for.
PAPER_LAYERS = 32


def plain(v: int, layers: int) -> list[int]:
    """All of them everywhere."""
    return [v] * layers


def cut(counts: Sequence[int], after: Sequence[int], layers: int) -> list[int]:
    """`counts[0]` tokens until the first cut, `counts[i]` behind cut i; `after` ascends.

    Raises:
        ValueError: not one count more than cuts, or cuts that do not ascend within the layers.
    """
    if len(counts) != len(after) + 1:
        raise ValueError(f"{len(after)} cuts part the layers into {len(after) + 1} stages, not {len(counts)}")
    if list(after) != sorted(set(after)) or any(not 0 <= k <= layers for k in after):
        raise ValueError(f"cuts {list(after)} do not ascend within 0 .. {layers}")
    return [counts[sum(k <= layer for k in after)] for layer in range(layers)]


def scaled(after: Sequence[int], layers: int) -> list[int]:
    """A paper's cuts for 32 layers at the same share of another depth, at least one layer apart and from the start."""
    out: list[int] = []
    for k in after:
        out.append(max(k * layers // PAPER_LAYERS, out[-1] + 1 if out else 1))
    return out


def stage_cuts(stages: int, layers: int) -> list[int]:
    """Cuts of equal stages: multiples of L // S (PyramidDrop)."""
    return [layers // stages * index for index in range(1, stages)]


def pyramiddrop(
    v: int, layers: int, keep: float = 0.5, stages: int = 4, cuts: Sequence[int] | None = None
) -> list[int]:
    """floor(v keep^i) after cut i, always from the first number (PyramidDrop, arXiv 2410.17247, section 3.2).

    Released lists hold the shares themselves, 0.49 for the second cut at 0.7: 1200 tokens become 588, not the 587 of a
    product that rounding made smaller.
    """
    after = stage_cuts(stages, layers) if cuts is None else list(cuts)
    return cut([at_most(v, keep**index) for index in range(len(after) + 1)], after, layers)


def fastv(v: int, layers: int, after: int = 2, drop: float = 0.5) -> list[int]:
    """All v, then floor(v (1 - R)) behind layer K (FastV, arXiv 2403.06764), as random and even dropping keep them."""
    return cut([v, at_most(v, 1 - drop)], [after], layers)


def share(v: int, layers: int, keep: float, after: int = 0) -> list[int]:
    """floor(v keep) from a layer on: random and uniform dropping; at least one token."""
    return cut([v, max(1, at_most(v, keep))], [after], layers)


def sparsevlm(
    v: int, layers: int, kept: Sequence[int] = (300, 200, 110), cuts: Sequence[int] | None = None
) -> list[int]:
    """A list of counts behind cuts 2, 6 and 15 of 32 (SparseVLM, arXiv 2410.04417)."""
    return cut([v, *kept], scaled([2, 6, 15], layers) if cuts is None else list(cuts), layers)


def visiondrop(v: int, layers: int, splits: Sequence[Sequence[int]], cuts: Sequence[int] | None = None) -> list[int]:
    """Dominant + contextual of each entry of `splits`: first before the LLM, then behind each cut.

    `v` is what the tower gives; fewer entries mean fewer cuts (VisionZip has one).
    """
    after = vision_cuts(layers, len(splits) - 1) if cuts is None else list(cuts)
    return cut([sum(part) for part in splits], after, layers)


def vision_cuts(layers: int, count: int) -> list[int]:
    """VisionDrop's cuts: the quarters of the depth, as many as there are further entries."""
    return [layers // 4 * index for index in range(1, count + 1)]


def aim_merged(v: int, frames: int, merge: float) -> int:
    """Visual tokens that go into the LLM: each frame is halved until at most `merge` of it is left."""
    tokens = v // frames
    for count in merge_rounds(tokens, merge):
        tokens -= count
    return tokens * frames


def merge_rounds(tokens: int, merge: float) -> list[int]:
    """How many tokens each round of matching merges away, until floor(tokens merge) are left; none for merge = 1."""
    goal, rounds = max(1, at_most(tokens, merge)), []
    while tokens > goal:
        rounds.append(min(tokens // 2, tokens - goal))
        tokens -= rounds[-1]
    return rounds


def aim_shares(layers: int, first: int, span: int = 8, lag: int = 1) -> list[float]:
    """Share of the merged tokens that layer l sees.

    The printed schedule is 1 below `first` and max(0, 1 - (l - first + 1) / span) from there on; the released model
    applies a layer's share to the next one, `lag` = 1 (AIM, arXiv 2412.03248).
    """
    at = [layer - lag for layer in range(layers)]
    return [1.0 if layer < first else max(0.0, 1 - (layer - first + 1) / span) for layer in at]


def aim(
    v: int, layers: int, *, frames: int = 1, merge: float = 0.25, first: int | None = None, span: int | None = None,
    lag: int = 1,
) -> list[int]:  # fmt: skip
    """floor(share v') visual tokens per layer, v' after merging; words are never dropped."""
    first, span = aim_defaults(layers, first, span)
    merged = aim_merged(v, frames, merge)
    return [at_most(merged, part) for part in aim_shares(layers, first, span, lag)]


def aim_defaults(layers: int, first: int | None, span: int | None) -> tuple[int, int]:
    """First pruned layer L / 2 and the span L / 4 of the slope, where they are not given."""
    return layers // 2 if first is None else first, max(1, layers // 4) if span is None else span


def csp(
    v: int, layers: int, representatives: int | None = None, pruned: int | None = None, a: int | None = None,
    b: int | None = None,
) -> list[int]:  # fmt: skip
    """N_c tokens below layer a, all N from a to b, N_p from b on (LVLM_CSP, arXiv 2504.10854; bounds rebuilt)."""
    few, last, start, end = csp_defaults(v, layers, representatives, pruned, a, b)
    return [few if layer < start else v if layer < end else last for layer in range(layers)]


def csp_defaults(
    v: int, layers: int, representatives: int | None, pruned: int | None, a: int | None, b: int | None
) -> tuple[int, int, int, int]:
    """N_c = N / 4, N_p = N / 8, a = L / 4, b = L / 2, where they are not given.

    Raises:
        ValueError: more tokens than there are, or bounds out of order.
    """
    few = max(1, v // 4) if representatives is None else representatives
    last = max(1, v // 8) if pruned is None else pruned
    start = layers // 4 if a is None else a
    end = max(start, layers // 2) if b is None else b
    if few > v or last > v or not 0 <= start <= end <= layers:
        raise ValueError(f"N_c={few}, N_p={last} of {v} tokens and a={start}, b={end} of {layers} layers do not fit")
    return few, last, start, end


def from_ratios(v: int, ratios: Sequence[float]) -> list[int]:
    """ceil(ratio v) tokens in each layer, never more than in the layer before (AdaToken-3D)."""
    out: list[int] = []
    for ratio in ratios:
        wanted = max(1, at_least(v, ratio))
        out.append(min([wanted, *out[-1:]]))
    return out


def core(v: int, layers: int, layer: int, keep: int) -> list[int]:
    """`keep` tokens from the layer behind `layer` on (CoreMatching on a stated number of core tokens)."""
    return cut([v, keep], [layer + 1], layers)


def ahc(screens: int, tokens: int, layers: int, after: int) -> list[int]:
    """All screens' tokens below layer k, those of the current screen from there on (HiconAgent, arXiv 2512.01763)."""
    return cut([screens * tokens, tokens], [after], layers)


#: By name of a method, from v, L and its settings; names of settings are those of this file's functions.
PLANS: Mapping[str, Callable[..., list[int]]] = {
    "none": plain,
    "pyramiddrop": pyramiddrop,
    "visiondrop": visiondrop,
    "visionzip": visiondrop,
    "aim": aim,
    "corematching": core,
    "csp": csp,
    "fastv": fastv,
    "sparsevlm": sparsevlm,
    "uniform": share,
    "random": share,
}


def plan(method: str, v: int, layers: int, **settings: Any) -> list[int]:
    """Visual tokens that enter each layer of a method of this name.

    Raises:
        KeyError: there is no such method, or it plans from other numbers (`ahc`, `adatoken`).
    """
    return PLANS[method](v, layers, **settings)
