"""X-ShiftNet and EPAM-Net: X3D without temporal kernels, temporal shifts in their place.

And a pose stream that guides RGB.

Source: EPAM-Net, arXiv:2408.05421; section 3. The two streams are exact; the block by which pose guides RGB is rebuilt.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import conv_norm, rounded

INNER = 2.25
GATE = 1 / 16
LAST = 432
#: Stream -> (channels of a frame, frames, side, stride of the stem, share of channels shifted each way, (width,
#: blocks)).
STREAMS = {
    "rgb": (3, 16, 224, 2, 1 / 8, ((24, 3), (48, 5), (96, 11), (192, 7))),
    "pose": (17, 48, 56, 1, 1 / 4, ((48, 5), (96, 11), (192, 7))),
}  # fmt: skip
STEM = 24


def shifted(x: Tensor, frames: int, share: float) -> Tensor:
    """The first share of channels taken from the next frame, the second from the one before, zeros where there is none.

    Args:
        x: [batch x frames, channels, h, w].
        frames: of a clip.
        share: of channels, each way; no MACs, but memory traffic.
    """
    clips = x.unflatten(0, (-1, frames))
    count = int(x.shape[1] * share)
    later = F.pad(clips[:, 1:, :count], (0, 0, 0, 0, 0, 0, 0, 1))
    earlier = F.pad(clips[:, :-1, count : 2 * count], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat((later, earlier, clips[:, :, 2 * count :]), dim=2).flatten(0, 1)


class ClipGate(nn.Module):
    """A squeeze-and-excite gate on means over a whole clip, the same for all its frames."""

    def __init__(self, channels: int, hidden: int, frames: int):
        super().__init__()
        self.frames = frames
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch x frames, channels, h, w]."""
        clips = x.unflatten(0, (-1, self.frames))
        gates = self.layers(clips.mean((1, 3, 4)))
        return (clips * gates[:, None, :, None, None]).flatten(0, 1)


class _Block(nn.Module):
    """A shift, then 1x1, 3x3 depthwise with a gate in even blocks, 1x1; the shortcut is not shifted."""

    def __init__(self, inputs: int, outputs: int, stride: int, gated: bool, frames: int, share: float):
        super().__init__()
        hidden = int(INNER * outputs)
        self.frames, self.share = frames, share
        layers: list[nn.Module] = [*conv_norm(inputs, hidden, act=nn.ReLU)]
        layers += conv_norm(hidden, hidden, 3, stride, groups=hidden)
        if gated:
            layers.append(ClipGate(hidden, rounded(hidden * GATE), frames))
        layers += [nn.SiLU(), *conv_norm(hidden, outputs)]
        self.layers = nn.Sequential(*layers)
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(shifted(x, self.frames, self.share))
        return (y + self.shortcut(x)).relu()


class Stream(nn.Module):
    """Clips [batch, channels, frames, h, w] to logits; frames run through 2-D layers together."""

    def __init__(
        self, channels: int, frames: int, stem: int, share: float, stages: tuple[tuple[int, int], ...], classes: int
    ):
        super().__init__()
        self.channels, self.frames = channels, frames
        self.stem = conv_norm(channels, STEM, 3, stem, act=nn.ReLU)
        made, before = [], STEM
        for width, depth in stages:
            blocks = []
            for place in range(depth):
                blocks.append(_Block(before, width, 1 if place else 2, place % 2 == 0, frames, share))
                before = width
            made.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(made)
        self.last = conv_norm(before, LAST, act=nn.ReLU)
        self.head = nn.Linear(LAST, classes)

    def entered(self, clips: Tensor) -> Tensor:
        """Frames behind the stem, [batch x frames, 24, h, w]."""
        return self.stem(clips.transpose(1, 2).flatten(0, 1))

    def left(self, x: Tensor) -> Tensor:
        """Logits of the last stage's maps."""
        means = self.last(x).mean((2, 3)).unflatten(0, (-1, self.frames)).mean(1)
        return self.head(means)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        x = self.entered(clips)
        for stage in self.stages:
            x = stage(x)
        return self.left(x)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random clips."""
        side = int(self.resolution)  # type: ignore[arg-type]
        return (torch.randn(batch, self.channels, self.frames, side, side, device=self.head.weight.device),)


class Guide(nn.Module):
    """Weights over RGB frames (softmax) and a map over space from pose features, multiplied onto RGB features."""

    def __init__(self, channels: int, frames: int):
        super().__init__()
        self.frames = frames
        self.over_time = nn.Conv1d(channels, 1, 1)
        self.over_space = nn.Conv2d(channels, 1, 1)

    def forward(self, rgb: Tensor, pose: Tensor, pose_frames: int) -> Tensor:
        """RGB features [batch x frames, C, h, w], guided by pose features [batch x pose_frames, C, h', w']."""
        clips = pose.unflatten(0, (-1, pose_frames))
        means = clips.mean((3, 4)).transpose(1, 2)
        when = self.over_time(F.adaptive_avg_pool1d(means, self.frames)).softmax(-1) * self.frames
        where = self.over_space(clips.mean(1)).sigmoid()
        where = F.interpolate(where, rgb.shape[-2:], mode="bilinear", align_corners=False)
        weights = when.transpose(1, 2).unsqueeze(-1).unsqueeze(-1) * where.unsqueeze(1)
        return rgb * weights.flatten(0, 1)


class EpamNet(nn.Module):
    """Clips of RGB and heat maps of joints to the sum of both streams' logits."""

    def __init__(self, rgb: Stream, pose: Stream):
        super().__init__()
        self.rgb, self.pose = rgb, pose
        self.guide = Guide(192, rgb.frames)

    def forward(self, clips: Tensor, joints: Tensor) -> Tensor:
        """Logits [batch, classes]."""
        x, y = self.rgb.entered(clips), self.pose.entered(joints)
        for stage in self.rgb.stages:
            x = stage(x)
        for stage in self.pose.stages:
            y = stage(y)
        guided = self.guide(x, y, self.pose.frames)
        return self.rgb.left(guided) + self.pose.left(y)

    def example_inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Random clips and heat maps."""
        return (*self.rgb.example_inputs(batch), *self.pose.example_inputs(batch))


def xshift(
    *, stream: Literal["rgb", "pose"] = "rgb", frames: PositiveInt | None = None, classes: PositiveInt = 60,
    resolution: PositiveInt | None = None,
) -> Stream:  # fmt: skip
    """One stream.

    Args:
        stream: whose clips: RGB (16 x 224 x 224) or joints' heat maps (17 x 48 x 56 x 56).
        frames: of a clip; None is the stream's own.
        classes: logits.
        resolution: side of a frame; None is the stream's own.
    """
    channels, own_frames, side, stem, share, stages = STREAMS[stream]
    network = Stream(channels, frames or own_frames, stem, share, stages, classes).eval()
    network.resolution = resolution or side  # type: ignore[assignment]
    return network


def epam_net(*, frames: PositiveInt = 16, classes: PositiveInt = 60, resolution: PositiveInt = 224) -> EpamNet:
    """Both streams; heat maps have three times the frames and a quarter of the side.

    Raises:
        UsageError: 32 does not divide the resolution.
    """
    if resolution % 32:
        raise UsageError(f"epam_net: 32 must divide resolution={resolution}, so that the maps of both streams meet")
    rgb = xshift(stream="rgb", frames=frames, classes=classes, resolution=resolution)
    pose = xshift(stream="pose", frames=3 * frames, classes=classes, resolution=resolution // 4)
    return EpamNet(rgb, pose).eval()
