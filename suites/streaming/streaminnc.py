"""streaminnc: overlapping windows that reuse the last window's activations (StreamiNNC, arXiv 2408.03223).

`exact`, on a network whose windows are padded with real samples: every layer computes its new positions from real
past alone, and answers wait where a kernel looks ahead. `approx` keeps a network that pads with zeros and reuses what
the last window had, though its zeros stood elsewhere. `partial` computes anew the bands that zeros reach and reuses
the rest, and equals the network of windows.

A cell of a pool can be reused where the hop is a multiple of all strides so far; otherwise cells stay on the grid of
the stream, and differ from those of the window.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.streaming.rings import forget
from suites.streaming.series import SeriesConv, SeriesNet, SeriesPool

State = list[Any]


class StreamiNNC(nn.Module):
    """A network of windows as a stream of `hop` samples a step."""

    time_dim = 2
    output_dim = 1
    period = 1
    fixed_window = True

    def __init__(self, net: SeriesNet, mode: str, cache: str, *, on_grid: bool):
        super().__init__()
        self.net, self.mode, self.cache = net, mode, cache
        self.hop, self.rate_hz, self.window = net.hop, net.rate_hz, net.frames
        self.by_window = mode == "partial" or (mode == "approx" and on_grid and cache == "outputs")
        self.exact = mode != "approx" and on_grid
        self.receptive_field = net.samples + net.reach
        self.transient = net.frames - 1
        waits = 0 if self.by_window else -(-net.ahead // net.cell) * net.cell
        self.first_output = -(-(net.samples + waits) // net.hop) - 1
        self.alignment_delay = waits / net.hop
        self.dependency_delay = (net.hop - 1) / (2 * net.hop) if self.by_window else _waiting(net)

    def init(self, batch: int) -> State:
        """Nothing seen; the first samples tell the batch."""
        del batch
        return [0, *([None] * (len(self.net.layers) + 1))]

    def reset(self, state: State, stream: int) -> None:
        """Make one stream of the batch forget."""
        forget(state, stream)

    def step(self, x: Tensor, state: State) -> tuple[Tensor | None, State]:
        """The answer [batch, classes] after `hop` more samples [batch, channels, hop], and the state."""
        new = x[:, :, None] if x.dim() == 2 else x
        cells = self._by_window(new, state) if self.by_window else self._onwards(new, state)
        state[0] += 1
        if cells.shape[2] < self.net.samples // self.net.cell or state[0] <= self.first_output:
            return None, state
        return self.net.tail(cells), state

    # ------------------------------------------------------------------------------------------ new positions alone

    def _onwards(self, new: Tensor, state: State) -> Tensor:
        """Cells of the last window, each layer fed with what is new alone; before the stream there are zeros."""
        pace = 1
        for place, layer in enumerate(self.net.layers, start=1):
            whole = self.net.samples // pace
            if isinstance(layer, SeriesConv):
                past = state[place]
                if past is None:
                    past = new.new_zeros(*new.shape[:2], layer.reach - layer.ahead)
                seen = torch.cat([past, new], 2)
                state[place] = self._kept(seen, max(layer.reach, whole if self.cache == "outputs" else 0))
                fresh = past.shape[2] if past.shape[2] < layer.reach else layer.reach
                used = seen[:, :, seen.shape[2] - new.shape[2] - fresh :]
                new = layer.over(used) if used.shape[2] > layer.reach else used.new_zeros(len(used), _out(layer), 0)
            else:
                assert isinstance(layer, SeriesPool)
                seen = new if state[place] is None else torch.cat([state[place], new], 2)
                cells = seen.shape[2] // layer.size
                state[place] = seen[:, :, cells * layer.size :].clone()
                new = layer(seen) if cells else seen[:, :, :0]
                pace *= layer.size
        return self._tail_cells(new, state)

    def _tail_cells(self, new: Tensor, state: State) -> Tensor:
        """The last window's cells, kept for the tail."""
        kept = new if state[-1] is None else torch.cat([state[-1], new], 2)
        state[-1] = self._kept(kept, self.net.samples // self.net.cell)
        return state[-1]

    @staticmethod
    def _kept(seen: Tensor, count: int) -> Tensor:
        """The last `count` positions, in storage of their own."""
        return seen[:, :, max(0, seen.shape[2] - count) :].clone()

    # ------------------------------------------------------------------------------------------ a window, repaired

    def _by_window(self, new: Tensor, state: State) -> Tensor:
        """Cells of the window: of each layer the newest positions, in mode partial the bands that zeros reach too."""
        net = self.net
        known = net.samples if state[1] is None else state[1].shape[2]
        x = new if state[1] is None else torch.cat([state[1], new], 2)
        x = self._kept(x, net.samples)
        state[1] = x
        if x.shape[2] < net.samples:
            return x.new_zeros(len(x), 1, 0)
        first = state[2] is None or known < net.samples
        moved, left, right = new.shape[2], 0, 0
        for place, layer in enumerate(net.layers, start=2):
            old = None if first else state[place]
            if isinstance(layer, SeriesConv):
                left, right = left + layer.reach - layer.ahead, right + layer.ahead
                bands = (left, right) if self.mode == "partial" else (0, 0)
                x = self._repaired(layer, x, old, moved, *bands)
            else:
                assert isinstance(layer, SeriesPool)
                x, moved = layer(x), moved // layer.size
                left, right = -(-left // layer.size), -(-right // layer.size)
            state[place] = x
        return x

    @staticmethod
    def _repaired(layer: SeriesConv, x: Tensor, old: Tensor | None, moved: int, left: int, right: int) -> Tensor:
        """All outputs of the window: a band on the left, old ones that moved on, the newest and a band before them."""
        count = x.shape[2]
        end = count - moved - right
        if old is None or left >= end:
            return layer(x)
        before, ahead = layer.reach - layer.ahead, layer.ahead
        parts = []
        if left:
            parts.append(layer.over(F.pad(x[:, :, : left + ahead], (before, 0))))
        parts.append(old[:, :, left + moved : end + moved])
        start = end - before
        newest = F.pad(x[:, :, max(0, start) :], (max(0, -start), ahead))
        return torch.cat([*parts, layer.over(newest)], 2)

    # ------------------------------------------------------------------------------------------ the other side

    def offline(self, clip: Tensor) -> Tensor:
        """The whole window, as users ran it before."""
        return self.net.offline(clip)

    def reference(self, clip: Tensor) -> Tensor:
        """The network of windows, each by itself."""
        return self.net.reference(clip)

    def forward(self, clip: Tensor) -> Tensor:
        """The answer of the last window."""
        return self.net.offline(clip)

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Of the network; `length` steps."""
        return self.net.example_clip(batch, length)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """A window."""
        return self.net.example_inputs(batch)


def _waiting(net: SeriesNet) -> float:
    """Mean steps from a sample to the first answer that depends on it, where only cells of real samples are answered.

    After T samples the last such cell ends at (T - ahead) // cell * cell, and has looked `ahead` samples further.
    """
    ends = range(0, math.lcm(net.hop, net.cell) + 1, net.hop)
    seen = [(end - net.ahead) // net.cell * net.cell + net.ahead for end in ends]
    waits = (
        (last - first) * (2 * end - 1 - first - last) / 2  # samples first to last - 1 wait until the step ends
        for end, first, last in zip(ends[1:], seen, seen[1:], strict=False)
    )
    return sum(waits) / ends[-1] / net.hop


def _out(layer: SeriesConv) -> int:
    return layer.conv.out_channels


def pool_error_bound(size: int, components: list[tuple[float, float]], rate: float) -> float:
    """How far a cell of a pool can be off where it begins elsewhere than the window's, for a sum of sines.

    Cells lie up to size - 1 samples apart, and a sine of amplitude a and frequency f changes by at most
    2 pi f a / rate a sample. The form is the paper's; its constants were not read.

    Args:
        size: positions of a cell.
        components: amplitude and frequency in Hz of each sine.
        rate: samples a second.
    """
    return (size - 1) * sum(2 * math.pi * abs(a) * f / rate for a, f in components)


def streaminnc(
    model: nn.Module,
    *,
    mode: Literal["exact", "approx", "partial"] = "approx",
    hop: PositiveInt | None = None,
    cache: Literal["outputs", "inputs"] = "outputs",
    pool_aligned: bool = True,
) -> StreamiNNC:
    """The network of windows as a stream, with its weights.

    Args:
        model: one of ppg, eeg, acc.
        mode: `exact` needs a network of signal padding, `partial` one that pads with zeros.
        hop: samples of a step; the model's own where it is not given.
        cache: what is kept: the outputs of all layers over a window, or the few inputs that a causal layer needs.
        pool_aligned: refuse a hop that is no multiple of all pooling strides; without it the cells keep the grid of
            the stream.

    Raises:
        ValueError: the model is no network of windows, or mode, padding, cache and hop do not go together.
    """
    if not isinstance(model, SeriesNet):
        raise ValueError(f"streaminnc takes a network of windows of a signal, and {type(model).__name__} is none")
    hop = hop or model.hop
    on_grid = hop % model.cell == 0
    if hop > model.samples or (pool_aligned and not on_grid):
        raise ValueError(f"hop={hop}: up to {model.samples} and a multiple of {model.cell}, or pool_aligned=False")
    if (mode == "exact") != model.signal and mode != "approx":
        raise ValueError(f"mode={mode}: exact needs padding='signal', partial padding='zero'")
    if mode == "partial" and (cache == "inputs" or not on_grid):
        raise ValueError("mode=partial repairs outputs of the last window on its grid: cache='outputs', an aligned hop")
    if cache == "inputs" and mode == "approx" and model.ahead:
        raise ValueError("cache=inputs reuses nothing that looked ahead: take cache='outputs' or mode='exact'")
    model.move_by(hop)
    return StreamiNNC(model, mode, cache, on_grid=on_grid).eval()
