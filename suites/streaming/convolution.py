"""A convolution over time and space that keeps its last inputs, or sums that are not finished (2106.00050, section 3).

`inputs`: one valid convolution over what is kept and what is new. `partials`: every tap is applied once to the new
slice and the products are added to the answers that they belong to. `library`: the published library's form, the
ordinary kernel on the slice between zeros, which executes as many products as the kernel is long, times over. Its MACs
are those that the answers need, as in the other forms; the rest is counted as the method's own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.streaming.continual import Mode, State, Window
from suites.streaming.rings import TIME, Ring


class BetweenZeros(nn.Module):
    """Runs a kernel on a slice between zeros: of all products the answers need one in as many as the kernel is long."""

    def __init__(self, kernel: int):
        super().__init__()
        self.needed_share = 1 / kernel

    def forward(self, padded: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """What the kernel makes of it."""
        return run(padded)


class Conv(Window):
    """A convolution over time and space; padding in space is that of the module, in time that of the mode."""

    def __init__(self, conv: nn.Conv3d):
        super().__init__(conv.kernel_size[0], conv.stride[0], conv.dilation[0])
        self.conv = conv
        self.between_zeros = BetweenZeros(self.kernel)

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, stride: int) -> Tensor:
        conv = self.conv
        space = (conv.padding[1], conv.padding[2]) if not isinstance(conv.padding, str) else (0, 0)
        strides = (stride, conv.stride[1], conv.stride[2])
        return F.conv3d(x, weight, bias, strides, (padding, *space), conv.dilation, conv.groups)

    def clip(self, x: Tensor, mode: Mode) -> Tensor:
        """All positions of the clip, zeros outside of it in mode zero."""
        padding = self.lag if mode == "zero" else 0
        return self._run(x, self.conv.weight, self.conv.bias, padding, self.stride)

    def over(self, seen: Tensor) -> Tensor:
        """Without padding in time."""
        return self._run(seen, self.conv.weight, self.conv.bias, 0, 1)

    def newest(self, x: Tensor, entry: list[Any]) -> Tensor:
        """As of any window; over a mirrored ring without moving the past: old taps and the newest one apart."""
        if self.ring_form != "mirror" or x.shape[TIME] > 1 or not self.reach:
            return super().newest(x, entry)
        (past,) = Ring(self.reach, self.ring_form).past(entry, x)
        weight, used = self.conv.weight, self.reach - self.dilation + 1
        old = self._run(past.narrow(TIME, 0, used), weight[:, :, :-1], self.conv.bias, 0, 1)
        return old + self._run(x, weight[:, :, -1:], None, 0, 1)

    def step(self, x: Tensor, state: State) -> Tensor | None:
        """In the form that keeps the past; sums cannot leave out the positions that a stride leaves out."""
        if self.form == "inputs" or self.stride > 1 or not self.reach:
            return super().step(x, state)
        entry = state[self.place]
        made = [self._summed(each, entry) for each in x.split(1, TIME)]
        given = [each for each in made if each is not None]
        return torch.cat(given, TIME) if given else None

    def _summed(self, x: Tensor, entry: list[Any]) -> Tensor | None:
        """The answer that one slice finishes, what it adds to later ones being kept."""
        taps = self._padded_taps(x) if self.form == "library" else self._single_taps(x)
        if len(entry) == 1:
            each = (self.kernel - 1) if self.form == "library" else 1
            entry.append(taps.new_zeros(*taps.shape[:TIME], each * self.reach, *taps.shape[TIME + 1 :]))
        sums, at, finished = entry[1], entry[0] % self.reach, taps.narrow(TIME, self.kernel - 1, 1)
        if self.form == "library":
            finished = self._joined(finished, taps, sums, entry[0])
        else:
            finished = finished + sums.narrow(TIME, at, 1)
            for tap in range(1, self.kernel - 1):
                later = (entry[0] + (self.kernel - 1 - tap) * self.dilation) % self.reach
                sums.narrow(TIME, later, 1).add_(taps.narrow(TIME, tap, 1))
            sums.narrow(TIME, at, 1).copy_(taps.narrow(TIME, 0, 1))
        entry[0] += 1
        if self.conv.bias is not None:
            finished = finished + self.conv.bias[:, None, None, None]
        return finished if entry[0] > self.reach else None

    def _joined(self, finished: Tensor, taps: Tensor, kept: Tensor, time: int) -> Tensor:
        """The newest product with one of each of the last slices; of every slice all but one product are kept."""
        each, slots = self.kernel - 1, self.reach
        for tap in range(each):
            slot = (time - (each - tap) * self.dilation) % slots
            finished = finished + kept.narrow(TIME, slot * each + tap, 1)
        kept.narrow(TIME, (time % slots) * each, each).copy_(taps.narrow(TIME, 0, each))
        return finished

    def _single_taps(self, x: Tensor) -> Tensor:
        """The slice under every tap by itself, [batch, channels, tap, height, width]: each product once."""
        conv = self.conv
        weight = conv.weight.transpose(1, 2).flatten(0, 1)
        strides, spread = conv.stride[1:], conv.dilation[1:]
        space = (0, 0) if isinstance(conv.padding, str) else conv.padding[1:]
        out = F.conv2d(x[:, :, 0], weight, None, strides, space, spread, conv.groups)
        return out.unflatten(1, (-1, self.kernel))

    def _padded_taps(self, x: Tensor) -> Tensor:
        """The same out of the ordinary kernel on a slice between zeros: `kernel` times as many products."""
        padded = F.pad(x, (0, 0, 0, 0, self.reach, self.reach))
        whole = partial(self._run, weight=self.conv.weight, bias=None, padding=0, stride=1)
        return self.between_zeros(padded, whole)[:, :, :: self.dilation].flip(TIME)
