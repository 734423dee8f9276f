"""co_transformer: attention over a ring of keys and values (Hedegaard, Bakhtiarnia, Iosifidis 2022, arXiv 2201.06268).

One layer answers for the newest token alone: it keeps keys and values, and asks with one query. Where a further layer
follows, the first is retroactive: all outputs of the window are updated when a token enters and one leaves, from kept
queries, keys, values, denominators and sums that are not normalised. Every token of the layers behind it has changed
then, so those between run whole and the last one makes the newest token alone.

Exponentials are taken without subtracting a maximum, as the update needs; scores beyond +-LIMIT are held there, so
that sums stay finite. Sums are kept in float32 or finer, drift by rounding, and are made anew every `refresh` steps.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count
from suites.streaming.encoder import Encoder, EncoderLayer
from suites.streaming.rings import forget

#: Scores are held within this: exp(40) times a sum of many fits single precision.
LIMIT = 40.0
#: Steps after which the drift of exchanged sums is read.
LONG = 10_000

State = list[Any]


class CoEncoder(nn.Module):
    """The encoder as a stream of tokens; slot t mod n of every ring belongs to token t."""

    time_dim = 1
    output_dim = 1
    hop = period = 1
    exact = True
    dependency_delay = 0.0
    alignment_delay = 0
    fixed_window = True

    def __init__(self, net: Encoder, warm: str, refresh: int, last_q: str):
        super().__init__()
        self.net, self.warm, self.refresh, self.last_q = net, warm, refresh, last_q
        self.n = self.window = self.receptive_field = net.n
        self.classes = net.classes
        self.first_output = 0 if warm == "partial" else net.n - 1
        self.transient = net.n - 1
        self.deep = len(net.layers) > 1
        self.cycle = refresh if self.deep and refresh else 1
        self.drift_steps = LONG if self.deep else 0
        self.time_repeats = 1 if net.positions is None else len(net.positions)

    def init(self, batch: int) -> State:
        """Nothing seen; the first token tells the batch."""
        del batch
        return [0]

    def reset(self, state: State, stream: int) -> None:
        """Make one stream of the batch forget; until n tokens later it sees tokens of zeros."""
        forget(state, stream)
        if self.deep and len(state) > 1:
            with torch.inference_mode():
                state[5][stream] = min(state[0], self.n)  # denominators of so many zeros, each of exponential 1

    def step(self, x: Tensor, state: State) -> tuple[Tensor | None, State]:
        """Logits [batch, classes] after one token, and the state."""
        time = state[0]
        token = self.net.tokens(x[:, None], time)
        if len(state) == 1:
            state += self._kept(token)
        if self.deep:
            newest = self._through(self.retroactive(token, state), time)
        else:
            newest = self._single(self.net.layers[0], token, state)  # type: ignore[arg-type]
        state[0] = time + 1
        if self.warm == "none" and time + 1 < self.n:
            return None, state
        return self.net.classify(newest[:, 0]), state

    def _kept(self, token: Tensor) -> list[Tensor]:
        """Room for the rings: keys and values; and for a retroactive layer queries, sums, denominators and tokens."""
        rings = 2 + 2 * self.deep
        heads, size = self.net.h, self.net.d // self.net.h
        kept = [token.new_zeros(len(token), heads, self.n, size) for _ in range(rings)]
        if self.deep:
            kept += [token.new_zeros(len(token), heads, self.n, 1), token.new_zeros(len(token), self.n, self.net.d)]
            wide = torch.promote_types(token.dtype, torch.float32)
            kept[3], kept[4] = kept[3].to(wide), kept[4].to(wide)
        return kept

    def _single(self, layer: EncoderLayer, token: Tensor, state: State) -> Tensor:
        """The newest token after a layer that keeps keys and values."""
        time, keys, values = state
        slot, live = time % self.n, min(time + 1, self.n)
        keys[:, :, slot] = layer.split(layer.k(token))[:, :, 0]
        values[:, :, slot] = layer.split(layer.v(token))[:, :, 0]
        query = layer.split(layer.q(token))
        return layer.finish(token, layer.attend(query, keys[:, :, :live], values[:, :, :live]))

    def retroactive(self, token: Tensor, state: State) -> Tensor:
        """All living tokens after the first layer, in the order of their slots, [batch, tokens, width]."""
        layer: EncoderLayer = self.net.layers[0]  # type: ignore[assignment]
        time, queries, keys, values, sums, below, tokens = state
        slot, live = time % self.n, min(time + 1, self.n)
        anew = bool(self.refresh) and (time + 1) % self.refresh == 0
        q = layer.split(layer.q(token)) * (self.net.d // self.net.h) ** -0.5
        k, v = layer.split(layer.k(token)), layer.split(layer.v(token))
        came = (k, v) if time < self.n else (
            torch.cat([k, keys[:, :, slot : slot + 1]], 2), torch.cat([v, values[:, :, slot : slot + 1]], 2)
        )  # fmt: skip
        rows = [] if anew else [(0, slot), (slot + 1, live)]
        for first, end in rows:
            if first < end:
                asking, over, under = (each[:, :, first:end] for each in (queries, sums, below))
                self._exchange(asking, over, under, *came)
        for ring, new in ((queries, q), (keys, k), (values, v)):
            ring[:, :, slot] = new[:, :, 0]
        tokens[:, slot] = token[:, 0]
        if anew:
            self._sum_up(queries, keys, values, sums, below, 0, live, live)
        else:
            self._sum_up(queries, keys, values, sums, below, slot, slot + 1, live)
        seen = (sums[:, :, :live] / below[:, :, :live]).transpose(1, 2).flatten(2).to(token.dtype)
        return layer.finish(tokens[:, :live], seen)

    def _exchange(self, queries: Tensor, sums: Tensor, below: Tensor, keys: Tensor, values: Tensor) -> None:
        """Add the entering token's term to rows and take the leaving one's off, in place."""
        queries, keys, values = (each.to(sums.dtype) for each in (queries, keys, values))
        weights = _exponential(queries @ keys.transpose(2, 3))
        if weights.shape[3] == 2:
            weights = weights * weights.new_tensor([1.0, -1.0])
        below += weights.sum(3, keepdim=True)
        sums += weights @ values

    def _sum_up(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        sums: Tensor,
        below: Tensor,
        first: int,
        end: int,
        live: int,
    ) -> None:
        """Sums and denominators of rows `first` to `end` from the living keys and values."""
        asking, keys, values = queries[:, :, first:end], keys[:, :, :live], values[:, :, :live]
        asking, keys, values = (each.to(sums.dtype) for each in (asking, keys, values))
        weights = _exponential(asking @ keys.transpose(2, 3))
        below[:, :, first:end] = weights.sum(3, keepdim=True)
        sums[:, :, first:end] = weights @ values

    def _through(self, tokens: Tensor, time: int) -> Tensor:
        """The newest token after the layers behind the retroactive one."""
        *between, layer = list(self.net.layers)[1:]
        assert isinstance(layer, EncoderLayer)
        for each in between:
            tokens = each(tokens)
        slot = time % self.n
        newest = tokens[:, slot : slot + 1]
        if self.last_q == "all":
            query = layer.split(layer.q(tokens))[:, :, slot : slot + 1]
        else:
            query = layer.split(layer.q(newest))
        return layer.finish(newest, layer.attend(query, layer.split(layer.k(tokens)), layer.split(layer.v(tokens))))

    def offline(self, clip: Tensor) -> Tensor:
        """The encoder over the whole window."""
        return self.net.offline(clip)

    def reference(self, clip: Tensor) -> Tensor:
        """What the steps must equal."""
        return self.net.reference(clip)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits of every window of a clip, by the whole encoder."""
        return self.net.reference(clip)

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Of the encoder."""
        return self.net.example_clip(batch, length)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """A window."""
        return self.net.example_inputs(batch)


def _exponential(scores: Tensor) -> Tensor:
    """Exponentials of scores that are held where their sums stay finite."""
    return scores.clamp(-LIMIT, LIMIT).exp()


def co_transformer(
    model: nn.Module,
    *,
    warm: Literal["none", "partial"] = "none",
    refresh: Count | None = None,
    last_q: Literal["all", "one"] = "all",
) -> CoEncoder:
    """The encoder as a stream, with its weights.

    Args:
        model: an encoder.
        warm: before n tokens there is no answer, or one over the tokens that there are.
        refresh: steps after which the sums of a retroactive layer are made anew; 0 never, n where it is not given.
        last_q: behind a retroactive layer, whether the last one makes queries of all tokens or of the newest.

    Raises:
        ValueError: the model is no encoder.
    """
    if not isinstance(model, Encoder):
        raise ValueError(f"co_transformer makes a stream of an encoder, and {type(model).__name__} is none")
    return CoEncoder(model, warm, model.n if refresh is None else refresh, last_q).eval()
