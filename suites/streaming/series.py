"""Windows of a signal: the three 1-D networks that StreamiNNC was tried on (arXiv 2408.03223), run as a whole.

`ppg`: causal dilated convolutions, average pools, attention, a rate. `eeg`: centred convolutions with maxima, two
classes. `acc`: centred convolutions without pooling, a mean over time, a small network. Where a paper's text leaves a
choice (activations, the window of `acc`) it is ours.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.streaming.frames import Recomputed
from suites.streaming.rings import empty

__all__ = ["SeriesNet", "acc", "eeg", "load_checkpoint", "ppg"]


class SeriesConv(nn.Module):
    """A convolution over time that keeps the length: zeros before the window, and after it where it is centred."""

    def __init__(self, inner: int, outer: int, kernel: int, dilation: int = 1, *, causal: bool, norm: bool = False):
        super().__init__()
        self.conv = nn.Conv1d(inner, outer, kernel, dilation=dilation)
        self.after = nn.Sequential(nn.BatchNorm1d(outer), nn.ReLU()) if norm else nn.ReLU()
        self.reach = (kernel - 1) * dilation
        self.ahead = 0 if causal else self.reach // 2

    def over(self, seen: Tensor) -> Tensor:
        """Outputs of the positions that the input covers."""
        return self.after(self.conv(seen))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of every position."""
        return self.over(F.pad(x, (self.reach - self.ahead, self.ahead)))


class SeriesPool(nn.Module):
    """Cells of `size` positions."""

    def __init__(self, size: int, kind: str):
        super().__init__()
        self.size, self.kind = size, kind

    def forward(self, x: Tensor) -> Tensor:
        """Mean or maximum of every cell."""
        return F.avg_pool1d(x, self.size) if self.kind == "mean" else F.max_pool1d(x, self.size)


