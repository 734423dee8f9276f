"""BLEU of every sentence of a batch of token ids (Filatov 2025, TensorBLEU, arXiv 2510.05485; Papineni et al. 2002).

p_n = clipped matches / max(1, n-grams of the candidate); score = BP exp(mean of log p_n), with the brevity penalty by
the closest reference length, the shorter of two that are equally close. Smoothing: `none` (a p_n of 0 makes the score
0) and `floor` (0 matches count as 0.1), both as NLTK has them: without a single matching word the score is 0 either
way. Forms:

python   counters of tuples, sentence by sentence
nltk     the package, sentence by sentence
tensor   n-grams as rows by unfold, compact ids by a unique over rows of the whole batch, counts by bincount
paired   the same with the id of an n-gram made from the pair (id of its first n - 1 tokens, last token): exact, and a
         unique over single numbers, which sorts faster than rows

A sentence's number is the first column of its rows, so that counts are as many as there are distinct n-grams and not
that times the batch. Padding is masked by lengths, whatever ids it holds. The time does not depend on the vocabulary.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from bench.config.settings import PositiveInt
from suites.common.operators import Operator

FLOOR = 0.1


def bleu(
    *,
    form: Literal["python", "nltk", "tensor", "paired"] = "tensor",
    length: PositiveInt = 128,
    references: PositiveInt = 1,
    vocabulary: PositiveInt = 1000,
    orders: PositiveInt = 4,
    smoothing: Literal["none", "floor"] = "floor",
    corpus: bool = False,
) -> Bleu:
    """BLEU as an operator on candidates, their lengths, references and their lengths.

    Args:
        form: how it is computed.
        length: longest candidate and reference, in tokens.
        references: of every candidate, R.
        vocabulary: different tokens.
        orders: N, the longest n-grams.
        smoothing: what no match counts as.
        corpus: one score for the whole batch, matches and n-grams summed before they are divided.

    Raises:
        NotImplementedError: NLTK is not installed.
    """
    if form == "nltk" and find_spec("nltk") is None:
        raise NotImplementedError("form='nltk' needs the package: pip install waterline-bench[bleu]")
    return Bleu(form, length, references, vocabulary, orders, smoothing, corpus).eval()


class Bleu(Operator):
    """Scores [batch] of candidates [batch, length] by references [batch, R, length], both as ids; or one score."""

    tolerance_fp32 = 1e-6

    def __init__(
        self, form: str, length: int, references: int, vocabulary: int, orders: int, smoothing: str, corpus: bool
    ):  # fmt: skip
        super().__init__(form=form)
        self.length, self.references, self.vocabulary = length, references, vocabulary
        self.orders, self.smoothing, self.corpus = orders, smoothing, corpus

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Candidates, and references that are candidates with a fifth of the tokens drawn anew."""
        shape = (batch, self.references, self.length)
        candidates = torch.randint(self.vocabulary, (batch, self.length))
        anew = torch.randint(self.vocabulary, shape)
        references = torch.where(torch.rand(shape) < 0.2, anew, candidates[:, None])
        shortest = max(1, self.length // 2)
        of_candidates = torch.randint(shortest, self.length + 1, (batch,))
        of_references = torch.randint(shortest, self.length + 1, shape[:2])
        return tuple(value.to(self.like.device) for value in (candidates, of_candidates, references, of_references))

    def function(self, candidates: Tensor, lengths: Tensor, references: Tensor, reference_lengths: Tensor) -> Tensor:
        """Scores [batch], or one score [1] of the whole corpus, computed in float64."""
        args = (candidates, lengths, references, reference_lengths)
        if self.form == "python":
            return self._by_counters(*args).to(self.like)
        if self.form == "nltk":
            return self._by_nltk(*args).to(self.like)
        matches, grams = counted(*args, self.orders, self.form)
        return self._scores(matches, grams, lengths, closest_lengths(lengths, reference_lengths)).to(self.like)

    def _by_nltk(self, *args: Tensor) -> Tensor:
        texts = list(sentences(*args))
        if self.corpus:
            return torch.tensor([nltk_corpus(texts, self.orders, self.smoothing)], dtype=torch.float64)
        scores = [nltk_score(own, others, self.orders, self.smoothing) for own, others in texts]
        return torch.tensor(scores, dtype=torch.float64)

    def definition(self, candidates: Tensor, lengths: Tensor, references: Tensor, reference_lengths: Tensor) -> Tensor:
        """Counters of tuples, sentence by sentence."""
        return self._by_counters(candidates, lengths, references, reference_lengths)

    def _by_counters(self, *args: Tensor) -> Tensor:
        rows = [counted_by_hand(candidate, others, self.orders) for candidate, others in sentences(*args)]
        matches = torch.tensor([row[0] for row in rows], dtype=torch.float64)
        grams = torch.tensor([row[1] for row in rows], dtype=torch.float64)
        closest = torch.tensor([row[2] for row in rows])
        return self._scores(matches, grams, args[1].cpu(), closest)

    def _scores(self, matches: Tensor, grams: Tensor, lengths: Tensor, closest: Tensor) -> Tensor:
        """Scores of matches and n-grams [batch, N], lengths and closest reference lengths [batch]."""
        grams = grams.clamp(min=1)
        if self.corpus:
            matches, grams = matches.sum(0, keepdim=True), grams.sum(0, keepdim=True)
            lengths, closest = lengths.sum(0, keepdim=True), closest.sum(0, keepdim=True)
        return score(matches, grams, lengths, closest, self.smoothing)


def score(matches: Tensor, grams: Tensor, lengths: Tensor, closest: Tensor, smoothing: str) -> Tensor:
    """BLEU in float64 of matches and n-grams [batch, N], lengths and closest reference lengths [batch]."""
    found = matches.double()
    if smoothing == "floor":
        found = torch.where(found == 0, FLOOR, found)
    precision = (found / grams).log().mean(dim=1).exp()
    own = lengths.double()
    penalty = torch.where(own > closest, 1.0, torch.exp(1 - closest / own.clamp(min=1)))
    return torch.where((matches[:, 0] > 0) & (own > 0), penalty * precision, 0.0)


def closest_lengths(lengths: Tensor, reference_lengths: Tensor) -> Tensor:
    """Of every sentence the reference length that is closest; the shorter of two that are equally close."""
    away = (reference_lengths - lengths[:, None]).abs()
    nearest = away.amin(dim=1, keepdim=True)
    beyond = torch.iinfo(reference_lengths.dtype).max
    return torch.where(away == nearest, reference_lengths, beyond).amin(dim=1)


def counted(
    candidates: Tensor, lengths: Tensor, references: Tensor, reference_lengths: Tensor, orders: int, form: str
) -> tuple[Tensor, Tensor]:
    """Clipped matches and n-grams [batch, N] of a whole batch.

    Args:
        candidates: ids [batch, length].
        lengths: of them, [batch].
        references: ids [batch, R, length].
        reference_lengths: of them, [batch, R].
        orders: N.
        form: tensor or paired.
    """
    batch, several = references.shape[:2]
    longest = max(candidates.shape[1], references.shape[2])
    texts = torch.cat([_padded(candidates, longest), _padded(references.flatten(0, 1), longest)])
    sizes = torch.cat([lengths, reference_lengths.flatten()])
    own = torch.arange(batch, device=texts.device)
    sentence = torch.cat([own, own.repeat_interleave(several)])
    matches, grams = [], []
    ids: Tensor | None = None
    for n in range(1, orders + 1):
        if longest < n:
            nothing = torch.zeros(batch, device=texts.device, dtype=torch.long)
            matches.append(nothing)
            grams.append(nothing)
            continue
        valid = torch.arange(longest - n + 1, device=texts.device) + n <= sizes[:, None]
        found = _rows(texts, sentence, n) if form == "tensor" else _paired(texts, sentence, ids, n)
        ids = found
        matches.append(_matches(found, valid, batch, several))
        grams.append(valid[:batch].sum(dim=1))
    return torch.stack(matches, 1), torch.stack(grams, 1)


def _padded(ids: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(ids, (0, length - ids.shape[1]))


def _rows(texts: Tensor, sentence: Tensor, n: int) -> Tensor:
    """Compact ids [texts, places] by a unique over whole rows, a sentence's number before its n tokens."""
    rows = texts.unfold(1, n, 1)
    numbered = torch.cat([sentence[:, None, None].expand(-1, rows.shape[1], 1), rows], 2)
    return torch.unique(numbered.flatten(0, 1), dim=0, return_inverse=True)[1].unflatten(0, rows.shape[:2])


def _paired(texts: Tensor, sentence: Tensor, shorter: Tensor | None, n: int) -> Tensor:
    """Compact ids [texts, places] from those of n - 1 tokens (of none: the sentence's number) and the last."""
    last = texts[:, n - 1 :]
    first = sentence[:, None].expand_as(last) if shorter is None else shorter[:, : last.shape[1]]
    # tokens are made compact as well, so that the product of both ranges is below the square of the number of tokens
    token = torch.unique(last, return_inverse=True)[1]
    return torch.unique(first * (token.max() + 1) + token, return_inverse=True)[1]


def _matches(ids: Tensor, valid: Tensor, batch: int, several: int) -> Tensor:
    """Clipped matches [batch] of compact ids; those of references follow those of candidates."""
    count = ids.numel()  # more than there are ids, and known without a look at them
    of_candidates = torch.bincount(ids[:batch][valid[:batch]], minlength=count)
    place = torch.arange(several, device=ids.device).repeat(batch)[:, None]
    numbered = (ids[batch:] + place * count)[valid[batch:]]
    of_references = torch.bincount(numbered, minlength=several * count).unflatten(0, (several, count)).amax(dim=0)
    clipped = torch.minimum(of_candidates, of_references)
    # every id belongs to one sentence: its first place says which
    owner = torch.zeros(count, device=ids.device, dtype=torch.long)
    owner.scatter_(0, ids[:batch].flatten(), torch.arange(batch, device=ids.device).repeat_interleave(ids.shape[1]))
    return torch.zeros(batch, device=ids.device, dtype=torch.long).scatter_add_(0, owner, clipped)


def sentences(
    candidates: Tensor, lengths: Tensor, references: Tensor, reference_lengths: Tensor
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Candidate and references of each sentence as lists of ids."""
    sizes, others = lengths.tolist(), reference_lengths.tolist()
    for row, many, size, several in zip(candidates.tolist(), references.tolist(), sizes, others, strict=True):
        yield row[:size], [one[:end] for one, end in zip(many, several, strict=True)]


def counted_by_hand(candidate: list[int], references: list[list[int]], orders: int) -> tuple[list[int], list[int], int]:
    """Clipped matches and n-grams for every n, and the closest reference length."""
    matches, grams = [], []
    for n in range(1, orders + 1):
        own = _grams(candidate, n)
        most: Counter[tuple[int, ...]] = Counter()
        for reference in references:
            most |= _grams(reference, n)
        matches.append(sum((own & most).values()))
        grams.append(sum(own.values()))
    closest = min((abs(len(r) - len(candidate)), len(r)) for r in references)[1]
    return matches, grams, closest


def _grams(ids: list[int], n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))


def nltk_score(candidate: list[int], references: list[list[int]], orders: int, smoothing: str) -> float:
    """NLTK's sentence_bleu; without smoothing it prints a warning and gives about 1e-78 where ours is 0."""
    from nltk.translate.bleu_score import sentence_bleu

    return _quietly(sentence_bleu, references, candidate, orders, smoothing)


def nltk_corpus(texts: list[tuple[list[int], list[list[int]]]], orders: int, smoothing: str) -> float:
    """NLTK's corpus_bleu."""
    from nltk.translate.bleu_score import corpus_bleu

    return _quietly(corpus_bleu, [others for _, others in texts], [own for own, _ in texts], orders, smoothing)


def _quietly(function: Callable[..., Any], references: Any, candidates: Any, orders: int, smoothing: str) -> float:
    from nltk.translate.bleu_score import SmoothingFunction

    smooth = SmoothingFunction(epsilon=FLOOR)
    how = smooth.method1 if smoothing == "floor" else smooth.method0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = float(function(references, candidates, weights=[1 / orders] * orders, smoothing_function=how))
    return found if math.isfinite(found) else 0.0
