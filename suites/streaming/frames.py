"""The two frames of every figure: `clip` runs the whole window again, `frame` sees only the newest input.

A plain network of windows is a stream by recomputing: it keeps the last window of inputs and answers from it, at every
step or at every `hop`-th.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.from_scratch import RATE, learned
from suites.common.training import Pace, classification, fit
from suites.streaming.rings import empty

State = list[Any]


class Recomputed(nn.Module):
    """A network of whole windows [batch, time, ...] as a stream; a subclass gives `offline`, one answer of a window.

    Attributes:
        window: inputs of a window.
        every: steps from one answer to the next.
    """

    time_dim = 1
    output_dim = 1
    hop = 1
    every = 1
    exact = True
    fixed_window = True
    alignment_delay = 0
    frames: int

    @property
    def window(self) -> int:
        """Steps of a window."""
        return self.frames

    @property
    def receptive_field(self) -> int:
        """Inputs that an answer depends on."""
        return self.frames

    @property
    def period(self) -> int:
        """Steps from one answer to the next."""
        return self.every

    @property
    def first_output(self) -> int:
        """The first step that answers."""
        return self.frames - 1

    @property
    def transient(self) -> int:
        """The first step that answers as the offline network does."""
        return self.frames - 1

    @property
    def dependency_delay(self) -> float:
        """Mean over the inputs of the steps from an input to the first answer that depends on it."""
        return (self.every - 1) / 2

    def offline(self, clip: Tensor) -> Tensor:
        """The answer [batch, classes] of the last window of a clip."""
        raise NotImplementedError(f"{type(self).__name__} does not define offline")

    def reference(self, clip: Tensor) -> Tensor:
        """The answers [batch, answers, classes] of the steps of a clip: of each window by itself."""
        ends = range(self.frames, clip.shape[1] + 1, self.every)
        return torch.stack([self.offline(clip[:, end - self.frames : end]) for end in ends], dim=1)

    def forward(self, clip: Tensor) -> Tensor:
        """As `reference`."""
        return self.reference(clip)

    def init(self, batch: int) -> State:
        """Nothing seen; the first input tells the batch."""
        del batch
        return empty()

    def step(self, x: Tensor, state: State) -> tuple[Tensor | None, State]:
        """One more input [batch, ...]; the answer of the window that ends with it, and the state."""
        new = x[:, None]
        seen = new if len(state) == 1 else torch.cat([state[1], new], dim=1)
        state = [state[0] + 1, seen[:, -(self.frames - 1) :].clone() if self.frames > 1 else seen[:, :0].clone()]
        if state[0] < self.frames or (state[0] - self.frames) % self.every:
            return None, state
        return self.offline(seen), state

    def as_frame(self) -> Recomputed:
        """A network like this one, with weights of its own, that sees the newest input alone."""
        raise ValueError(f"{type(self).__name__} has no form that sees one input alone")


def clip(model: nn.Module, *, hop: PositiveInt = 1) -> nn.Module:
    """The plain network that runs its whole window again at every `hop`-th step.

    Args:
        model: a network of windows.
        hop: steps between answers; an input waits (hop - 1) / 2 steps in the mean for the first that depends on it.

    Raises:
        ValueError: the model is no network of windows.
    """
    if not isinstance(model, Recomputed):
        raise ValueError(f"clip recomputes a window, and {type(model).__name__} has none")
    model.every = hop
    return model


def frame(model: nn.Module, *, training_steps: Count = 0) -> nn.Module:
    """The same network without the past: one input in, one answer out, no state.

    Args:
        model: a network of windows.
        training_steps: batches of 16 to learn its own weights from, at the rate of the plain network, which has 1500.

    Raises:
        ValueError: the model is no network of windows, or has no task to learn from.
    """
    if not isinstance(model, Recomputed):
        raise ValueError(f"frame takes the past from a network of windows, and {type(model).__name__} is none")
    return learned(model.as_frame().eval(), model, frame, {}, training_steps, loop=_loop)


def _loop(module: nn.Module, batches: Any, steps: int) -> list[float]:
    """Losses of training on the answer of the last input of each clip."""
    last = ((clips[:, -1:], labels[:, -1:]) for clips, labels in batches)
    return fit(module, last, classification(module), Pace(steps, float(getattr(module, "learning_rate", RATE))))
