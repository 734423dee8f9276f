"""A policy that reads a sketch's strokes chooses its canvas (Sketch Down the FLOPs, arXiv 2505.23763).

The backbone is a MobileNetV2; products grow with the square of the side for multiples of 32. Reconstruction: the
policy (a GRU of two layers over points) and its reward (is the answer right, less the weight times the relative
products); digits are classified where the paper retrieves photographs.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Blocks, Count, Positive, PositiveInt, Rate
from suites.common.checkpoint import load_checkpoint
from suites.common.conv_blocks import PooledHead, conv_norm, rounded
from suites.common.inverted import InvertedBottleneck
from suites.common.training import Pace, fit
from suites.dynamic.learning import BATCH, digits_parts, remembered, with_cost_of

__all__ = ["canvas", "load_checkpoint", "sketch_net", "sketchy_features"]

SIZES = (32, 64, 96, 128, 160, 192, 224, 256)
#: MobileNetV2: expansion, channels, blocks, stride of the first.
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
#: Standard deviation of a pen's ink in pixels of a canvas of 32.
PEN = 1.2


def mobilenet_features(width: float, channels: int) -> tuple[nn.Sequential, int]:
    """MobileNetV2 up to its last maps, and their channels (1280 at full width and more)."""
    first, last = rounded(32 * width), max(rounded(1280 * width), 1280 if width >= 1 else 0)
    layers: list[nn.Module] = [conv_norm(channels, first, 3, 2, act=nn.ReLU6)]
    inner = first
    for expansion, full, blocks, stride in ROWS:
        outer = rounded(full * width)
        for place in range(blocks):
            by = stride if place == 0 else 1
            layers.append(InvertedBottleneck(inner, outer, hidden=inner * expansion, stride=by, act=nn.ReLU6))
            inner = outer
    return nn.Sequential(*layers, conv_norm(inner, last, act=nn.ReLU6)), last


def sketchy_features(
    *, network: Literal["mobilenet_v2", "vgg16"] = "mobilenet_v2", resolution: PositiveInt = 256
) -> nn.Module:
    """SketchyNetV1's MobileNetV2 without a classifier, or the convolutions of VGG-16 that it learns from.

    Args:
        network: which.
        resolution: side of the drawn sketch.
    """
    if network == "mobilenet_v2":
        body: nn.Module = mobilenet_features(1.0, 3)[0]
    else:
        layers: list[nn.Module] = []
        inner = 3
        for outer in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU()] if outer else [nn.MaxPool2d(2)]
            inner = outer or inner
        body = nn.Sequential(*layers)
    body.resolution = resolution  # type: ignore[assignment]
    return body.eval()


class SketchNet(nn.Module):
    """Strokes [batch, points, 3] (column, row in 0..1, pen down) drawn at `size` pixels and classified: logits."""

    def __init__(self, width: float, size: int, points: int):
        super().__init__()
        self.size, self.points, self.classes = size, points, 10
        self.features, last = mobilenet_features(width, 1)
        self.head = PooledHead(last, 10)

    def draw(self, strokes: Tensor, size: int) -> Tensor:
        """Ink of the polyline in 0..1, [batch, 1, size, size]."""
        return drawn(strokes, size)

    def classify(self, strokes: Tensor, size: int) -> Tensor:
        """Logits of strokes drawn at a size."""
        return self.head(self.features(self.draw(strokes, size)))

    def forward(self, strokes: Tensor) -> Tensor:
        """See the class."""
        return self.classify(strokes, self.size)

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random strokes."""
        like = next(self.parameters())
        return (torch.rand(batch, self.points, 3).to(like),)


