"""co3d: 3D convolutions that keep what they need of the past (Hedegaard and Iosifidis 2021, arXiv 2106.00050).

The same weights as the clip network's, run one frame at a time: every temporal convolution keeps its last inputs (or
sums that are not finished), skips wait for the centre of their body, the mean over a clip becomes a running mean over
`pool` steps. A step gives what the clip network without temporal padding would give, product by product.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.streaming.continual import Chain, Gate, Kept, Layer, Mean, Mode, State, fresh, remembering, without_strides
from suites.streaming.frames import Recomputed
from suites.streaming.rings import TIME, Form, forget


class VideoNet(Recomputed):
    """A network of clips [batch, frames, channels, side, side]: a body over time and space, a mean, a head.

    Attributes:
        body: layers up to the last feature maps.
        frames: of the clip that users run it on.
        rate_hz: frames a second.
        mode: how a clip is padded in time.
    """

    rate_hz = 30.0
    fixed_window = False
    body: Chain
    head: nn.Module
    mode: Mode = "zero"
    channels: int
    resolution: int

    def pooled(self, maps: Tensor) -> Tensor:
        """Features of each slice, [batch, features, time]."""
        return maps.mean((3, 4))

    def offline(self, clip: Tensor) -> Tensor:
        """Logits [batch, classes] of a clip of any length: the mean over all positions, then the head."""
        maps = self.body.clip(clip.transpose(1, 2), self.mode)
        return self.head(self.pooled(maps).mean(TIME))

    def forward(self, clip: Tensor) -> Tensor:
        """Logits of the last window of a clip, [batch, 1, classes]; windows that overlap would teach little more."""
        return self.reference(clip[:, -self.frames :])

    @property
    def positions(self) -> int:
        """Positions in time of the last maps of a clip, which its mean is over."""
        if self.mode == "zero":
            return max(1, self.body.answers(self.frames))
        return max(1, -(-(self.frames - self.body.reach) // self.body.stride))

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Noise over a square that drifts, [batch, length, channels, side, side], the same every time."""
        generator = torch.Generator().manual_seed(0)
        clip = torch.randn(batch, length, self.channels, self.resolution, self.resolution, generator=generator)
        side = max(1, self.resolution // 4)
        for place in range(length):
            left = place % max(1, self.resolution - side)
            clip[:, place, :, side : 2 * side, left : left + side] += 2.0
        return clip.to(next(self.parameters()))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """A clip of the network's window."""
        return (self.example_clip(batch, self.frames),)


class Co3d(nn.Module):
    """A clip network as a stream of frames."""

    time_dim = 1
    output_dim = 1
    exact = True

    def __init__(self, net: VideoNet, body: Chain, ring: Form, form: Kept, chunk: int, pool: int):
        super().__init__()
        self.net, self.body, self.chunk, self.hop, self.pool = net, body, chunk, chunk, pool
        self.mean = Mean(pool)
        self.entries = remembering(self, ring, form)
        self.period = body.stride
        self.window = -(-net.frames // chunk)
        self.classes = getattr(net, "classes", None)
        self.receptive_field = body.reach + (pool - 1) * body.stride + 1
        self.alignment_delay = body.lag / chunk
        self.outputs_per_answer, self.rate_hz = chunk, net.rate_hz / chunk
        # a frame waits for its chunk to be full, or for the step that answers
        self.dependency_delay = (body.stride - 1) / 2 + (chunk - 1) / (2 * chunk)
        # answers come in whole chunks whose frames all have enough before them
        self.first_output = self.transient = -(-(self.receptive_field - 1) // chunk)

    def init(self, batch: int) -> State:
        """Nothing seen; the first frame tells the batch."""
        del batch
        return fresh(self.entries)

    def settled(self, batch: int) -> State:
        """The state of a stream that has long been answering, without its tensors; every layer answers next."""
        state = self.init(batch)
        for layer in (*self.body.modules(), self.mean):
            if isinstance(layer, Layer):
                state[layer.place][0] = layer.reach + 1_000_000 * layer.stride
        return state

    def reset(self, state: State, stream: int) -> None:
        """Make one stream of the batch forget; its layers see zeros until they have seen enough frames again."""
        forget(state, stream)

    def step(self, x: Tensor, state: State) -> tuple[Tensor | None, State]:
        """Logits [batch, classes] after one frame [batch, channels, side, side], or of each frame of a chunk."""
        new = x[:, :, None] if self.chunk == 1 else x.transpose(1, 2)
        maps = self.body.step(new, state)
        means = None if maps is None else self.mean.step(self.net.pooled(maps), state)
        if means is None or means.shape[TIME] < self.chunk:
            return None, state
        logits = self._logits(means)
        return (logits[:, 0] if self.chunk == 1 else logits), state

    def _logits(self, means: Tensor) -> Tensor:
        """Logits [batch, time, classes] of means [batch, features, time]."""
        return self.net.head(means.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(means), -1))

    def offline(self, clip: Tensor) -> Tensor:
        """What users ran before: the clip network on a clip; frames that only fill up a chunk are no part of it."""
        over = clip.shape[1] - self.net.frames
        return self.net.offline(clip[:, over:] if 0 < over < self.chunk else clip)

    def reference(self, clip: Tensor) -> Tensor | list[Tensor]:
        """What the steps must equal: the network without temporal padding over the whole clip."""
        maps = self.body.clip(clip.transpose(1, 2), "stream")
        logits = self._logits(self.mean.over(self.net.pooled(maps)))
        if self.chunk == 1:
            return logits
        whole = logits.shape[1] // self.chunk
        return list(logits[:, logits.shape[1] - whole * self.chunk :].split(self.chunk, 1))

    def forward(self, clip: Tensor) -> Tensor:
        """Logits of every frame that has enough before it, by the network without padding."""
        found = self.reference(clip)
        return found if isinstance(found, Tensor) else torch.cat(found, 1)

    def example_clip(self, batch: int, length: int) -> Tensor:
        """Of the clip network; `length` steps."""
        return self.net.example_clip(batch, length * self.chunk)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """A clip that is just long enough for one answer."""
        return (self.net.example_clip(batch, self.receptive_field + self.chunk - 1),)


def co3d(
    model: nn.Module,
    *,
    ring: Literal["pointer", "mirror", "roll", "cat"] = "pointer",
    form: Literal["inputs", "partials", "library"] = "inputs",
    chunk: PositiveInt = 1,
    pool: Count = 0,
    se: Literal["frame", "window"] = "frame",
    strides: Literal["keep", "drop"] = "keep",
) -> Co3d:
    """The clip network as a stream, with its weights.

    Args:
        model: a network of clips.
        ring: how kept slices move.
        form: what a convolution keeps: `inputs`, each product once; `partials`, sums that are not finished, each
            product once; `library`, as the published library does it, k times as many products on frames of zeros.
        chunk: frames of a step; the answers are the same and come as many at a time.
        pool: steps of the running mean; 0: as many as the clip network's mean has positions.
        se: what a gate is made of: the newest frame, or a running mean over as many frames as the clip has.
        strides: those of the clip network in time: kept, so that answers come at every so many steps; or dropped, so
            that every step has one, by what is then another function of the same weights.

    Raises:
        ValueError: the model is no network of clips; a chunk beside a stride in time.
    """
    if not isinstance(model, VideoNet):
        raise ValueError(f"co3d makes a stream of a network of clips, and {type(model).__name__} is none")
    body = without_strides(model.body) if strides == "drop" else model.body
    if body.stride > 1 and (chunk > 1 or form != "inputs"):
        raise ValueError(
            f"chunk={chunk}, form={form}: with a stride in time steps are taken one by one, and sums cannot leave out "
            "what it leaves out; take chunk=1 and form='inputs', or strides='drop'"
        )
    for layer in body.modules():
        if isinstance(layer, Gate):
            layer.span = model.frames if se == "window" else 1
    return Co3d(model, body, ring, form, chunk, pool or model.positions).eval()
