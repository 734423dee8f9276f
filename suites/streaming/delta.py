"""delta: layers that are told what changed (Delta Activation Layer, arXiv 2107.07305).

Every activation is rounded to multiples of a learned step theta; the next linear operator gets the difference from
the last frame and adds its product to a sum that it keeps, in which the bias never enters. Whatever did not change by
half a step costs nothing, on hardware that skips zeros. The network is the quantised one, frame by frame.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, Positive, Rate
from suites.common.from_scratch import RATE, learned
from suites.common.training import Pace, fit
from suites.streaming.frame_cnn import FrameCnn
from suites.streaming.rings import forget

State = list[Any]
#: Share of output positions that a change may touch for the patches under them to be gathered.
SPARSE = 0.2


class Quantised(nn.Module):
    """theta x round(x / theta), theta of a layer, a channel or a neuron; gradients pass the rounding as it were not."""

    def __init__(self, theta: float, shape: tuple[int, ...]):
        super().__init__()
        self.theta = nn.Parameter(torch.full(shape, theta))

    def forward(self, x: Tensor) -> Tensor:
        """The nearest multiples."""
        scaled = x / self.theta
        return self.theta * (scaled + (scaled.round() - scaled).detach())


class DeltaNet(nn.Module):
    """A network of frames whose layers receive quantised changes.

    The state holds for every operator what it was last given and the sum that it made of it.
    """

    time_dim = 1
    output_dim = 1
    hop = period = window = receptive_field = 1
    fixed_window = True
    first_output = transient = alignment_delay = 0
    dependency_delay = 0.0
    exact = True
    #: steps after which the drift of kept sums is read
    drift_steps = 1000

    def __init__(self, net: FrameCnn, theta: float, per: str, execution: str, reset_every: int):
        super().__init__()
        self.net, self.how, self.reset_every = net, execution, reset_every
        self.classes, self.cycle = net.classes, max(1, reset_every)
        side = net.resolution
        shapes = [(1, side, side)]
        for conv in net.convs:
            assert isinstance(conv, nn.Conv2d)
            side = -(-side // conv.stride[0])
            shapes.append((conv.out_channels, side, side))
        cut = {"layer": lambda s: (1,), "channel": lambda s: (s[0], 1, 1), "neuron": lambda s: s}[per]
        self.rounded = nn.ModuleList(Quantised(theta, cut(shape)) for shape in shapes)
        if execution == "gather":
            self.kernel = "gather"

    # ------------------------------------------------------------------------------------------ the network it is

    def maps(self, x: Tensor) -> list[Tensor]:
        """Quantised inputs of every operator, of frames [batch, 1, side, side], run densely."""
        given = [self.rounded[0](x)]
        for conv, rounded in zip(self.net.convs, self.rounded[1:], strict=True):
            given.append(rounded(F.relu(conv(given[-1]))))
        return given

    def dense(self, x: Tensor) -> Tensor:
        """Logits of frames, the quantised network run densely."""
        return self.net.head(self.maps(x)[-1].mean((2, 3)))

    def offline(self, clip: Tensor) -> Tensor:
        """The plain network on the last frame."""
        return self.net.offline(clip)

    def reference(self, clip: Tensor) -> Tensor:
        """What the steps must equal: every frame by the quantised network."""
        return self(clip)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits of every frame, the quantised network run densely, [batch, frames, classes]."""
        return self.dense(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])

    # ------------------------------------------------------------------------------------------ as a stream

    def init(self, batch: int) -> State:
        """Nothing seen; the first frame is dense."""
        del batch
        return [0, *([None] * (2 * len(self.net.convs) + 2))]

    def reset(self, state: State, stream: int) -> None:
        """Make one stream of the batch forget: its next frame is all change."""
        forget(state, stream)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits [batch, classes] of one more frame, and the state."""
        if self.reset_every and state[0] % self.reset_every == 0:
            state = [state[0], *([None] * (len(state) - 1))]
        state[0] += 1
        for place, conv in enumerate(self.net.convs):
            change = self._changed(self.rounded[place](x), state, 2 * place + 1)
            made = self._moved(conv, change, state[2 * place + 2])  # type: ignore[arg-type]
            state[2 * place + 2] = made
            x = F.relu(made if conv.bias is None else made + conv.bias[:, None, None])  # type: ignore[index]
        change = self._changed(self.rounded[-1](x), state, len(state) - 2).mean((2, 3))
        kept = state[-1]
        made = self._answered(change)
        state[-1] = made if kept is None else kept.add_(made)
        return state[-1] + self.net.head.bias, state

    @staticmethod
    def _changed(now: Tensor, state: State, place: int) -> Tensor:
        """What is new against the last frame, which is replaced."""
        before, state[place] = state[place], now
        return now if before is None else now - before

    def _moved(self, conv: nn.Conv2d, change: Tensor, kept: Tensor | None) -> Tensor:
        """The sum of a convolution after a change."""
        if kept is None:
            return F.conv2d(change, conv.weight, None, conv.stride, conv.padding)
        if self.how == "gather" and not change.is_meta:
            touched = _touched(conv, change)
            if float(touched.float().mean()) < SPARSE:
                return _gathered(conv, change, touched, kept)
        return kept.add_(F.conv2d(change, conv.weight, None, conv.stride, conv.padding))

    def _answered(self, change: Tensor) -> Tensor:
        """What a change [batch, features] adds to the logits; gathered, from the features that changed alone."""
        weight = self.net.head.weight
        if self.how == "gather" and not change.is_meta:
            columns = (change != 0).any(0)
            return F.linear(change[:, columns], weight[:, columns])
        return F.linear(change, weight)

    # ------------------------------------------------------------------------------------------ what it would cost

    def effective_macs(self, x: Tensor, state: State) -> dict[str, float]:
        """Products of the next step per stream: all, those of inputs that are not zero, those of inputs that changed.

        All are counted as everywhere, with the zeros around a picture; of the others exactly, what stands at a border
        being used less often. Neither frame nor state is changed.
        """
        given = self.maps(x)
        anew = bool(self.reset_every) and state[0] % self.reset_every == 0
        before = [None if anew else state[2 * place + 1] for place in range(len(given))]
        changed = [now if last is None else now - last for now, last in zip(given, before, strict=True)]
        return {
            "dense": self.net.dense_macs(given) / len(x),
            "spatial": self.net.effective(given) / len(x),
            "delta": self.net.effective(changed) / len(x),
        }

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Of the network."""
        return self.net.example_clip(batch, length)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Two frames."""
        return self.net.example_inputs(batch)


def _touched(conv: nn.Conv2d, change: Tensor) -> Tensor:
    """Output positions [batch, positions] under whose kernel something changed."""
    mask = (change != 0).any(1, keepdim=True).to(change)
    return F.max_pool2d(mask, conv.kernel_size, conv.stride, conv.padding).flatten(1) > 0  # type: ignore[arg-type]


def _gathered(conv: nn.Conv2d, change: Tensor, touched: Tensor, kept: Tensor) -> Tensor:
    """The sum after a change, from the patches of the touched positions alone."""
    patches = F.unfold(change, conv.kernel_size, 1, conv.padding, conv.stride)  # type: ignore[arg-type]
    rows, places = touched.nonzero(as_tuple=True)
    made = patches[rows, :, places] @ conv.weight.flatten(1).t()
    kept.flatten(2)[rows, :, places] += made
    return kept


def delta(
    model: nn.Module,
    *,
    theta: Positive = 0.1,
    per: Literal["layer", "channel", "neuron"] = "layer",
    execution: Literal["dense", "gather"] = "dense",
    reset_every: Count = 0,
    training_steps: Count = 0,
    rate: Rate = 1e-5,
) -> DeltaNet:
    """The network of frames with quantised changes between its layers.

    Args:
        model: a network of frames, trained or not.
        theta: step of the rounding, or where it starts to be learned.
        per: what has a theta of its own.
        execution: `dense` computes every product of the changes; `gather` those of the patches that changed, where
            they are few, and of the head's features that changed.
        reset_every: steps after which sums are made anew; 0 never.
        training_steps: batches of 16 clips to learn weights and thetas from; 0 keeps the weights.
        rate: weight of the changes in that loss, each times the outputs that it reaches.

    Raises:
        ValueError: the model is no network of frames, or has no task to learn from.
    """
    if not isinstance(model, FrameCnn):
        raise ValueError(f"delta takes a network of single frames, and {type(model).__name__} is none")
    net = DeltaNet(model, theta, per, execution, reset_every)
    settings = {"theta": theta, "per": per, "rate": rate}
    if not training_steps:
        return net.eval()

    def loop(module: nn.Module, batches: Any, steps: int) -> list[float]:
        return fit(module, batches, lambda x, y: _loss(module, x, y, rate, change=True), Pace(steps, RATE))

    return learned(net, model, delta, settings, training_steps, loop=loop, from_start=False)  # type: ignore[return-value]


def l1(model: nn.Module, *, training_steps: Count = 0, rate: Rate = 1e-5) -> nn.Module:
    """The network of frames trained so that few activations differ from zero: sparsity in space alone.

    Args:
        model: a network of frames.
        training_steps: batches of 16 clips; 0 keeps the weights.
        rate: weight of the activations in the loss, each times the outputs that it reaches.

    Raises:
        ValueError: the model is no network of frames, or has no task to learn from.
    """
    if not isinstance(model, FrameCnn):
        raise ValueError(f"l1 takes a network of single frames, and {type(model).__name__} is none")

    def loop(module: nn.Module, batches: Any, steps: int) -> list[float]:
        return fit(module, batches, lambda x, y: _loss(module, x, y, rate, change=False), Pace(steps, RATE))

    return learned(model, model, l1, {"rate": rate}, training_steps, loop=loop, from_start=False)


def _loss(module: Any, clips: Tensor, labels: Tensor, rate: float, *, change: bool) -> Tensor:
    """Cross-entropy, and what the layers are given (or how much of it changes) times what it reaches."""
    maps = module.maps(clips.flatten(0, 1))
    net = module.net if change else module
    said = net.head(maps[-1].mean((2, 3))).unflatten(0, clips.shape[:2])
    loss = F.cross_entropy(said[:, -labels.shape[1] :].flatten(0, 1), labels.flatten())
    fans = [_fan(conv) for conv in net.convs] + [float(net.head.out_features)]
    for fan, now in zip(fans[-len(maps) :], maps, strict=True):
        size = now.unflatten(0, clips.shape[:2]).diff(dim=1) if change else now
        loss = loss + rate * fan * size.abs().mean()
    return loss


def _fan(conv: nn.Conv2d) -> float:
    """Outputs that one input reaches, away from borders."""
    return conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1] / (conv.stride[0] * conv.stride[1])
