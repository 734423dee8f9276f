"""Layers that answer for a whole clip and slice by slice with the same weights (Hedegaard and Iosifidis, 2106.00050).

A clip is [batch, channels, time, height, width]. Offline there are three modes: `zero` pads in time as clip networks
are trained, `valid` pads nothing, and `stream` is valid with the gates of a stream: what steps must equal. A step takes
one or more new slices and gives those that are complete, or None.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.streaming.rings import TIME, Form, Ring, empty

Mode = Literal["zero", "valid", "stream"]
#: How a convolution keeps the past: inputs; sums that are not finished; the published library's zero-padded frame.
Kept = Literal["inputs", "partials", "library"]
State = list[Any]


class Layer(nn.Module):
    """Attributes: `reach`, slices of the past that an answer needs; `stride` in time; `lag`, how old its centre is."""

    reach = 0
    stride = 1
    lag = 0
    place = -1

    def answers(self, frames: int) -> int:
        """Positions that mode zero has of a clip of so many slices."""
        return frames

    def clip(self, x: Tensor, mode: Mode) -> Tensor:
        """The answers of all positions that the mode has."""
        raise NotImplementedError(f"{type(self).__name__} does not define clip")

    def step(self, x: Tensor, state: State) -> Tensor | None:
        """The answers that the new slices complete; the state changes in place."""
        raise NotImplementedError(f"{type(self).__name__} does not define step")


class Each(Layer):
    """Modules that look at one time at once."""

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.run = nn.Sequential(*modules)

    def clip(self, x: Tensor, mode: Mode) -> Tensor:
        """Every slice by itself."""
        return self.run(x)

    def step(self, x: Tensor, state: State) -> Tensor | None:
        """The new slices."""
        return self.run(x)


class Window(Layer):
    """An operator over `kernel` slices in time, every `stride`-th of them."""

    ring_form: Form = "pointer"
    form: Kept = "inputs"

    def __init__(self, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        self.reach = (kernel - 1) * dilation
        self.lag = self.reach // 2

    def answers(self, frames: int) -> int:
        """With half the reach of zeros at either end."""
        return (frames + 2 * self.lag - self.reach - 1) // self.stride + 1

    def over(self, seen: Tensor) -> Tensor:
        """The operator on slices in order, without padding or stride in time."""
        raise NotImplementedError(f"{type(self).__name__} does not define over")

    def step(self, x: Tensor, state: State) -> Tensor | None:
        """Answers of the new slices whose whole past has been seen, on the grid of the offline network."""
        entry, count = state[self.place], x.shape[TIME]
        ready = min(count, entry[0] + count - self.reach)
        off_grid = self.stride > 1 and (entry[0] - self.reach) % self.stride
        out = None if ready <= 0 or off_grid else self.newest(x, entry)
        self.keep(x, entry)
        return out if out is None or ready == count else out.narrow(TIME, count - ready, ready)

    def newest(self, x: Tensor, entry: list[Any]) -> Tensor:
        """The answers at the new slices, from kept ones and new ones."""
        past = Ring(self.reach, self.ring_form).past(entry, x)
        return self.over(torch.cat([*past, x], TIME) if past else x)

    def keep(self, x: Tensor, entry: list[Any]) -> None:
        """Remember the new slices."""
        ring = Ring(self.reach, self.ring_form)
        ring.past(entry, x)
        ring.push(entry, x)


class MaxPool(Window):
    """The largest of `kernel` slices, every `stride`-th, without padding."""

    def answers(self, frames: int) -> int:
        """A slice that is left over at the end is not looked at."""
        return (frames - self.reach - 1) // self.stride + 1

    def over(self, seen: Tensor) -> Tensor:
        """Without stride."""
        return F.max_pool3d(seen, (self.kernel, 1, 1), 1)

    def clip(self, x: Tensor, mode: Mode) -> Tensor:
        """All positions of the clip."""
        return F.max_pool3d(x, (self.kernel, 1, 1), (self.stride, 1, 1))


class Mean(Window):
    """The mean over the last `kernel` slices of [batch, channels, time]."""

    def over(self, seen: Tensor) -> Tensor:
        """A running mean."""
        return seen.unfold(TIME, self.kernel, 1).mean(-1)

    def clip(self, x: Tensor, mode: Mode) -> Tensor:
        """Of every position that has so many before it."""
        return self.over(x)


class Gate(Layer):
    """Squeeze and excite. Of a clip one gate for all its slices; of a stream a gate for each.

    Args:
        channels: that are gated.
        hidden: of the bottleneck.

    Attributes:
        span: slices that a gate of a stream is made of: 1 is the newest alone, more a running mean of as many as there
            are.
    """

    ring_form: Form = "pointer"
    span = 1

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.down, self.up = nn.Conv3d(channels, hidden, 1), nn.Conv3d(hidden, channels, 1)

    def gated(self, x: Tensor, means: Tensor) -> Tensor:
        """Slices times their gates."""
        return x * self.up(F.relu(self.down(means))).sigmoid()

    def clip(self, x: Tensor, mode: Mode) -> Tensor:
        """Gated slices."""
        if mode != "stream":
            return self.gated(x, x.mean((2, 3, 4), keepdim=True))
        means = x.mean((3, 4), keepdim=True)
        return self.gated(x, means if self.span == 1 else self._running(means, 0))

    def _running(self, means: Tensor, skipped: int) -> Tensor:
        """Means over the last `span` of the given positions, from position `skipped` on."""
        rows = [
            means.narrow(TIME, max(0, at + 1 - self.span), min(at + 1, self.span)).mean(TIME, keepdim=True)
            for at in range(skipped, means.shape[TIME])
        ]
        return torch.cat(rows, TIME)

    def step(self, x: Tensor, state: State) -> Tensor | None:
        """Gated new slices."""
        means = x.mean((3, 4), keepdim=True)
        if self.span == 1:
            return self.gated(x, means)
        entry, ring = state[self.place], Ring(self.span - 1, self.ring_form)
        past = torch.cat(ring.past(entry, means), TIME)
        seen = min(entry[0], self.span - 1)
        ring.push(entry, means)
        known = torch.cat([past.narrow(TIME, self.span - 1 - seen, seen), means], TIME)
        return self.gated(x, self._running(known, seen))


class Chain(Layer):
    """Layers one after another."""

    def __init__(self, *layers: Layer):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def _over(self, name: str) -> int:
        """The sum of what each layer says, in inputs of the first."""
        total, pace = 0, 1
        for layer in self:
            total, pace = total + pace * getattr(layer, name), pace * layer.stride
        return total

    @property
    def reach(self) -> int:  # type: ignore[override]
        """Of all layers."""
        return self._over("reach")

    @property
    def lag(self) -> int:  # type: ignore[override]
        """Of all layers."""
        return self._over("lag")

    @property
    def stride(self) -> int:  # type: ignore[override]
        """Of all layers."""
        return math.prod(layer.stride for layer in self)

    def answers(self, frames: int) -> int:
        """Of the last layer."""
        for layer in self:
            frames = layer.answers(frames)
        return frames

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def clip(self, x: Tensor, mode: Mode) -> Tensor:
        """The last layer's answers."""
        for layer in self:
            x = layer.clip(x, mode)
        return x

    def step(self, x: Tensor, state: State) -> Tensor | None:
        """The last layer's answers, None as soon as one has none."""
        new: Tensor | None = x
        for layer in self:
            if new is None:
                return None
            new = layer.step(new, state)
        return new