@torch.no_grad()
def drawn(strokes: Tensor, size: int) -> Tensor:
    """A polyline's ink: a Gaussian of each pixel's distance to the nearest segment with the pen down."""
    place = (torch.arange(size, device=strokes.device, dtype=strokes.dtype) + 0.5) / size
    margin = 0.1
    points = margin + (1 - 2 * margin) * strokes[..., :2]
    (x0, y0), (x1, y1) = (part[..., None, None].unbind(2) for part in (points[:, :-1], points[:, 1:]))
    right, down = x1 - x0, y1 - y0  # [batch, segments, 1, 1]
    length = (right.square() + down.square()).clamp(min=1e-9)
    across, along = place - x0, place[:, None] - y0  # [batch, segments, 1, size] and [batch, segments, size, 1]
    t = (across * right / length + along * down / length).clamp(0, 1)
    apart = (across - t * right).square() + (along - t * down).square()
    up = (strokes[:, 1:, 2] < 0.5)[:, :, None, None]
    nearest = apart.masked_fill(up, 4.0).amin(dim=1, keepdim=True)
    return (-nearest / (2 * (PEN / 32) ** 2)).exp()


def sketch_net(*, width: Positive = 0.25, size: PositiveInt = 64, points: PositiveInt = 32) -> SketchNet:
    """A MobileNetV2 for drawn digits at a fixed canvas, in evaluation mode with random weights.

    Args:
        width: of the channels, over MobileNetV2's.
        size: side of the canvas in pixels.
        points: of a sketch.
    """
    return SketchNet(width, size, points).eval()


def canvas(
    model: nn.Module,
    *,
    sizes: Blocks | None = None,
    weight: Positive = 0.5,
    policy: Literal["gru", "ink"] = "gru",
    border: Rate = 0.5,
    size: PositiveInt | None = None,
    training_steps: Count = 0,
) -> CanvasNet:
    """The network whose canvas a policy chooses for each sketch; sketches of one size run together.

    Args:
        model: of `sketch_net`; it learns all sizes first.
        sizes: canvases in pixels, multiples of 32; None for 32 to 256.
        weight: of relative products against being right in the reward.
        policy: the GRU over strokes, or `ink`: the longer of two halves of the sketches, by points with the pen down,
            gets the largest canvas and the others the smallest.
        border: share of the points with the pen down above which `ink` takes the largest canvas.
        size: every sketch is drawn at this size; None lets the policy choose.
        training_steps: of the network over all sizes, and as many of the policy; 0 leaves both as they are.

    Raises:
        ValueError: another network, sizes that are no multiples of 32, or nothing to train on.
    """
    if not isinstance(model, SketchNet):
        raise ValueError(f"canvas works on sketch_net, not on {type(model).__name__}")
    choices = list(sizes or SIZES)
    wrong = [side for side in [*choices, *([size] if size else [])] if side % 32]
    if wrong:
        raise ValueError(f"canvases of {wrong} pixels: multiples of 32 are wanted")
    network = CanvasNet(model, choices, policy, border, size)
    network.gru.to(next(model.parameters()))
    if size is not None:
        network.input_dependent = False
    if not training_steps:
        if size is None or size != model.size:
            network.untrained = "canvas' policy starts at random: set training_steps, on a model with a task"  # type: ignore[assignment]
        return network.eval()
    settings = {"sizes": choices, "weight": weight, "steps": training_steps}
    found = remembered(model, canvas, settings, lambda task: _learn(network, task, weight, training_steps))
    network.load_state_dict(found)
    network.learned = {"method": "canvas", **settings}  # type: ignore[assignment]
    with_cost_of(network, model)
    return network.eval()


class Policy(nn.Module):
    """Logits over canvases [batch, sizes] of strokes [batch, points, 3]; its products are the method's."""

    charged_to = "method"

    def __init__(self, choices: int):
        super().__init__()
        self.gru = nn.GRU(3, 128, num_layers=2, batch_first=True)
        self.out = nn.Linear(128, choices)

    def forward(self, strokes: Tensor) -> Tensor:
        """See the class."""
        return self.out(self.gru(strokes)[0][:, -1])


