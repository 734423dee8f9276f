"""A generator and a reward model of written-out sums, and the search that joins them as one request
(early_rejection.py).

The generator is a byte decoder; the reward model is the same body with one number per position, the logit that
everything up to there is right. `write` runs the step-wise beam search for every prompt; prefill and decode are the
generator's own. Beams keep their caches from step to step and share those of equal prefixes; the reward model reads
whole prefixes, as the paper counts them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.config.settings import Positive, PositiveInt
from suites.common.decoder import Decoder, DecoderCache, Generator, decoder
from suites.common.decoder_cache import Pair, pair
from suites.common.tasks.additions import END, MARK, PROMPT, Additions, answer_loss, reward_loss
from suites.decode.early_rejection import Extend, Found, Ids, search
from suites.decode.partial_rewards import Step, correlation, noting, unfinished

#: Most steps of an answer: two sums, the line feed, and one to spare.
MOST_STEPS = 4
#: Held-out sums on which a search that rejects early is set beside the plain one.
JUDGED = 20


def addition_search(
    *, width: PositiveInt = 128, layers: PositiveInt = 4, heads: PositiveInt = 4, hidden: PositiveInt = 344,
    beams: PositiveInt = 16, branch: PositiveInt = 4, temperature: Positive = 0.8, step_tokens: PositiveInt = 12,
) -> AdditionSearch:  # fmt: skip
    """Generator and reward model in evaluation mode with random weights; the plain search scores beams at step ends.

    Args:
        width: features per token of both.
        layers: blocks of each.
        heads: heads of each.
        hidden: width of the gated networks.
        beams: N.
        branch: M, a divisor of it; N / M beams survive a step.
        temperature: of sampling.
        step_tokens: most tokens of a step.

    Raises:
        ValueError: the numbers do not fit together.
    """
    if beams % branch:
        raise ValueError(f"beams={beams} is not a multiple of branch={branch}: every survivor branches into as many")
    parts = [decoder(width=width, layers=layers, heads=heads, hidden=hidden) for _ in range(2)]
    return AdditionSearch(parts[0], parts[1], beams, branch, temperature, step_tokens).eval()


class RewardModel(nn.Module):
    """A decoder's body with one number per position."""

    def __init__(self, body: Decoder):
        super().__init__()
        self.embed, self.blocks, self.norm = body.embed, body.blocks, body.norm
        self.mark = nn.Linear(body.shape.width, 1)
        self._rotation = (body.rotary_size, body.base)

    def forward(self, ids: Tensor) -> Tensor:
        """Logit that everything up to each position is right, [batch, tokens]."""
        from suites.common.rotary import rotation

        size, base = self._rotation
        x, by = self.embed(ids), rotation(0, ids.shape[1], size, self.embed.weight, base)
        for block in self.blocks:
            x = block(x, by)
        return self.mark(self.norm(x))[..., 0]


