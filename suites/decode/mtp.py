"""Multi-token prediction of DeepSeek-V3 as a draft (arXiv 2412.19437, section 2.2).

h' = W [norm(h_t) ; norm(embed(x_{t+1}))] goes through one more decoder block, a norm of its own and the shared head:
logits of x_{t+2}. Decoding drafts x_{t+2} so; the next step of the main model runs on both tokens and takes the draft
if it is its own greedy token: the text is that of plain greedy decoding, 1 + p tokens a step at acceptance p. The block
has a cache line of its own. Products per accepted token rise, (2 main + mtp) / (1 + p); bytes per token fall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count
from suites.common.decoder import EPS, Block, Decoder, DecoderCache, Generator, as_decoder
from suites.common.decoder_shape import DecoderShape, layer_parameters
from suites.common.initial import draw
from suites.common.speculation import Speculated, account, rolled_back
from suites.common.training import Pace
from suites.decode.added import added_bytes
from suites.decode.taught import taught

#: Weight of the second token's loss (0.1 late in the paper's training; recalled).
LOSS_WEIGHT = 0.3


def mtp(model: nn.Module, *, training_steps: Count = 0) -> Generator:
    """The decoder with one more block that drafts the token after next.

    Args:
        model: a decoder with a plain cache.
        training_steps: batches that decoder and block learn from together on the task the model was loaded by; 0 leaves
            the block at random: its drafts are wrong, the text is right all the same.

    Raises:
        ValueError: not such a model, or nothing to train on.
    """
    decoder = as_decoder(model, "mtp")
    both = MultiToken(decoder)
    pace = Pace(training_steps, rate=1e-3, fresh_rate=2e-3)
    return taught(both, decoder, mtp, {}, pace, lambda ids, _: both.loss(ids), both.ahead.parameters())


def added_parameters(shape: DecoderShape) -> int:
    """Parameters of the block like the last layer, the joint projection and three norms."""
    return layer_parameters(shape.layers[-1], shape) + 2 * shape.width**2 + 3 * shape.width


def macs_per_token(main: float, ahead: float, acceptance: float) -> float:
    """Products per new token: two positions of the main model and one of the block, over 1 + p tokens."""
    return (2 * main + ahead) / (1 + acceptance)


def speed_bound(acceptance: float, weight_ratio: float) -> float:
    """Most that drafting gains where weights are read once a step: (1 + p) / (1 + mtp / main weight bytes)."""
    return (1 + acceptance) / (1 + weight_ratio)


class Ahead(nn.Module):
    """What is added: norms, joint projection, block and last norm."""

    def __init__(self, shape: DecoderShape):
        super().__init__()
        self.norm_state = nn.RMSNorm(shape.width, eps=EPS)
        self.norm_token = nn.RMSNorm(shape.width, eps=EPS)
        self.joint = nn.Linear(2 * shape.width, shape.width, bias=False)
        self.block = Block(shape, shape.layers[-1])
        self.norm = nn.RMSNorm(shape.width, eps=EPS)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw(module.weight)

    def joined(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The block's input from states and embeddings of the tokens that follow them, both [batch, tokens, width]."""
        return self.joint(torch.cat([self.norm_state(states), self.norm_token(tokens)], dim=-1))