class AttentionTail(nn.Module):
    """Attention over all cells, residual, LayerNorm, two linear layers."""

    def __init__(self, cells: int, width: int, heads: int, size: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, heads * size) for _ in range(3))
        self.out, self.norm = nn.Linear(heads * size, width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(cells * width, 32), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Answers [batch, 1] of features [batch, width, cells]."""
        x = x.transpose(1, 2)
        q, k, v = (each(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.norm(x + self.out(seen))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class KernelTail(nn.Module):
    """One convolution over all cells and a linear layer."""

    def __init__(self, cells: int, width: int, hidden: int, classes: int):
        super().__init__()
        self.conv, self.head = nn.Conv1d(width, hidden, cells), nn.Conv1d(hidden, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Answers [batch, classes]."""
        return self.head(F.relu(self.conv(x)))[:, :, 0]


class MeanTail(nn.Module):
    """The mean over time and four linear layers."""

    def __init__(self, *widths: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Answers [batch, classes]."""
        x = x.mean(2)
        for place, layer in enumerate(self.layers):
            x = layer(x) if place == len(self.layers) - 1 else F.relu(layer(x))
        return x


class SeriesNet(Recomputed):
    """Convolutions and pools over the last `samples` of [batch, channels, time], then a tail over all cells.

    Attributes:
        extra: real samples before the window, and after it, that signal padding runs the convolutions on too, so that
            no zero reaches a cell; their cells are cut off.
    """

    time_dim = 2
    rate_hz: float
    #: How far a step moves; the same weights serve every hop.
    not_learned = ("hop", "rate_hz", "frames")

    def __init__(
        self,
        layers: list[nn.Module],
        tail: nn.Module,
        *,
        channels: int,
        samples: int,
        hop: int,
        signal: bool,
        rate: int,
    ):
        super().__init__()
        self.layers, self.tail = nn.ModuleList(layers), tail
        self.channels, self.samples, self.signal = channels, samples, signal
        self.cell = math.prod(each.size for each in layers if isinstance(each, SeriesPool))
        self.reach, self.ahead = self._reaches()
        before, after = (-(-each // self.cell) * self.cell for each in (self.reach - self.ahead, self.ahead))
        self.extra = (before, after) if signal else (0, 0)
        self.sampled_hz = rate
        self.move_by(hop)

    def move_by(self, hop: int) -> None:
        """Take so many samples a step."""
        self.hop, self.rate_hz = hop, self.sampled_hz / hop
        self.frames = -(-(self.samples + sum(self.extra)) // hop)

    @property
    def alignment_delay(self) -> float:  # type: ignore[override]
        """Steps by which an answer lags: the real samples behind its window."""
        return self.extra[1] / self.hop

    @property
    def dependency_delay(self) -> float:
        """Mean steps from a sample to the first answer that depends on it: half a step, and what no cell looks at."""
        unseen = self.extra[1] - self.ahead if self.signal else 0
        return ((self.hop * self.every - 1) / 2 + unseen) / self.hop

    def _reaches(self) -> tuple[int, int]:
        """Samples before and after a cell's own that it depends on, together and after alone."""
        reach = ahead = 0
        pace = 1
        for layer in self.layers:
            if isinstance(layer, SeriesConv):
                reach, ahead = reach + pace * layer.reach, ahead + pace * layer.ahead
            elif isinstance(layer, SeriesPool):
                pace *= layer.size
        return reach, ahead

    def features(self, x: Tensor) -> Tensor:
        """Cells [batch, width, cells] of the window inside what is given."""
        before, after = self.extra
        for layer in self.layers:
            x = layer(x)
        return x[:, :, before // self.cell : x.shape[2] - after // self.cell]

    def offline(self, clip: Tensor) -> Tensor:
        """The answer [batch, classes] of the last window of a clip."""
        return self.tail(self.features(clip[:, :, -(self.samples + sum(self.extra)) :]))

    def reference(self, clip: Tensor) -> Tensor:
        """The answers of the steps of a clip, each window by itself, [batch, windows, classes]."""
        ends = range(self.frames * self.hop, clip.shape[2] + 1, self.hop * self.every)
        return torch.stack([self.offline(clip[:, :, :end]) for end in ends], dim=1)

    def forward(self, clip: Tensor) -> Tensor:
        """The answer of the last window, [batch, classes]."""
        return self.offline(clip)

    def step(self, x: Tensor, state: list[Any]) -> tuple[Tensor | None, list[Any]]:
        """`hop` more samples [batch, channels, hop]; the window that ends with them."""
        new = x[:, :, None] if x.dim() == 2 else x
        whole = self.samples + sum(self.extra)
        seen = new if len(state) == 1 else torch.cat([state[1], new], dim=2)
        state = [state[0] + 1, seen[:, :, max(0, seen.shape[2] - max(0, whole - self.hop)) :].clone()]
        if state[0] < self.frames or (state[0] - self.frames) % self.every:
            return None, state
        return self.offline(seen), state

    def init(self, batch: int) -> list[Any]:
        """Nothing seen."""
        del batch
        return empty()

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Sines over noise, [batch, channels, length x hop], the same every time."""
        generator = torch.Generator().manual_seed(0)
        count = length * self.hop
        time = torch.arange(count) / 32
        rate = 1 + torch.rand(batch, self.channels, 1, generator=generator)
        noise = 0.2 * torch.randn(batch, self.channels, count, generator=generator)
        return ((2 * torch.pi * rate * time).sin() + noise).to(next(self.parameters()))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """A clip of one window."""
        return (self.example_clip(batch, self.frames),)


def _checked(hop: int, window: int, cell: int) -> None:
    """Raise ValueError unless the window has whole cells and the hop is no longer."""
    if window % cell or hop > window:
        raise ValueError(f"window={window}, hop={hop}: whole cells of {cell} and a hop within the window are wanted")


def ppg(
    *, window: PositiveInt = 256, hop: PositiveInt = 64, padding: Literal["signal", "zero"] = "zero",
) -> SeriesNet:  # fmt: skip
    """A rate from a pulse at 32 Hz, in evaluation mode with random weights.

    Args:
        window: samples.
        hop: samples of a step.
        padding: of a window: zeros, or real samples of the past.

    Raises:
        ValueError: a window without whole cells of 16.
    """
    _checked(hop, window, 16)
    layers, inner = list[nn.Module](), 1
    for width, size in ((32, 4), (48, 2), (64, 2)):
        for _ in range(3):
            layers.append(SeriesConv(inner, width, 5, 2, causal=True))
            inner = width
        layers.append(SeriesPool(size, "mean"))
    tail = AttentionTail(window // 16, inner, 4, 16)
    return SeriesNet(layers, tail, channels=1, samples=window, hop=hop, signal=padding == "signal", rate=32).eval()


def eeg(
    *, channels: PositiveInt = 22, window: PositiveInt = 1024, hop: PositiveInt = 256,
    padding: Literal["signal", "zero"] = "zero",
) -> SeriesNet:  # fmt: skip
    """Two classes from 22 (or 18) electrodes at 256 Hz, in evaluation mode with random weights.

    Args:
        channels: electrodes.
        window: samples.
        hop: samples of a step.
        padding: of a window: zeros, or real samples on both sides.

    Raises:
        ValueError: a window without whole cells of 64.
    """
    _checked(hop, window, 64)
    layers = list[nn.Module]()
    for inner in (channels, 128, 128):
        layers += [SeriesConv(inner, 128, 3, causal=False, norm=True), SeriesPool(4, "max")]
    tail = KernelTail(window // 64, 128, 100, 2)
    signal = padding == "signal"
    return SeriesNet(layers, tail, channels=channels, samples=window, hop=hop, signal=signal, rate=256).eval()


def acc(
    *, window: PositiveInt = 256, hop: PositiveInt = 64, padding: Literal["signal", "zero"] = "zero",
) -> SeriesNet:  # fmt: skip
    """Two classes from 4 channels of acceleration, in evaluation mode with random weights.

    Args:
        window: samples; ours, the paper's could not be read.
        hop: samples of a step.
        padding: of a window: zeros, or real samples on both sides.

    Raises:
        ValueError: a hop beyond the window.
    """
    _checked(hop, window, 1)
    widths = (4, 8, 16, 32, 64, 128, 256)
    layers: list[nn.Module] = [SeriesConv(a, b, 3, causal=False) for a, b in itertools.pairwise(widths)]
    tail = MeanTail(256, 256, 128, 64, 2)
    return SeriesNet(layers, tail, channels=4, samples=window, hop=hop, signal=padding == "signal", rate=32).eval()
