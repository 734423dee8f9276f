"""Sums of three numbers written out in two steps, with a verifier: `37+58+14=37+58=95;95+14=109;`, then a line feed.

A module that searches writes whole answers (`write`), any other is read greedily; an answer is right if the last number
in it is the sum. What is learned from: the text, and the same text with wrong digits, for a reward model that marks
every position.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.quality import Run, SamplesDigest
from bench.scores import Score, proportion
from suites.common.task import TaskError, TrainedTask
from suites.common.training import Pace, fit

MARK, END = ord(";"), ord("\n")
#: Bytes of a prompt, and of the longest answer with its line feed.
PROMPT, ANSWER = 9, 22
#: Small enough that a minute of training is enough for most sums.
LOW, HIGH = 10, 19
#: Of all triples one in so many is held out.
EVERY = 10


@dataclass(frozen=True)
class Training:
    """How generator and reward model are trained together."""

    steps: int = 500
    batch: int = 32
    rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


def prompt_text(a: int, b: int, c: int) -> str:
    """What is asked: `37+58+14=`."""
    return f"{a}+{b}+{c}="


def answer_text(a: int, b: int, c: int) -> str:
    """What is to be written: `37+58=95;95+14=109;` and a line feed."""
    return f"{a}+{b}={a + b};{a + b}+{c}={a + b + c};\n"


def is_right(answer: str, a: int, b: int, c: int) -> bool:
    """Whether the last number of the answer's last step is the sum."""
    found = re.fullmatch(r"(?:[^;\n]*;)*[^;\n]*=(\d+);", answer.partition("\n")[0])
    return found is not None and int(found[1]) == a + b + c


def is_held_out(a: int, b: int, c: int) -> bool:
    """Whether nobody learns from this triple."""
    return hashlib.sha256(f"{a} {b} {c}".encode()).digest()[0] % EVERY == 0


def ids_of(text: str, length: int) -> Tensor:
    """The text's bytes, filled up with line feeds, [length]."""
    return torch.tensor(list(text.encode().ljust(length, b"\n")))


