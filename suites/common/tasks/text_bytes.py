"""Text as bytes: the help topics that ship with Python, and decoders that learn them in a minute or two.

The text differs between versions of Python, so its version, size and hash are told, and scores of two texts are never
compared: they have other digests. The score is what a decoder needs to predict held-out bytes through its own cache.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache as remember
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.quality import QualityError, Run, SamplesDigest, check_finite, logits
from bench.scores import Score, mean
from suites.common.task import TaskError, TrainedTask
from suites.common.training import Pace, classification, fit

VOCABULARY = 256
#: Share of the text that is held out: its end.
HELD_OUT = 0.1


@dataclass(frozen=True)
class Training:
    """How a decoder is trained; batches are random stretches of `length` bytes."""

    steps: int = 150
    batch: int = 16
    length: int = 256
    rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip: float = 1.0


@remember
def python_topics() -> bytes:
    """The entries of `pydoc_data.topics`, sorted by key, one after the other."""
    from pydoc_data.topics import topics

    return "".join(topics[key] for key in sorted(topics)).encode()


class TextBytes(TrainedTask):
    """Bits per byte of the last tenth of a text; the first nine tenths are there to learn from.

    The held-out bytes are cut into pieces of twice `prompt` bytes, each half a piece after the last: the first half of
    a piece is read at once, every byte of the second half is predicted from all before it in the piece. A module with
    `prefill` and `decode` predicts byte by byte through its cache, any other in one pass.
    """

    name = "text_bytes"
    metric = "bits_per_byte"

    def __init__(
        self, cache: Path, seed: int, *, training: Training | None = None, prompt: int = 128, scored: int | None = 64
    ):
        """Nothing is trained yet.

        Args:
            cache: folder under which trained weights are kept.
            seed: of the stretches to learn from; the weights start from the model's own seed.
            training: the recipe; None for the default.
            prompt: bytes that are read before the first is predicted.
            scored: most pieces that are scored, spread evenly over the held-out text; None for all.

        Raises:
            TaskError: the held-out text is shorter than one piece, or none is to be scored.
        """
        super().__init__(cache, seed)
        self.training = training or Training()
        self.prompt, self.scored = prompt, scored
        if scored is not None and scored < 1:
            raise TaskError(f"scored={scored}: at least one piece of the held-out text is needed")
        learnt, held_out = self.parts()
        if prompt < 1 or len(held_out) < 2 * prompt or len(learnt) <= self.training.length:
            raise TaskError(
                f"the text has {len(learnt)} bytes to learn from and {len(held_out)} held out: with prompt={prompt} it "
                f"needs more than {self.training.length} and {2 * prompt} or more"
            )

    def text(self) -> bytes:
        """The whole text."""
        return python_topics()

    def parts(self) -> tuple[Tensor, Tensor]:
        """What is learned from and what is held out, as whole numbers 0..255."""
        whole = torch.frombuffer(bytearray(self.text()), dtype=torch.uint8).long()
        cut = len(whole) - int(HELD_OUT * len(whole))
        return whole[:cut], whole[cut:]

    def pieces(self) -> Tensor:
        """The pieces that are scored, [n, 2 x prompt]: all of them, or `scored` at even distances."""
        every = self.parts()[1].unfold(0, 2 * self.prompt, self.prompt)
        count = len(every) if self.scored is None else min(self.scored, len(every))
        return every[torch.arange(count) * len(every) // count]

    # ------------------------------------------------------------------------------------------ the weights

    def fits(self, module: nn.Module, model_name: str) -> None:
        """Raise TaskError unless the module predicts bytes."""
        vocabulary = getattr(module, "vocabulary", VOCABULARY)
        if vocabulary != VOCABULARY:
            raise TaskError(
                f'model "{model_name}" has a vocabulary of {vocabulary} and {self.name} has {VOCABULARY} bytes: take '
                f"byte_3m, or build it with vocabulary={VOCABULARY}"
            )

    def learn(self, module: nn.Module) -> dict[str, Any]:
        """Train the decoder; the loss of its last steps and its score, in bits per byte."""
        how = self.training
        pace = Pace(how.steps, how.rate, warmup=how.warmup, weight_decay=how.weight_decay, clip=how.clip)
        batches = self.training_batches(how.batch, how.steps, self.seed)
        losses = fit(module, batches, classification(module), pace)
        with torch.inference_mode():
            held_out = self.score(Run(module))
        last = losses[-10:]
        return {"train_bits_per_byte": sum(last) / len(last) / math.log(2), "test_bits_per_byte": held_out.value}

    def data_digest(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text()).hexdigest()[:16]

    def recipe(self) -> dict[str, Any]:
        """The training."""
        return asdict(self.training)

    def training_batches(self, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """`steps` batches of random stretches of the text and of the bytes that follow each, [batch, length] both."""
        source, length = self.parts()[0], self.training.length
        generator = torch.Generator().manual_seed(seed)
        reach = torch.arange(length + 1)
        for _ in range(steps):
            start = torch.randint(len(source) - length, (batch_size, 1), generator=generator)
            stretch = source[start + reach]
            yield stretch[:, :-1], stretch[:, 1:]

    # ------------------------------------------------------------------------------------------ the score

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out pieces without their last byte, and the bytes that follow each."""
        for part in self.pieces().split(batch_size):
            yield part[:, :-1], part[:, 1:]

    def score(self, run: Run) -> Score:
        """Bits per byte over the second half of every piece."""
        seen, values = SamplesDigest(), list[float]()
        cached = hasattr(run.module, "prefill") and hasattr(run.module, "decode")
        for part in self.pieces().split(run.batch):
            seen.feed(part, self.prompt)
            bits = self._through_cache(run, part) if cached else self._in_one_pass(run, part)
            check_finite(bits, "bits per byte", done=len(values))
            values += bits.mean(dim=1).tolist()
        how = "prefill, then byte by byte through the cache" if cached else "one pass"
        return mean("bits_per_byte", values, seen.hex(), prompt=self.prompt, how=how)

    def _in_one_pass(self, run: Run, part: Tensor) -> Tensor:
        """Bits of every byte of the second halves, [batch, prompt]."""
        said = logits(run(part[:, :-1]))
        if said.shape[:2] != (len(part), part.shape[1] - 1):
            raise QualityError(
                f"logits of shape {tuple(said.shape)} cannot be scored: expected (batch, bytes, vocabulary)"
            )
        return _bits(said[:, self.prompt - 1 :], part[:, self.prompt :])

    def _through_cache(self, run: Run, part: Tensor) -> Tensor:
        """The same, where each step reads what the module kept of those before."""
        module: Any = run.module
        ids = run.send(part)
        said, kept = module.prefill(ids[:, : self.prompt])
        bits = [_bits(said, part[:, self.prompt])]
        for place in range(self.prompt, part.shape[1] - 1):
            said, kept = module.decode(ids[:, place : place + 1], kept)
            bits.append(_bits(said, part[:, place + 1]))
        return torch.stack(bits, dim=1)

    def describe(self) -> dict[str, Any]:
        """Name, split, sizes, the version of Python that the text is of, and its hash."""
        learnt, held_out = self.parts()
        return {
            "name": self.name,
            "split": "the last tenth of the text",
            "n": len(self.pieces()),
            "digest": self.data_digest(),
            "source": self.source(),
            "bytes": len(learnt) + len(held_out),
            "held_out_bytes": len(held_out),
            "preprocessing": {
                "prompt": self.prompt,
                "piece": 2 * self.prompt,
                "scored": self.scored,
                "vocabulary": VOCABULARY,
            },
        }

    def source(self) -> str:
        """Where the text comes from."""
        return f"pydoc_data.topics of Python {platform.python_version()}"


def _bits(said: Tensor, wanted: Tensor) -> Tensor:
    """-log2 of the probability that the logits [..., vocabulary] give to what came, in single precision on the CPU."""
    chances = said.float().log_softmax(dim=-1).cpu()
    return -chances.gather(-1, wanted.unsqueeze(-1)).squeeze(-1) / math.log(2)
