"""PCSR: a light and a heavy pixel network, and a classifier that picks one for every pixel (arXiv 2407.21448).

Source: Jeong et al. 2024. A backbone gives features at the size of the small picture. A pixel of the large one reads
the nearest feature, its place relative to it and the size of a cell; its colour is what its network says, added to the
bilinear enlargement.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.training import Pace, fit
from suites.dynamic.learning import remembered, with_cost_of
from suites.dynamic.sr_nets import SCALE, Backbone, SrNet

#: Features, hidden layers of the heavy, the light and the classifying network, by backbone.
SIZES: dict[str, tuple[int, list[int], list[int], list[int]]] = {
    "fsrcnn": (48, [58] * 4, [10] * 3, []),
    "carn": (52, [74] * 4, [20] * 3, [10, 10]),
    "msrresnet": (58, [170] * 4, [40] * 3, [20, 20]),
}
#: Place and cell size beside the features.
COORDINATES = 4
BATCH = 16


def pcsr(
    model: nn.Module,
    *,
    k: Annotated[float, Field(ge=0.0)] = 0.0,
    heavy: Rate | None = None,
    adaptive: bool = False,
    refine: bool = True,
    width: PositiveInt | None = None,
    hidden: PositiveInt | None = None,
    training_steps: Count = 0,
) -> Pcsr:
    """The network with its upsampler replaced by two pixel networks and a classifier between them.

    Args:
        model: one of `sr_net`.
        k: power of the cost by which probabilities are divided before the larger is taken: 0 ignores cost, more is
            cheaper.
        heavy: a fixed share of the pixels, those with the largest probability, goes to the heavy network.
        adaptive: the two are told apart by 2-means on each picture's probabilities.
        refine: light pixels with a heavy neighbour become the mean of 3 x 3.
        width: features of the new backbone; None for the paper's.
        hidden: width of the heavy network's layers; None for the paper's.
        training_steps: of backbone and heavy network, and as many of light one and classifier, on the model's task.

    Raises:
        ValueError: another network, a negative power, a width that groups of 4 do not divide, or nothing to train on.
    """
    if not isinstance(model, SrNet):
        raise ValueError(f"pcsr works on networks of sr_net, not on {type(model).__name__}")
    if k < 0:
        raise ValueError(f"k={k}: a power of 0 or more is wanted")
    if width is not None and model.kind == "carn" and width % 4:
        raise ValueError(f"width={width}: CARN-M has groups of 4, take a multiple")
    wide, large, light, judge = SIZES[model.kind]
    large = large if hidden is None else [hidden] * len(large)
    network = Pcsr(model.kind, width or wide, large, light, judge, model.side).to(next(model.parameters()))
    network.k, network.heavy, network.adaptive, network.refine = float(k), heavy, adaptive, refine
    network.input_dependent = heavy is None
    if not training_steps:
        network.untrained = "pcsr's networks start at random: set training_steps, on a model with a task"  # type: ignore[assignment]
        return network.eval()
    settings = {"width": width, "hidden": hidden, "steps": training_steps}
    network.load_state_dict(remembered(model, pcsr, settings, lambda task: _learn(network, task, training_steps)))
    network.learned = {"method": "pcsr", **settings}  # type: ignore[assignment]
    with_cost_of(network, model)
    return network.eval()


def pixel_network(inputs: int, hidden: list[int], outputs: int) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    layers: list[nn.Module] = []
    for inner, outer in pairwise([inputs, *hidden]):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear((hidden or [inputs])[-1], outputs))


def network_macs(inputs: int, hidden: list[int], outputs: int) -> int:
    """Products of such a network on one pixel."""
    return sum(a * b for a, b in pairwise([inputs, *hidden, outputs]))


class Pcsr(nn.Module):
    """Pictures [batch, 3, 4 h, 4 w] of [batch, 3, h, w]; `shares` holds each picture's heavy share after a forward."""

    input_dependent = True
    heavy: float | None

    def __init__(self, kind: Any, width: int, heavy: list[int], light: list[int], judge: list[int], side: int):
        super().__init__()
        self.scale, self.side = SCALE, side
        inputs = width + COORDINATES
        self.backbone = Backbone(kind, width)
        self.heavy_net = pixel_network(inputs, heavy, 3)
        self.light_net = pixel_network(inputs, light, 3)
        self.classifier = pixel_network(inputs, judge, 2)
        self.pixel_macs = tuple(network_macs(inputs, *of) for of in ((light, 3), (heavy, 3), (judge, 2)))
        self.k, self.heavy, self.adaptive, self.refine = 0.0, None, False, True
        self.shares: Tensor | None = None

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random small pictures in 0..1."""
        like = next(self.parameters())
        return (torch.rand(batch, 3, self.side, self.side).to(like),)

    def queries(self, images: Tensor) -> Tensor:
        """What pixels read, [batch, 16 h w, features + 4], in raster order."""
        features = self.backbone(images)
        high, wide = images.shape[-2] * SCALE, images.shape[-1] * SCALE
        nearest = features.repeat_interleave(SCALE, dim=2).repeat_interleave(SCALE, dim=3)
        inside = (torch.arange(SCALE, device=images.device, dtype=images.dtype) + 0.5) * 2 / SCALE - 1
        rows = inside.repeat(high // SCALE)[:, None].expand(high, wide)
        columns = inside.repeat(wide // SCALE)[None].expand(high, wide)
        cell = torch.ones_like(rows) * 2 / SCALE
        places = torch.stack([rows, columns, cell, cell]).expand(len(images), -1, -1, -1)
        return torch.cat([nearest, places], dim=1).flatten(2).transpose(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        read = self.queries(images)
        chosen = self.choose(self.classifier(read), images.shape[-2] * images.shape[-1])
        flat = read.flatten(0, 1)
        if self.heavy is None or images.device.type != "meta":
            which = chosen.flatten()
            large, small = which.nonzero()[:, 0], (~which).nonzero()[:, 0]
            self.shares = chosen.float().mean(dim=1)
        else:  # counting without values: a stated share
            count = len(images) * self._heavy_count(read.shape[1])
            large = torch.arange(count, device=flat.device)
            small = torch.arange(len(flat) - count, device=flat.device)
        colours = flat.new_zeros(len(flat), 3)
        if len(large):
            colours = colours.index_copy(0, large, self.heavy_net(flat.index_select(0, large)))
        if len(small):
            colours = colours.index_copy(0, small, self.light_net(flat.index_select(0, small)))
        out = self._picture(colours.view(len(images), -1, 3), images)
        return self._refined(out, chosen) if self.refine else out

    def choose(self, logits: Tensor, places: int) -> Tensor:
        """Which pixels are heavy, [batch, pixels], from logits of light and heavy [batch, pixels, 2]."""
        p = logits.softmax(dim=-1)
        if self.heavy is not None:
            count = self._heavy_count(p.shape[1])
            best = p[..., 1].topk(count, dim=1).indices
            return torch.zeros(p.shape[:2], dtype=torch.bool, device=p.device).scatter(1, best, True)
        if self.adaptive:
            return torch.stack([_two_means(row) for row in p[..., 1]])
        light, heavy = self.costs(places)
        return p[..., 1] / heavy**self.k > p[..., 0] / light**self.k

    def costs(self, places: int = 1) -> tuple[float, float]:
        """Products of a light and of a heavy pixel, backbone included, as shares of their sum."""
        shared = backbone_macs(self.backbone.kind, self.backbone.width) / SCALE**2 + self.pixel_macs[2]
        light, heavy = shared + self.pixel_macs[0], shared + self.pixel_macs[1]
        return light / (light + heavy), heavy / (light + heavy)

    def _heavy_count(self, pixels: int) -> int:
        assert self.heavy is not None
        return round(self.heavy * pixels)

    def _picture(self, colours: Tensor, images: Tensor) -> Tensor:
        large = F.interpolate(images, scale_factor=float(SCALE), mode="bilinear", align_corners=False)
        return large + colours.transpose(1, 2).view_as(large)

    def _refined(self, out: Tensor, chosen: Tensor) -> Tensor:
        """Light pixels beside a heavy one become the mean of their 3 x 3 neighbourhood."""
        heavy = chosen.view(len(out), 1, *out.shape[-2:]).to(out.dtype)
        near = F.max_pool2d(heavy, 3, 1, 1) * (1 - heavy)
        smooth = F.avg_pool2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return torch.where(near > 0, smooth, out)


def backbone_macs(kind: str, width: int) -> int:
    """Products of a backbone on one pixel of the small picture."""
    if kind == "fsrcnn":
        return 75 * width + 2 * 12 * width + 4 * 9 * 144
    if kind == "carn":
        mix = (2 + 3 + 4) * width**2
        return 27 * width + 3 * (3 * (2 * 9 * width**2 // 4 + width**2) + mix) + mix
    return 27 * width + 16 * 18 * width**2


def macs(kind: str, share: float) -> float:
    """Products on one pixel of the small picture with a share of the large one's pixels heavy, at the paper's sizes."""
    width, heavy, light, judge = SIZES[kind]
    inputs = width + COORDINATES
    small, large, picks = network_macs(inputs, light, 3), network_macs(inputs, heavy, 3), network_macs(inputs, judge, 2)
    return backbone_macs(kind, width) + SCALE**2 * (picks + share * large + (1 - share) * small)


def _two_means(values: Tensor, rounds: int = 10) -> Tensor:
    """The larger of two groups of values [n] in 0..1 scaled to the unit interval; the first border is one half."""
    scaled = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-9)
    border = scaled.new_tensor(0.5)
    for _ in range(rounds):
        above = scaled > border
        count = above.sum()
        upper = (scaled * above).sum() / count.clamp(min=1)
        lower = (scaled * ~above).sum() / (len(scaled) - count).clamp(min=1)
        border = (upper + lower) / 2
    return scaled > border


def _learn(network: Pcsr, task: Any, steps: int) -> dict[str, Tensor]:
    """Backbone and heavy network by the absolute error; then light network and classifier, with the rest fixed."""

    def heavy_loss(images: Tensor, wanted: Tensor) -> Tensor:
        return (network._picture(network.heavy_net(network.queries(images)), images) - wanted).abs().mean()

    def both_loss(images: Tensor, wanted: Tensor) -> Tensor:
        network.backbone.eval()
        with torch.no_grad():
            read = network.queries(images)
            heavy = network.heavy_net(read)
        p = network.classifier(read).softmax(dim=-1)
        made = p[..., :1] * network.light_net(read) + p[..., 1:] * heavy
        half = p[..., 1].numel() / 2
        even = (p[..., 1].sum() - half).abs() / half
        return 1000 * (network._picture(made, images) - wanted).abs().mean() + 3 * even

    fit(network, task.training_batches(BATCH, steps, 0), heavy_loss, Pace(steps, 2e-3, weight_decay=0.0))
    network.requires_grad_(False)
    network.light_net.requires_grad_(True)
    network.classifier.requires_grad_(True)
    fit(network, task.training_batches(BATCH, steps, 1), both_loss, Pace(steps, 2e-3, weight_decay=0.0, clip=1e3))
    network.requires_grad_(True)
    return network.state_dict()