class CanvasNet(nn.Module):
    """The network behind a policy; after a forward `paths` holds each sketch's place among the sizes."""

    input_dependent = True
    costs_by_path = True
    sampled_inputs = 597  # all digits that are held out

    def __init__(self, net: SketchNet, sizes: list[int], policy: str, border: float, size: int | None):
        super().__init__()
        self.net, self.sizes, self.kind, self.border, self.size = net, sizes, policy, border, size
        self.points, self.classes = net.points, net.classes
        self.gru = Policy(len(sizes))
        self.paths: Tensor | None = None

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random strokes."""
        return self.net.example_inputs(batch)

    def choose(self, strokes: Tensor) -> Tensor:
        """Each sketch's place among the sizes, [batch]."""
        if self.kind == "ink":
            return torch.where(strokes[..., 2].mean(dim=1) > self.border, len(self.sizes) - 1, 0)
        return self.gru(strokes).argmax(dim=1)

    def forward(self, strokes: Tensor) -> Tensor:
        """Logits, [batch, 10]."""
        if self.size is not None:
            return self.net.classify(strokes, self.size)
        chosen = self.choose(strokes)
        if strokes.device.type == "meta":  # a stated schedule: everyone at the largest
            return self.net.classify(strokes, max(self.sizes))
        self.paths = chosen
        out: Tensor | None = None
        for place, size in enumerate(self.sizes):
            members = (chosen == place).nonzero()[:, 0]
            if len(members):
                answer = self.net.classify(strokes.index_select(0, members), size)
                out = answer.new_zeros(len(strokes), self.classes) if out is None else out
                out = out.index_copy(0, members, answer)
        assert out is not None
        return out


def mean_side(share: float, full: int = 256) -> float:
    """Side of the canvas whose products are this share of those of the full one: products grow with its square."""
    return full * share**0.5


def policy_macs(points: int, sizes: int) -> int:
    """Products of the policy: two GRU layers of 128 at every point, and one linear layer."""
    return points * 3 * 128 * ((3 + 128) + (128 + 128)) + 128 * sizes


def _learn(network: CanvasNet, task: Any, weight: float, steps: int) -> dict[str, Tensor]:
    """The network at random sizes; then the policy by REINFORCE with the batch's mean reward as a baseline."""
    generator = torch.Generator().manual_seed(0)
    costs = torch.tensor([float(side) ** 2 for side in network.sizes])
    costs = costs / costs.max()

    def at_random(strokes: Tensor, labels: Tensor) -> Tensor:
        size = network.sizes[int(torch.randint(len(network.sizes), (1,), generator=generator))]
        return F.cross_entropy(network.net.classify(strokes, size), labels)

    fit(network.net, task.training_batches(BATCH, steps, 0), at_random, Pace(steps, 3e-3))
    (strokes, labels), _ = digits_parts(task)
    with torch.no_grad():
        right = torch.stack([_right(network.net, strokes, labels, size) for size in network.sizes], dim=1)
    reward = right - weight * costs

    def reinforce(pick: Tensor, _: Tensor) -> Tensor:
        logits = network.gru(strokes[pick])
        p = logits.softmax(dim=1)
        drawn_sizes = torch.multinomial(p.detach(), 1, generator=generator)
        got = reward[pick].gather(1, drawn_sizes)
        return -((got - got.mean()) * logits.log_softmax(dim=1).gather(1, drawn_sizes)).mean()

    places = ((torch.randint(len(labels), (64,), generator=generator),) * 2 for _ in range(steps))
    fit(network.gru, places, reinforce, Pace(steps, 3e-3))
    return network.state_dict()


def _right(net: SketchNet, strokes: Tensor, labels: Tensor, size: int) -> Tensor:
    """1 for each sketch that is recognised at a size, [n]."""
    parts = zip(strokes.split(100), labels.split(100), strict=True)
    return torch.cat([(net.classify(s, size).argmax(dim=1) == y).float() for s, y in parts])
