"""Lines typed with slips: words of the text that ships with Python, with key-neighbour, omission and transposition
errors.

A line is six words of letters; typed it is its characters with one slip in some of its words, filled up with zeros. A
module reads the characters (`prefill`) and writes words (`decode`), numbers of the most frequent words of the part that
is learned from; number 0 stands for a word outside them. The score is the share of characters that are wrong.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache as remember
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.quality import Run, SamplesDigest
from bench.scores import Score, mean, proportion
from suites.common.task import TaskError, TrainedTask
from suites.common.tasks.text_bytes import HELD_OUT, python_topics
from suites.common.training import Pace, fit

#: Words of a line, letters of the longest word, characters of a typed line with a space after every word.
WORDS, LETTERS = 6, 12
CHARACTERS = WORDS * (LETTERS + 1)
#: What a word outside the vocabulary is written as.
UNKNOWN = "?"
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@dataclass(frozen=True)
class Training:
    """How a network is trained; a table is counted from the same lines.

    Small batches: where to look in a line is learned late, and by steps more than by lines: 400 of 64 left 70.6 % of
    the characters wrong, 1600 of 16, which are as many lines, 41.6 %.
    """

    steps: int = 1600
    batch: int = 16
    rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


@remember
def parts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words that are learned from and words that are held out, in the order of the text."""
    words = [word for word in re.findall(r"[a-z]+", python_topics().decode().lower()) if len(word) <= LETTERS]
    cut = len(words) - int(HELD_OUT * len(words))
    return tuple(words[:cut]), tuple(words[cut:])


@remember
def lexicon(size: int) -> tuple[str, ...]:
    """What the numbers 0 .. size - 1 stand for: unknown, then the most frequent words, equals by the alphabet.

    Numbers beyond the text's words stand for nothing that is ever written, which keeps a network's size its own.

    Raises:
        ValueError: fewer than two numbers.
    """
    if size < 2:
        raise ValueError(f"vocabulary={size}: at least 2 numbers are wanted, one of them for unknown words")
    counts = Counter(parts()[0])
    ordered = sorted(counts, key=lambda word: (-counts[word], word))[: size - 1]
    return (UNKNOWN, *ordered, *[UNKNOWN] * (size - 1 - len(ordered)))


@remember
def neighbours() -> dict[str, str]:
    """The keys beside each key, in its row and in the rows above and below."""
    found = {}
    for row, keys in enumerate(ROWS):
        for place, key in enumerate(keys):
            near = [keys[i] for i in (place - 1, place + 1) if 0 <= i < len(keys)]
            for other in (row - 1, row + 1):
                if 0 <= other < len(ROWS):
                    near += [ROWS[other][i] for i in (place - 1, place, place + 1) if 0 <= i < len(ROWS[other])]
            found[key] = "".join(near)
    return found


def slipped(word: str, kind: int, place: int, choice: int) -> str:
    """The word with one slip: 0 a neighbouring key, 1 a letter left out, 2 two letters swapped; too short ones stay."""
    place %= len(word)
    if kind == 0:
        near = neighbours()[word[place]]
        return word[:place] + near[choice % len(near)] + word[place + 1 :]
    if len(word) < 2:
        return word
    if kind == 1:
        return word[:place] + word[place + 1 :]
    place = min(place, len(word) - 2)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def typed(words: list[str], generator: torch.Generator, share: float) -> str:
    """A line as it was typed: every word with a chance of one slip, a space after each."""
    dice = torch.randint(2**30, (len(words), 3), generator=generator).tolist()
    chance = torch.rand(len(words), generator=generator).tolist()
    slips = [
        slipped(word, kind % 3, place, choice) if luck < share else word
        for word, (kind, place, choice), luck in zip(words, dice, chance, strict=True)
    ]
    return "".join(f"{word} " for word in slips)


def characters(line: str) -> list[int]:
    """Byte values of a typed line, filled up with zeros."""
    return list(line.encode().ljust(CHARACTERS, b"\0"))


