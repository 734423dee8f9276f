"""How far a decoder's answers are from those of its other side, after the same held-out text.

Distributions: the first part of each text is read at once, every further token is given, and at each the divergence of
what is said from what the other side says is taken, both through their own caches. Texts: both sides write greedily,
and the tokens before the first that differs are counted; greedy texts that have parted never meet again, so a small
divergence may part them early.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from bench.reading import Reading, reading, unavailable
from bench.workloads.workload import ask

#: Texts, tokens of each, of which the first are read at once, and tokens that are written greedily.
TEXTS, LENGTH, PROMPT, WRITTEN = 16, 192, 128, 32
NAMES = ("divergence_bits", "same_tokens")


def readings(ours: Any, theirs: Any, texts: Any) -> list[Reading]:
    """Both quantities, or why there are none.

    Args:
        ours: a module of the workload `generate`.
        theirs: the other side's.
        texts: ids [texts, tokens] on the device of both.
    """
    ids = texts[:, :PROMPT]
    sizes = [_answers(module, ids[:1]) for module in (ours, theirs)]
    if sizes[0] != sizes[1]:
        why = f"the sides say {sizes[0]} and {sizes[1]} numbers a token: their answers are not of one vocabulary"
        return [unavailable(name, why, "request") for name in NAMES]
    same = [same_start(a, b) for a, b in zip(greedy(ours, ids, WRITTEN), greedy(theirs, ids, WRITTEN), strict=True)]
    forced = (
        f"{len(texts)} held-out texts in a batch, {PROMPT} tokens read at once, {texts.shape[1] - PROMPT} one by one"
    )
    written = f"{len(texts)} answers of {WRITTEN} tokens to {PROMPT}; {same.count(WRITTEN)} of them never differ"
    return [
        _mean("divergence_bits", divergence(ours, theirs, texts), forced, len(texts)),
        _mean("same_tokens", statistics.fmean(same), written, len(texts)),
    ]


def _mean(metric: str, value: float, note: str, count: int) -> Reading:
    return reading(metric, value, "measured", n=count, statistic="mean over texts", method_note=note, part="request")


def _answers(module: Any, ids: Any) -> int:
    """Numbers that a module says of the next token."""
    return int(module.prefill(ids)[0].shape[-1])


def divergence(ours: Any, theirs: Any, texts: Any) -> float:
    """Mean over tokens and texts of KL(theirs || ours), in bits; logits in single precision on the host."""
    ours_said, theirs_said = ours.prefill(texts[:, :PROMPT]), theirs.prefill(texts[:, :PROMPT])
    values = [_bits(ours_said[0], theirs_said[0])]
    for place in range(PROMPT, texts.shape[1] - 1):
        given = texts[:, place : place + 1]
        ours_said, theirs_said = ours.decode(given, ours_said[1]), theirs.decode(given, theirs_said[1])
        values.append(_bits(ours_said[0], theirs_said[0]))
    return statistics.fmean(values)


def _bits(ours: Any, theirs: Any) -> float:
    """Mean over sequences of KL(theirs || ours) of logits [batch, vocabulary]; rounding below zero is zero."""
    own, other = (said.float().cpu().log_softmax(dim=-1) for said in (ours, theirs))
    return max(0.0, float((other.exp() * (other - own)).sum(dim=-1).mean()) / math.log(2))


def greedy(module: Any, ids: Any, new: int) -> list[list[int]]:
    """`new` tokens after every prompt of ids [batch, tokens], as the module writes them."""
    whole = ask(module, "write", ids, new)
    if whole is not None:
        return whole.tolist()
    said, kept = module.prefill(ids)
    out = [said.argmax(dim=-1, keepdim=True)]
    for _ in range(new - 1):
        said, kept = module.decode(out[-1], kept)
        out.append(said.argmax(dim=-1, keepdim=True))
    return [[int(step[row]) for step in out] for row in range(len(ids))]


def same_start(first: list[int], second: list[int]) -> int:
    """Tokens before the first that differs."""
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b), len(first))