class Additions(TrainedTask):
    """A share of exact answers on held-out sums; the module trains a generator and a reward model, `loss(clean,
    wrong)`.
    """

    name = "additions"
    metric = "accuracy"

    def __init__(self, cache: Path, seed: int, *, training: Training | None = None, problems: int = 50):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the sums to learn from.
            training: the recipe; None for the default.
            problems: held-out sums that are scored.

        Raises:
            TaskError: no problem.
        """
        super().__init__(cache, seed)
        if problems < 1:
            raise TaskError(f"problems={problems}: at least one held-out sum is needed")
        self.training, self.problems = training or Training(), problems

    def held_out(self) -> list[tuple[int, int, int]]:
        """The sums that are scored, the same for every seed."""
        return self._triples(torch.Generator().manual_seed(0), self.problems, held_out=True)

    @staticmethod
    def _triples(generator: torch.Generator, count: int, held_out: bool) -> list[tuple[int, int, int]]:
        found: list[tuple[int, int, int]] = []
        while len(found) < count:
            for a, b, c in torch.randint(LOW, HIGH + 1, (4 * count, 3), generator=generator).tolist():
                if is_held_out(a, b, c) == held_out and len(found) < count:
                    found.append((a, b, c))
        return found

    def prompts(self, count: int) -> Tensor:
        """So many prompts of held-out sums, [count, 9], from the start again where there are not enough."""
        triples = self.held_out()
        return torch.stack([ids_of(prompt_text(*triples[i % len(triples)]), PROMPT) for i in range(count)])

    # ------------------------------------------------------------------------------------------ the weights

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module writes bytes and learns from right and wrong answers."""
        if getattr(module, "vocabulary", None) != 256 or not callable(getattr(module, "loss", None)):
            raise TaskError(
                f'model "{model_name}" has no generator and reward model of bytes to learn {self.name}: '
                "take addition_search"
            )

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train both; the last loss and the share of exact answers."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        batches = self.training_batches(how.batch, how.steps, self.seed)
        losses = fit(module, batches, module.loss, pace)  # type: ignore[arg-type]
        with torch.inference_mode():
            held_out = self.score(Run(module))
        return {"train_loss": sum(losses[-10:]) / len(losses[-10:]), "test_accuracy": held_out.value}

    def data_digest(self) -> str:
        """Hash of the held-out sums and of how sums are written."""
        text = "".join(prompt_text(*triple) + answer_text(*triple) for triple in self.held_out())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def recipe(self) -> dict[str, Any]:
        """The training."""
        return asdict(self.training)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of right texts and of the same with wrong digits in half of the answers, [batch, 31] both."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            triples = self._triples(generator, batch_size, held_out=False)
            clean = torch.stack([ids_of(prompt_text(*t) + answer_text(*t), PROMPT + ANSWER) for t in triples])
            yield clean, spoilt(clean, generator)

    # ------------------------------------------------------------------------------------------ the score

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The prompts and the sums."""
        triples = self.held_out()
        for start in range(0, len(triples), batch_size):
            part = triples[start : start + batch_size]
            yield torch.stack([ids_of(prompt_text(*t), PROMPT) for t in part]), torch.tensor([sum(t) for t in part])

    def score(self, run: Run) -> Score:
        """Percent of exact answers."""
        seen, marks, triples = SamplesDigest(), "", self.held_out()
        for prompts, sums in self.batches(run.batch):
            seen.feed(prompts, sums)
            for row in self._answers(run, run.send(prompts)).tolist():
                text = bytes(byte if byte < 128 else 63 for byte in row).decode()
                marks += str(int(is_right(text, *triples[len(marks)])))
        return proportion("accuracy", marks, seen.hex())

    @staticmethod
    def _answers(run: Run, prompts: Tensor) -> Tensor:
        module: Any = run.module
        if callable(getattr(module, "write", None)):
            return module.write(prompts, ANSWER)
        logits, cache = module.prefill(prompts)
        out = [logits.argmax(dim=-1, keepdim=True)]
        for _ in range(ANSWER - 1):
            logits, cache = module.decode(out[-1], cache)
            out.append(logits.argmax(dim=-1, keepdim=True))
        return torch.cat(out, dim=1)

    def describe(self) -> dict[str, Any]:
        """Name, split, number of samples, digest of the data and how it is written."""
        return {
            "name": self.name, "split": f"one triple of {LOW} to {HIGH} in {EVERY}", "n": self.problems,
            "digest": self.data_digest(), "preprocessing": {"prompt": PROMPT, "answer": ANSWER},
        }  # fmt: skip


def spoilt(clean: Tensor, generator: torch.Generator) -> Tensor:
    """The same texts, half of them with one or two digits of the answer changed."""
    wrong = clean.clone()
    for _ in range(2):
        place = torch.randint(PROMPT, clean.shape[1], (len(clean), 1), generator=generator)
        old = wrong.gather(1, place)
        new = torch.randint(48, 58, old.shape, generator=generator)
        chosen = torch.rand(old.shape, generator=generator) < 0.4
        is_digit = (old >= 48) & (old < 58)
        wrong.scatter_(1, place, torch.where(chosen & is_digit, new, old))
    return wrong


def answer_loss(logits: Tensor, clean: Tensor) -> Tensor:
    """Cross-entropy of the answer's bytes up to the first line feed; logits [batch, length - 1, 256]."""
    wanted = clean[:, 1:].clone()
    ended = (wanted == END).cumsum(dim=1) - (wanted == END).long() > 0
    wanted[ended] = -100
    wanted[:, : PROMPT - 1] = -100
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)


def reward_loss(marks: Tensor, clean: Tensor, wrong: Tensor) -> Tensor:
    """Cross-entropy of a mark per position: whether all bytes up to it are right; of the answer's positions alone."""
    right = (clean == wrong).long().cumprod(dim=1)
    return F.binary_cross_entropy_with_logits(marks[:, PROMPT:], right[:, PROMPT:].to(marks.dtype))