class AdditionSearch(Generator):
    """Two models and a search; `tau` is set by the method `early_rejection`."""

    def __init__(
        self, generator: Decoder, body: Decoder, beams: int, branch: int, temperature: float, step_tokens: int
    ):
        super().__init__()
        self.generator, self.reward = generator, RewardModel(body)
        self.beams, self.branch, self.temperature, self.step_tokens = beams, branch, temperature, step_tokens
        self.tau: int | None = None
        self.vocabulary, self.shape = generator.vocabulary, generator.shape
        self._last: list[Found] = []

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position: the generator's."""
        return self.generator(ids)

    def prefill(self, ids: Tensor) -> tuple[Tensor, DecoderCache]:
        """Logits of the last position and the generator's cache."""
        return self.generator.prefill(ids)

    def decode(self, ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
        """Logits of the next position and the generator's cache."""
        return self.generator.decode(ids, cache)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Prompts of held-out sums, [batch, 9]."""
        task = getattr(self, "task", None)
        sums = task if isinstance(task, Additions) else Additions(Path(), 0)
        with torch.device("cpu"):  # sums have digits, which a device of shapes alone could not write
            prompts = sums.prompts(batch)
        return (prompts.to(self.generator.embed.weight.device),)

    def loss(self, clean: Tensor, wrong: Tensor) -> Tensor:
        """The generator's loss on right texts and the reward model's on spoilt ones."""
        return answer_loss(self.generator(clean[:, :-1]), clean) + reward_loss(self.reward(wrong), clean, wrong)

    def write(self, ids: Tensor, new: int) -> Tensor:
        """The best answer to every prompt, line feeds behind its end, [batch, new].

        Raises:
            ValueError: prompts of another length than a sum's.
        """
        if ids.shape[1] != PROMPT:
            raise ValueError(f"a prompt of a sum has {PROMPT} bytes, not {ids.shape[1]}: set shapes.context={PROMPT}")
        self._last = [self._search(tuple(row)) for row in ids.tolist()]
        out = ids.new_full((len(ids), new), END)
        for row, found in zip(out, self._last, strict=True):
            answer = found.ids[ids.shape[1] :][:new]
            row[: len(answer)] = torch.tensor(answer, device=ids.device)
        return out

    def _search(self, prompt: Ids) -> Found:
        return self._searched(prompt, self._beams(prompt).extend, self.tau)

    def _beams(self, prompt: Ids) -> Beams:
        return Beams(self.generator, self.temperature, seed=hash(prompt) % 2**31)

    def _searched(self, prompt: Ids, extend: Extend, tau: int | None) -> Found:
        return search(
            prompt, extend, self._rewards, mark=MARK, end=END, beams=self.beams, branch=self.branch, tau=tau,
            step_tokens=self.step_tokens, most_steps=MOST_STEPS,
        )  # fmt: skip

    def _rewards(self, prefixes: Sequence[Ids]) -> list[float]:
        """The reward of every prefix: the mark at its last position. Equal lengths go through the model together."""
        device, out = self.generator.embed.weight.device, [0.0] * len(prefixes)
        for places in by_length(prefixes).values():
            marks = self.reward(torch.tensor([prefixes[i] for i in places], device=device))[:, -1]
            for place, mark in zip(places, marks.tolist(), strict=True):
                out[place] = mark
        return out

    def written(self) -> dict[str, float | None]:
        """Tokens that were written and scored for the last answers."""
        return {
            "tokens_written": float(sum(found.generated for found in self._last)),
            "tokens_scored": float(sum(found.scored for found in self._last)),
        }

    def judged(self) -> dict[str, float | None]:
        """How partial rewards agree with whole ones, and how often the answers of both searches are one.

        Of held-out sums of the task; nothing of the plain search, or of models that learned none. Both searches begin
        from the same seed.
        """
        task = getattr(self, "task", None)
        if self.tau is None or not isinstance(task, Additions):
            return {}
        steps, same = list[Step](), 0
        for prompt in map(tuple, task.prompts(JUDGED).tolist()):
            plain = self._searched(prompt, noting(self._beams(prompt).extend, steps), None)
            same += plain.ids == self._search(prompt).ids
        pairs = unfinished(steps, self.tau)
        found = correlation(self._rewards([a for a, _ in pairs]), self._rewards([b for _, b in pairs]))
        return {"reward_correlation": found, "choice_agreement": 100.0 * same / JUDGED}

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own."""
        return self.generator.cache_bits()


def by_length(prefixes: Sequence[Ids]) -> dict[int, list[int]]:
    """Places of the prefixes of each length."""
    found: dict[int, list[int]] = defaultdict(list)
    for place, ids in enumerate(prefixes):
        found[len(ids)].append(place)
    return found


@dataclass(frozen=True)
class Row:
    """One sequence of a batch's cache, which covers all of its ids but the last."""

    cache: DecoderCache
    place: int


class Beams:
    """Samples continuations; equal lengths run as one batch, and no prefix is read twice."""

    def __init__(self, generator: Decoder, temperature: float, seed: int):
        self.generator, self.temperature = generator, temperature
        self.random = torch.Generator().manual_seed(seed)
        self.rows: dict[Ids, Row] = {}

    def extend(self, prefixes: Sequence[Ids], most: int) -> list[Ids]:
        """Every prefix with at most so many further tokens, up to and with the mark of a step or the end."""
        out = list(prefixes)
        for places in by_length(prefixes).values():
            for place, ids in zip(places, self._together([prefixes[i] for i in places], most), strict=True):
                out[place] = ids
        return out

    def _together(self, prefixes: list[Ids], most: int) -> list[Ids]:
        texts, open_ones = list(prefixes), list(range(len(prefixes)))
        cache = stacked([self._row(ids) for ids in prefixes])
        for _ in range(most):
            last = torch.tensor([[texts[i][-1]] for i in open_ones], device=self.generator.embed.weight.device)
            logits, cache = self.generator.decode(last, cache)
            for i, token in zip(open_ones, self._sampled(logits), strict=True):
                texts[i] = (*texts[i], token)
            going = [row for row, i in enumerate(open_ones) if texts[i][-1] not in (MARK, END)]
            for row, i in enumerate(open_ones):
                self.rows[texts[i]] = Row(cache, row)
            if not going:
                break
            if len(going) < len(open_ones):
                cache = stacked([Row(cache, row) for row in going])
                open_ones = [open_ones[row] for row in going]
        return texts

    def _sampled(self, logits: Tensor) -> list[int]:
        chances = (logits.float() / self.temperature).softmax(dim=-1).cpu()
        return torch.multinomial(chances, 1, generator=self.random)[:, 0].tolist()

    def _row(self, ids: Ids) -> Row:
        """The cache of all ids but the last, read once."""
        if ids not in self.rows:
            device = self.generator.embed.weight.device
            _, cache = self.generator.prefill(torch.tensor([ids[:-1]], device=device))
            self.rows[ids] = Row(cache, 0)
        return self.rows[ids]


def stacked(rows: Sequence[Row]) -> DecoderCache:
    """One cache of several sequences of equal length, in memory of its own."""
    seen = rows[0].cache.seen
    layers: list[Any] = []
    for layer in range(len(rows[0].cache.kept)):
        kept = [(cast(Pair, row.cache.kept[layer]), row.place) for row in rows]
        k = torch.cat([part.k.x[place : place + 1, :, :seen] for part, place in kept])
        v = torch.cat([part.v.x[place : place + 1, :, :seen] for part, place in kept])
        layers.append(pair(k, v))
    return DecoderCache(tuple(layers), seen)