@dataclass(frozen=True)
class AheadCache:
    """The main cache, the block's own line, and the state of the last position, which waits for its token."""

    main: DecoderCache
    ahead: Any
    state: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of both caches and of the waiting state."""
        own = 0 if self.ahead is None else self.ahead.bytes
        return self.main.bytes + own + self.state.numel() * self.state.element_size()


class MultiToken(Generator):
    """A decoder and its block ahead. One token at a time it is the decoder; `generate` drafts and verifies."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder, self.ahead = decoder, Ahead(decoder.shape)
        self.vocabulary, self.shape = decoder.vocabulary, decoder.shape
        self._last: list[Speculated] = []

    def write(self, ids: Tensor, new: int) -> Tensor:
        """`new` greedy tokens after ids [batch, tokens], [batch, new]; sequences of a batch one after the other."""
        self._last = [self.generate(row[None], new) for row in ids]
        return torch.cat([found.ids for found in self._last])

    def written(self) -> dict[str, float | None]:
        """Tokens per step and acceptance over the sequences of the last answer."""
        return account(self._last)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position: the decoder's."""
        return self.decoder(ids)

    def second(self, ids: Tensor) -> Tensor:
        """Logits of x_{t+2} at every position t but the last, [batch, tokens - 1, vocabulary]."""
        x, by = self._states(ids), self.decoder.rotation(0, ids.shape[1] - 1)
        joined = self.ahead.joined(x[:, :-1], self.decoder.embed(ids[:, 1:]))
        return self.decoder.head(self.ahead.norm(self.ahead.block(joined, by)))

    def _states(self, ids: Tensor) -> Tensor:
        x, by = self.decoder.embed(ids), self.decoder.rotation(0, ids.shape[1])
        for block in self.decoder.blocks:
            x = block(x, by)
        return x

    def loss(self, ids: Tensor) -> Tensor:
        """Cross-entropy of the next token + 0.3 x that of the one after it."""
        first = F.cross_entropy(self.decoder(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        second = F.cross_entropy(self.second(ids[:, :-1]).flatten(0, 1), ids[:, 2:].flatten())
        return first + LOSS_WEIGHT * second

    def prefill(self, ids: Tensor) -> tuple[Tensor, AheadCache]:
        """Logits of the last position and both caches."""
        x, main = self.decoder.prefilled(ids)
        kept = None
        if ids.shape[1] > 1:
            joined = self.ahead.joined(x[:, :-1], self.decoder.embed(ids[:, 1:]))
            _, kept = self.ahead.block.prefill(joined, self.decoder.rotation(0, ids.shape[1] - 1))
        return self._logits(x[:, -1]), AheadCache(main, kept, x[:, -1:])

    def decode(self, ids: Tensor, cache: AheadCache) -> tuple[Tensor, AheadCache]:
        """Logits of the next position after further tokens; the block's line follows without drafting."""
        states, main = self.decoder.stepped(ids, cache.main)
        waiting = torch.cat([cache.state, states[:, :-1]], dim=1)
        _, kept = self._ahead(waiting, ids, cache.ahead, cache.main.seen - 1)
        return self._logits(states[:, -1]), AheadCache(main, kept, states[:, -1:])

    def _ahead(self, states: Tensor, tokens: Tensor, kept: Any, start: int) -> tuple[Tensor, Any]:
        """Logits of the token after `tokens` [batch, n] that follow the states, and the block's line.

        Positions count from `start`.
        """
        joined = self.ahead.joined(states, self.decoder.embed(tokens))
        by = self.decoder.rotation(start, tokens.shape[1])
        block = self.ahead.block
        x, kept = block.prefill(joined, by) if kept is None else block.step(joined, by, kept)
        return self.decoder.head(self.ahead.norm(x[:, -1])), kept

    def _logits(self, x: Tensor) -> Tensor:
        return self.decoder.head(self.decoder.norm(x))

    def generate(self, ids: Tensor, new: int) -> Speculated:
        """Greedy text with one drafted token per step.

        Raises:
            ValueError: more than one sequence.
        """
        if ids.shape[0] != 1:
            raise ValueError(f"one sequence at a time, not {ids.shape[0]}: each accepts another number of tokens")
        logits, cache = self.prefill(ids)
        main, kept, state = cache.main, cache.ahead, cache.state
        fresh = logits.argmax(dim=-1, keepdim=True)
        text, waiting = fresh, fresh  # `waiting`: tokens that the block has not seen, one for each state in `state`
        steps = drafted = accepted = 0
        while text.shape[1] < new:
            guess, kept = self._ahead(state, waiting, kept, main.seen - state.shape[1])
            draft = guess.argmax(dim=-1, keepdim=True)
            states, longer = self.decoder.stepped(torch.cat([text[:, -1:], draft], dim=1), main)
            own = self._logits(states).argmax(dim=-1)
            right = bool(own[0, 0] == draft[0, 0])
            used = 2 if right else 1
            main, state, waiting = rolled_back(longer, main.seen + used), states[:, :used], own[:, :used]
            text = torch.cat([text, own[:, :used]], dim=1)
            steps, drafted, accepted = steps + 1, drafted + 1, accepted + right
        return Speculated(text[:, :new], steps, drafted, accepted)

    def method_bytes(self) -> int:
        """Bytes of what is added."""
        return added_bytes(self.ahead)

    def cache_bits(self) -> dict[str, float]:
        """Bits of one number: its own."""
        return self.decoder.cache_bits()
