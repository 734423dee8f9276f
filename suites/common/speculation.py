"""Speculative greedy decoding: drafts are verified by the main model, and the text is that of plain greedy decoding.

One sequence at a time: sequences of a batch accept different numbers of tokens.

Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding" (arXiv 2211.17192), greedy case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from suites.common.decoder import Decoder, DecoderCache
from suites.common.decoder_cache import Line, Pair

#: Gives at most so many tokens that may follow the ids [1, tokens].
Draft = Callable[[Tensor, int], list[int]]


@dataclass(frozen=True)
class Speculated:
    """Text and how it came about: `ids` [1, new], steps of the main model, drafted and accepted tokens."""

    ids: Tensor
    steps: int
    drafted: int
    accepted: int

    @property
    def acceptance(self) -> float | None:
        """Share of the drafted tokens that were accepted; None where none was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_step(self) -> float | None:
        """New tokens per step of the main model, the prompt's one left out; None where there was no step."""
        return (self.ids.shape[1] - 1) / self.steps if self.steps else None


def account(found: Sequence[Speculated]) -> dict[str, float | None]:
    """Tokens per step and percent of accepted drafts over several sequences; None where there was none."""
    steps, drafted = sum(one.steps for one in found), sum(one.drafted for one in found)
    new = sum(one.ids.shape[1] - 1 for one in found)
    return {
        "tokens_per_step": new / steps if steps else None,
        "draft_acceptance": 100 * sum(one.accepted for one in found) / drafted if drafted else None,
    }


def greedy(model: Any, ids: Tensor, new: int) -> Tensor:
    """`new` greedy tokens after ids [batch, tokens], one at a time, [batch, new]."""
    logits, cache = model.prefill(ids)
    out = [logits.argmax(dim=-1, keepdim=True)]
    for _ in range(new - 1):
        logits, cache = model.decode(out[-1], cache)
        out.append(logits.argmax(dim=-1, keepdim=True))
    return torch.cat(out, dim=1)


def rolled_back(cache: DecoderCache, seen: int) -> DecoderCache:
    """A plain cache as it was after `seen` tokens; its memory keeps what came later, and later steps overwrite it.

    Raises:
        ValueError: the cache is not one that only grows, so what it has dropped or packed cannot come back.
    """
    kept = []
    for part in cache.kept:
        if isinstance(part, Pair):
            kept.append(Pair(replace(part.k, used=seen), replace(part.v, used=seen)))
        elif isinstance(part, Line):
            kept.append(replace(part, used=seen))  # type: ignore[arg-type]
        else:
            raise ValueError(
                f"a cache of {type(part).__name__} cannot be rolled back: verify drafts with a plain cache"
            )
    return DecoderCache(tuple(kept), seen)


def speculative_greedy(main: Decoder, draft: Draft, ids: Tensor, new: int, ahead: int = 4) -> Speculated:
    """Greedy text of the main model with drafts of `ahead` tokens.

    Raises:
        ValueError: more than one sequence.
    """
    if ids.shape[0] != 1:
        raise ValueError(f"one sequence at a time, not {ids.shape[0]}: each accepts another number of tokens")
    logits, cache = main.prefill(ids)
    text = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    wanted = ids.shape[1] + new
    steps = drafted = accepted = 0
    while text.shape[1] < wanted:
        guess = draft(text, min(ahead, wanted - text.shape[1] - 1))
        chunk = torch.cat([text[:, -1:], text.new_tensor([guess]).reshape(1, -1)], dim=1)
        x, longer = main.stepped(chunk, cache)
        own = main.head(main.norm(x)).argmax(dim=-1)[0].tolist()
        right = agreeing(guess, own)
        text = torch.cat([text, text.new_tensor([own[: right + 1]])], dim=1)
        cache = rolled_back(longer, text.shape[1] - 1)
        steps, drafted, accepted = steps + 1, drafted + len(guess), accepted + right
    return Speculated(text[:, ids.shape[1] :], steps, drafted, accepted)


def agreeing(guess: list[int], own: list[int]) -> int:
    """How many leading tokens of the guess are the main model's own."""
    for place, token in enumerate(guess):
        if token != own[place]:
            return place
    return len(guess)


def model_draft(small: Any) -> Draft:
    """Drafts by a smaller model with its own cache of the text; only a changed ending is computed again."""
    state: dict[str, Any] = {"seen": [], "cache": None}

    def draft(text: Tensor, count: int) -> list[int]:
        if count < 1:
            return []
        written = text[0].tolist()
        same = _common(state["seen"], written[:-1])
        if state["cache"] is None or same == 0:
            logits, cache = small.prefill(text)
        else:
            logits, cache = small.decode(text[:, same:], rolled_back(state["cache"], same))
        out: list[int] = []
        while True:
            out.append(int(logits.argmax(dim=-1)))
            if len(out) == count:
                break
            logits, cache = small.decode(text.new_tensor([[out[-1]]]), cache)
        state["seen"], state["cache"] = written + out[:-1], cache
        return out

    return draft


def _common(first: list[int], second: list[int]) -> int:
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return place
    return min(len(first), len(second))