class Residual(Layer):
    """A body beside a skip that waits for it: by half the body's reach, which is where the body's centre stands."""

    ring_form: Form = "pointer"

    def __init__(self, body: Layer, skip: nn.Module | None = None, after: nn.Module | None = None):
        super().__init__()
        self.body, self.skip, self.after = body, skip or nn.Identity(), after or nn.Identity()

    @property
    def reach(self) -> int:  # type: ignore[override]
        """The body's."""
        return self.body.reach

    @property
    def lag(self) -> int:  # type: ignore[override]
        """The body's."""
        return self.body.lag

    @property
    def stride(self) -> int:  # type: ignore[override]
        """The body's."""
        return self.body.stride

    def answers(self, frames: int) -> int:
        """The body's."""
        return self.body.answers(frames)

    def clip(self, x: Tensor, mode: Mode) -> Tensor:
        """Body and skip, which without padding loses as many slices at either end."""
        out = self.body.clip(x, mode)
        first = 0 if mode == "zero" else self.reach - self.lag
        kept = x[:, :, first :: self.stride][:, :, : out.shape[TIME]]
        return self.after(out + self.skip(kept))

    def step(self, x: Tensor, state: State) -> Tensor | None:
        """Body and delayed skip."""
        entry, ring = state[self.place], Ring(self.lag, self.ring_form)
        past = ring.past(entry, x)
        delayed = torch.cat([*past, x], TIME).narrow(TIME, 0, x.shape[TIME]) if past else x
        ring.push(entry, x)
        out = self.body.step(x, state)
        if out is None:
            return None
        count = out.shape[TIME]
        return self.after(out + self.skip(delayed.narrow(TIME, delayed.shape[TIME] - count, count)))


def remembering(module: nn.Module, ring: Form, form: Kept = "inputs") -> int:
    """How many entries the state of the module's layers has; every layer is given its place and its form."""
    layers = [each for each in module.modules() if isinstance(each, Layer)]
    for place, layer in enumerate(layers):
        layer.place = place
        if hasattr(layer, "ring_form"):
            layer.ring_form = ring  # type: ignore[assignment]
        if isinstance(layer, Window):
            layer.form = form
    return len(layers)


def fresh(entries: int) -> State:
    """The state of so many layers before the first slice."""
    return [empty() for _ in range(entries)]


def without_strides(chain: Chain) -> Chain:
    """The same weights in layers that leave out no step: a network of its own, whose answers come at every step."""
    shared = {id(each): each for each in (*chain.parameters(), *chain.buffers())}
    same = copy.deepcopy(chain, shared)
    for layer in same.modules():
        if isinstance(layer, Window):
            layer.stride = 1
    return same
