"""Early rejection: beams are scored before their step is finished (Cheshmi et al. 2025, arXiv 2508.01969).

N beams stand in groups of M continuations. Per step: write tau tokens of the next step for all, score them unfinished
by the reward model, keep the best N / M, finish their step, branch each into M. The baseline finishes all N steps and
scores then.

Idealised, with steps of L tokens: plain / early = N L / (N tau + (N / M) (L - tau)); partial and whole rewards of
independent token scores correlate by sqrt(tau / L); the risk of losing the best beam is at most (N - 1) exp(-gap^2 / (4
sigma^2)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from bench.config.settings import PositiveInt

Ids = tuple[int, ...]
#: Continues every prefix by at most so many tokens, up to and with the step's mark.
Extend = Callable[[Sequence[Ids], int], list[Ids]]
#: A reward for every prefix, finished or not.
Score = Callable[[Sequence[Ids]], list[float]]


@dataclass(frozen=True)
class Found:
    """The best answer and its reward, with what the search cost in tokens written, tokens scored and steps."""

    ids: Ids
    reward: float
    generated: int
    scored: int
    steps: int


def early_rejection(model: nn.Module, *, tau: PositiveInt = 4) -> nn.Module:
    """The search whose beams are scored after `tau` tokens of a step, and of which only the best are finished.

    Args:
        model: one that searches (`addition_search`).
        tau: tokens of a step that are scored; as many as a step may have is the plain search.

    Raises:
        ValueError: not such a model.
    """
    if not hasattr(model, "tau") or not hasattr(model, "step_tokens"):
        raise ValueError(
            f"early_rejection works on a model that searches (addition_search), not on {type(model).__name__}"
        )
    model.tau = tau  # type: ignore[assignment]
    return model


def search(
    prompt: Ids,
    extend: Extend,
    score: Score,
    *,
    mark: int,
    end: int,
    beams: int = 16,
    branch: int = 4,
    tau: int | None = None,
    step_tokens: int = 256,
    most_steps: int = 20,
) -> Found:
    """Step-wise beam search; with `tau` beams are rejected after so many tokens of a step, without it at its end.

    Args:
        prompt: ids before the answer.
        extend: writes tokens; it may sample.
        score: the reward model.
        mark: id that ends a step.
        end: id that ends the answer; such a beam is not continued.
        beams: N.
        branch: M; N / M beams survive a step.
        tau: tokens of a step that are scored; None, or at least `step_tokens`, is the plain search.
        step_tokens: most tokens of a step.
        most_steps: most steps.

    Raises:
        ValueError: M does not divide N.
    """
    if beams % branch:
        raise ValueError(f"beams={beams} is not a multiple of branch={branch}: every survivor branches into as many")
    early = step_tokens if tau is None else min(tau, step_tokens)
    current: list[Ids] = [prompt] * beams
    generated = scored = steps = 0
    rewards = [0.0]
    while steps < most_steps and not all(_over(ids, prompt, end) for ids in current):
        begun = [ids if _over(ids, prompt, end) else None for ids in current]
        written = extend([ids for ids in current if not _over(ids, prompt, end)], early)
        drafts = [ids if ids is not None else written.pop(0) for ids in begun]
        generated += sum(len(new) - len(old) for new, old in zip(drafts, current, strict=True))
        rewards = score(drafts)
        scored += sum(len(ids) - len(prompt) for ids in drafts)
        best = sorted(range(beams), key=lambda i: -rewards[i])[: beams // branch]
        kept, more = _finished([drafts[i] for i in best], [current[i] for i in best], extend, mark, end, step_tokens)
        generated += more
        rewards = [rewards[i] for i in best]
        current = [ids for ids in kept for _ in range(branch)]
        steps += 1
    finals = current[::branch]
    if early < step_tokens:
        rewards = score(finals)
        scored += sum(len(ids) - len(prompt) for ids in finals)
    winner = max(range(len(finals)), key=lambda i: rewards[i]) if steps else 0
    return Found(finals[winner], rewards[winner] if steps else 0.0, generated, scored, steps)


def _over(ids: Ids, prompt: Ids, end: int) -> bool:
    return len(ids) > len(prompt) and ids[-1] == end


def _finished(
    drafts: list[Ids], before: list[Ids], extend: Extend, mark: int, end: int, step_tokens: int
) -> tuple[list[Ids], int]:
    """The survivors with their step written to its end, and how many tokens that took."""
    out, more = [], 0
    for draft, start in zip(drafts, before, strict=True):
        room = step_tokens - (len(draft) - len(start))
        open_step = len(draft) > len(start) and draft[-1] not in (mark, end)
        whole = extend([draft], room)[0] if open_step and room > 0 else draft
        more += len(whole) - len(draft)
        out.append(whole)
    return out, more


def plain_tokens(beams: int, step: int) -> int:
    """Tokens of one step of the plain search: N L."""
    return beams * step


def early_tokens(beams: int, branch: int, step: int, tau: int) -> int:
    """Tokens of one step with early rejection: N tau + (N / M) (L - tau)."""
    return beams * min(tau, step) + beams // branch * max(0, step - tau)


def ideal_correlation(step: int, tau: int) -> float:
    """Correlation of partial and whole reward of independent token scores."""
    return math.sqrt(min(tau, step) / step)


def risk_bound(beams: int, gap: float, sigma: float) -> float:
    """Most that the risk of losing the best beam is, for a reward gap and a noise of the partial reward."""
    return min(1.0, (beams - 1) * math.exp(-(gap**2) / (4 * sigma**2)))
