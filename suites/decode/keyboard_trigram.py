"""The other side of keyboard decoding: counts of word triples and a search for candidates by edit distance.

A typed word's candidates are all V words; one scores log P(word | the two before it) - c x its edit distance from what
was typed. P mixes shares of triples, pairs and single words (Jelinek and Mercer 1980). The tables are the memory: a key
and a count for each of the most frequent triples and pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bench.config.settings import Positive, PositiveInt
from suites.common.decoder import Generator
from suites.common.tasks.keyboard_lines import CHARACTERS, LETTERS, UNKNOWN, WORDS, lexicon

#: Weights of triples, pairs, single words, and of any word at all.
MIX = (0.5, 0.3, 0.19, 0.01)


def keyboard_trigram(
    *, vocabulary: PositiveInt = 1000, entries: PositiveInt = 20_000, distance: Positive = 3.0
) -> KeyboardTable:
    """The table decoder in evaluation mode; its counts are zero until it has seen words.

    Args:
        vocabulary: V, words that it can write.
        entries: triples, and pairs, that are kept.
        distance: what one edit costs, in natural logarithms of a chance.

    Raises:
        ValueError: fewer than two words.
    """
    return KeyboardTable(vocabulary, entries, distance).eval()


@dataclass(frozen=True)
class Typed:
    """What is kept between words: the typed words [batch, 6, letters], the two words before the next, and its place."""

    words: Tensor
    before: Tensor
    place: int

    @property
    def bytes(self) -> int:
        """Bytes of both tensors."""
        return sum(t.numel() * t.element_size() for t in (self.words, self.before))


class KeyboardTable(Generator):
    """Characters in, words out, by counts."""

    writes_words = True
    spelled: Tensor
    lengths: Tensor
    single: Tensor
    pair_keys: Tensor
    pair_counts: Tensor
    triple_keys: Tensor
    triple_counts: Tensor

    def __init__(self, vocabulary: int, entries: int, distance: float):
        super().__init__()
        self.vocabulary, self.distance = vocabulary, distance
        words = lexicon(vocabulary)
        spelled = torch.tensor([list(word.encode().ljust(LETTERS, b"\0")) for word in words], dtype=torch.uint8)
        self.register_buffer("spelled", spelled)
        self.register_buffer("lengths", torch.tensor([len(word) for word in words], dtype=torch.uint8))
        self.register_buffer("single", torch.zeros(vocabulary, dtype=torch.int32))
        for name in ("pair", "triple"):
            self.register_buffer(f"{name}_keys", torch.full((entries,), 2**62))
            self.register_buffer(f"{name}_counts", torch.zeros(entries, dtype=torch.int32))

    def count_words(self, words: Sequence[str]) -> None:
        """Fill the tables from words in their order."""
        numbers = {word: number for number, word in enumerate(lexicon(self.vocabulary)) if word != UNKNOWN}
        ids = [numbers.get(word, 0) for word in words]
        counts = Counter(ids)
        self.single.copy_(torch.tensor([counts[number] for number in range(self.vocabulary)]))
        v = self.vocabulary
        pairs = Counter(a * v + b for a, b in pairwise(ids))
        triples = Counter((a * v + b) * v + c for a, b, c in zip(ids, ids[1:], ids[2:], strict=False))
        self._fill("pair", pairs)
        self._fill("triple", triples)

    def _fill(self, name: str, counts: Counter[int]) -> None:
        keys, values = getattr(self, f"{name}_keys"), getattr(self, f"{name}_counts")
        kept = sorted(sorted(counts, key=lambda key: (-counts[key], key))[: len(keys)])
        keys.fill_(2**62)
        values.zero_()
        keys[: len(kept)] = torch.tensor(kept)
        values[: len(kept)] = torch.tensor([counts[key] for key in kept], dtype=torch.int32)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random characters with a space after every few, [batch, characters]."""
        lines = torch.randint(97, 123, (batch, CHARACTERS), device=self.single.device)
        lines[:, 5::6] = 32
        return (lines,)

    def prefill(self, ids: Tensor) -> tuple[Tensor, Typed]:
        """Scores of the first word [batch, V] of typed lines [batch, characters], and what is kept."""
        kept = Typed(split_words(ids), ids.new_zeros(len(ids), 2), 0)
        return self.scores(kept), kept

    def decode(self, ids: Tensor, cache: Typed) -> tuple[Tensor, Typed]:
        """Scores of the word after `ids` [batch, 1], and what is kept."""
        before = torch.cat([cache.before[:, 1:], ids], dim=1)
        kept = Typed(cache.words, before, min(cache.place + 1, WORDS - 1))
        return self.scores(kept), kept

    def forward(self, ids: Tensor) -> Tensor:
        """Scores of the first word, [batch, V]."""
        return self.prefill(ids)[0]

    def scores(self, kept: Typed) -> Tensor:
        """Log chance of every word less the cost of its edits, [batch, V]."""
        return self.log_chance(kept.before) - self.distance * self.edits(kept.words[:, kept.place])

    def log_chance(self, before: Tensor) -> Tensor:
        """Log of the mixed shares of every word after two others [batch, 2], [batch, V]."""
        v, every = self.vocabulary, torch.arange(self.vocabulary, device=before.device)
        a, b = before[:, :1], before[:, 1:]
        triples = _counts(self.triple_keys, self.triple_counts, (a * v + b) * v + every)
        pairs = _counts(self.pair_keys, self.pair_counts, b * v + every)
        shares = [_share(triples), _share(pairs), _share(self.single.float()[None]), torch.full_like(pairs, 1 / v)]
        return sum(weight * share for weight, share in zip(MIX, shares, strict=True)).log()  # type: ignore[union-attr]

    def edits(self, typed: Tensor) -> Tensor:
        """Edit distance of typed words [batch, letters] from all words, [batch, V], row by row of the usual table."""
        batch, own = len(typed), (typed != 0).sum(dim=1)
        row = torch.arange(LETTERS + 1, dtype=torch.int16, device=typed.device).expand(batch, self.vocabulary, -1)
        table = [row]
        for i in range(1, LETTERS + 1):
            changed = (self.spelled[None] != typed[:, i - 1, None, None]).to(torch.int16)
            cells = [torch.full_like(row[..., 0], i)]
            for j in range(1, LETTERS + 1):
                step = torch.minimum(row[..., j], cells[-1]) + 1
                cells.append(torch.minimum(step, row[..., j - 1] + changed[..., j - 1]))
            row = torch.stack(cells, dim=-1)
            table.append(row)
        rows = torch.stack(table, dim=1)[torch.arange(batch, device=typed.device), own]
        ends = self.lengths.long()[None, :, None].expand(batch, -1, 1)
        return rows.gather(2, ends)[..., 0].float()

    def method_bytes(self) -> int:
        """None beside the tables, which are its weights."""
        return 0