def edit_distance(first: str, second: str) -> int:
    """Least insertions, deletions and changes from one to the other (Levenshtein 1966)."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


class KeyboardLines(TrainedTask):
    """Lines of six words; the last tenth of the text is held out. A module says its `vocabulary`."""

    name = "keyboard_lines"
    metric = "character_error_rate"

    def __init__(
        self, cache: Path, seed: int, *, training: Training | None = None, lines: int = 200, share: float = 0.5
    ):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the lines to learn from.
            training: the recipe; None for the default.
            lines: held-out lines that are scored.
            share: of the words that have a slip.

        Raises:
            TaskError: no line, more than there are, or no share.
        """
        super().__init__(cache, seed)
        most = len(parts()[1]) // WORDS
        if not 1 <= lines <= most or not 0 <= share <= 1:
            raise TaskError(f"lines={lines}, share={share:g}: 1 to {most} lines and a share from 0 to 1 are there")
        self.training, self.lines, self.share = training or Training(), lines, share
        self.vocabulary = 1000

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module writes words; settles how many it knows."""
        if not getattr(module, "writes_words", False):
            raise TaskError(f'model "{model_name}" writes no words: take keyboard_cced or keyboard_trigram')
        self.vocabulary = int(module.vocabulary)  # type: ignore[arg-type]

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train a network, or count the words for a table; the score on held-out lines."""
        how, found = self.training, {}
        if callable(getattr(module, "count_words", None)):
            module.count_words(parts()[0])  # type: ignore[operator]
        else:
            pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
            batches = self.training_batches(how.batch, how.steps, self.seed)
            losses = fit(module, batches, lambda lines, words: word_loss(module, lines, words), pace)
            found["train_loss"] = sum(losses[-10:]) / len(losses[-10:])
        with torch.inference_mode():
            score = self.score(Run(module))
        return {**found, "test_character_error_rate": score.value}

    def data_digest(self) -> str:
        """Hash of the text and of the share of slips."""
        return hashlib.sha256(python_topics() + f"{self.share:g} {self.lines}".encode()).hexdigest()[:16]

    def recipe(self) -> dict[str, Any]:
        """The training."""
        return asdict(self.training)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of typed lines [batch, characters] and of their words' numbers [batch, 6]."""
        source, numbers = parts()[0], self._numbers()
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            starts = torch.randint(len(source) - WORDS, (batch_size,), generator=generator).tolist()
            lines = [list(source[start : start + WORDS]) for start in starts]
            yield self._typed(lines, generator), torch.tensor([[numbers.get(w, 0) for w in line] for line in lines])

    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(lexicon(self.vocabulary)) if word != UNKNOWN}

    def _typed(self, lines: list[list[str]], generator: torch.Generator) -> Tensor:
        return torch.tensor([characters(typed(line, generator, self.share)) for line in lines])

    # ------------------------------------------------------------------------------------------ the score

    def held_out(self) -> list[list[str]]:
        """The lines that are scored."""
        words = parts()[1]
        return [list(words[i * WORDS : (i + 1) * WORDS]) for i in range(self.lines)]

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Typed held-out lines, the same for every seed, and their words' numbers."""
        generator, numbers, lines = torch.Generator().manual_seed(0), self._numbers(), self.held_out()
        everything = self._typed(lines, generator)
        wanted = torch.tensor([[numbers.get(word, 0) for word in line] for line in lines])
        yield from zip(everything.split(batch_size), wanted.split(batch_size), strict=True)

    def score(self, run: Run) -> Score:
        """Mean percent of wrong characters of a line; beside it the percent of exact words."""
        seen, words, lines = SamplesDigest(), lexicon(self.vocabulary), self.held_out()
        rates, exact = list[float](), ""
        for typed_lines, wanted in self.batches(run.batch):
            seen.feed(typed_lines, wanted)
            for numbers in written_words(run.module, run.send(typed_lines)).tolist():
                line = lines[len(rates)]
                said = [words[number] for number in numbers]
                exact += "".join(str(int(a == b)) for a, b in zip(said, line, strict=True))
                whole = " ".join(line)
                rates.append(100 * edit_distance(" ".join(said), whole) / len(whole))
        digest = seen.hex()
        found = mean("character_error_rate", rates, digest, how="greedy, six words a line")
        return Score(**{**found.__dict__, "also": (proportion("accuracy", exact, digest),)})

    def describe(self) -> dict[str, Any]:
        """Name, split, sizes and how lines are typed."""
        return {
            "name": self.name,
            "split": "the last tenth of the text",
            "n": self.lines,
            "digest": self.data_digest(),
            "preprocessing": {
                "words": WORDS,
                "characters": CHARACTERS,
                "slips": self.share,
                "vocabulary": self.vocabulary,
            },
        }


def written_words(module: Any, lines: Tensor) -> Tensor:
    """The greedy words of typed lines, [batch, 6]."""
    said, kept = module.prefill(lines)
    out = [said.argmax(dim=-1, keepdim=True)]
    for _ in range(WORDS - 1):
        said, kept = module.decode(out[-1], kept)
        out.append(said.argmax(dim=-1, keepdim=True))
    return torch.cat(out, dim=1)


def word_loss(module: Any, lines: Tensor, words: Tensor) -> Tensor:
    """Cross-entropy of every word after the true ones before it."""
    return F.cross_entropy(module.forced(lines, words[:, :-1]).flatten(0, 1), words.flatten())
