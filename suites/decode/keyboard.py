"""Keyboard decoding by a character-based encoder and a word-based decoder (Ghosh and Kristensson 2017, arXiv
1709.06429).

Typed characters go through a convolution of three and a recurrent encoder; a recurrent decoder over words looks back at
the encoder by dot-product attention and chooses among V words. Reconstruction: the sizes could not be read, and all are
settings. The output layer is most of the memory; `tied` replaces it by the embedding table behind a small map.

Parameters: 128 c + (3 c + 1) f + 3 h (f + h) + 6 h of the encoder with c numbers a character, f filters and h units;
e V + 3 h (e + 2 h) + 6 h + (2 h + 1) V of the decoder with e numbers a word. A line of N characters and W words
multiplies N (3 c f + 3 h (f + h)) + W (3 h (e + 2 h) + 4 N h + 2 h V): the decoder looks back before
and after every word.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.decoder import Generator
from suites.common.tasks.keyboard_lines import CHARACTERS, lexicon

ALPHABET = 128


def keyboard_cced(
    *,
    vocabulary: PositiveInt = 1000,
    character: PositiveInt = 32,
    filters: PositiveInt = 64,
    hidden: PositiveInt = 128,
    word: PositiveInt = 64,
    tied: bool = False,
) -> KeyboardNetwork:
    """The correction network in evaluation mode with random weights.

    Args:
        vocabulary: V, words that it can write.
        character: numbers of a character's embedding.
        filters: of the convolution over three characters.
        hidden: units of encoder and decoder.
        word: numbers of a word's embedding.
        tied: whether words are chosen by the embedding table behind a map of 2 h to `word`.

    Raises:
        ValueError: fewer than two words.
    """
    lexicon(vocabulary)
    return KeyboardNetwork(vocabulary, character, filters, hidden, word, tied).eval()


@dataclass(frozen=True)
class Read:
    """What is kept between words: the encoder's states of the line and the decoder's own."""

    encoded: Tensor
    state: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of both."""
        return sum(t.numel() * t.element_size() for t in (self.encoded, self.state))


class KeyboardNetwork(Generator):
    """Characters in, words out."""

    writes_words = True

    def __init__(self, vocabulary: int, character: int, filters: int, hidden: int, word: int, tied: bool):
        super().__init__()
        self.vocabulary, self.hidden = vocabulary, hidden
        self.characters = nn.Embedding(ALPHABET, character)
        self.filters = nn.Conv1d(character, filters, 3, padding=1)
        self.encoder = nn.GRU(filters, hidden, batch_first=True)
        self.words = nn.Embedding(vocabulary, word)
        self.decoder = nn.GRU(word + hidden, hidden, batch_first=True)
        self.narrow = nn.Linear(2 * hidden, word, bias=False) if tied else nn.Identity()
        self.out = nn.Linear(word if tied else 2 * hidden, vocabulary)
        if tied:
            self.out.weight = self.words.weight

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random characters, [batch, characters]."""
        return (torch.randint(97, 123, (batch, CHARACTERS), device=self.words.weight.device),)

    def encoded(self, lines: Tensor) -> Tensor:
        """States of every character, [batch, characters, hidden]."""
        seen = self.filters(self.characters(lines.clamp(max=ALPHABET - 1)).transpose(1, 2)).relu()
        return self.encoder(seen.transpose(1, 2))[0]

    def _word(self, encoded: Tensor, state: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the next word [batch, V] and the state [batch, 1, hidden] after word `number` [batch, 1]."""
        context = self._context(encoded, state)
        given = torch.cat([self.words(number), context], dim=-1)
        state = self.decoder(given, state.transpose(0, 1).contiguous())[0]
        chosen = torch.cat([state, self._context(encoded, state)], dim=-1)[:, 0]
        return self.out(self.narrow(chosen)), state

    @staticmethod
    def _context(encoded: Tensor, state: Tensor) -> Tensor:
        """The encoder's states mixed by how well they fit the decoder's, [batch, 1, hidden]."""
        return (state @ encoded.transpose(1, 2)).softmax(dim=-1) @ encoded

    def prefill(self, ids: Tensor) -> tuple[Tensor, Read]:
        """Logits of the first word [batch, V] of typed lines [batch, characters], and what is kept."""
        encoded = self.encoded(ids)
        start = torch.zeros_like(ids[:, :1])
        logits, state = self._word(encoded, encoded[:, -1:], start)
        return logits, Read(encoded, state)

    def decode(self, ids: Tensor, cache: Read) -> tuple[Tensor, Read]:
        """Logits of the word after `ids` [batch, 1], and what is kept."""
        logits, state = self._word(cache.encoded, cache.state, ids)
        return logits, Read(cache.encoded, state)

    def forced(self, lines: Tensor, words: Tensor) -> Tensor:
        """Logits of every word of a line after the true ones before it, [batch, words + 1, V]."""
        logits, kept = self.prefill(lines)
        out = [logits]
        for place in range(words.shape[1]):
            logits, kept = self.decode(words[:, place : place + 1], kept)
            out.append(logits)
        return torch.stack(out, dim=1)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the first word, [batch, V]."""
        return self.prefill(ids)[0]

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own."""
        own = 8.0 * self.words.weight.element_size()
        return {"nominal": own, "stored": own}


def parameters(vocabulary: int, character: int = 32, filters: int = 64, hidden: int = 128, word: int = 64) -> int:
    """Parameters of the untied network."""
    encoder = ALPHABET * character + (3 * character + 1) * filters + 3 * hidden * (filters + hidden) + 6 * hidden
    decoder = word * vocabulary + 3 * hidden * (word + 2 * hidden) + 6 * hidden
    return encoder + decoder + (2 * hidden + 1) * vocabulary