def split_words(lines: Tensor) -> Tensor:
    """The typed words of lines [batch, characters], cut at spaces, [batch, 6, letters], zeros behind each."""
    space, blank = lines == 32, lines == 0
    number = space.long().cumsum(dim=1) - space.long()
    column = torch.arange(lines.shape[1], device=lines.device)
    starts = torch.where(space, column + 1, 0).cummax(dim=1).values
    starts = torch.cat([torch.zeros_like(starts[:, :1]), starts[:, :-1]], dim=1)
    letter = column - starts
    used = ~space & ~blank & (number < WORDS) & (letter < LETTERS)
    out = torch.zeros(len(lines), WORDS * LETTERS + 1, dtype=torch.uint8, device=lines.device)
    place = torch.where(used, number * LETTERS + letter, WORDS * LETTERS)
    out.scatter_(1, place, lines.clamp(max=255).to(torch.uint8))
    return out[:, :-1].unflatten(1, (WORDS, LETTERS))


def _counts(keys: Tensor, counts: Tensor, wanted: Tensor) -> Tensor:
    """The count of every wanted key, zero where it is not in the table."""
    place = torch.searchsorted(keys, wanted.contiguous()).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == wanted, counts[place], torch.zeros_like(counts[place])).float()


def _share(counts: Tensor) -> Tensor:
    """Counts over their sum, zeros where there are none."""
    return counts / counts.sum(dim=-1, keepdim=True).clamp(min=1)
