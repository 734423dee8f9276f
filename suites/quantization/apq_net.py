"""APQ's networks: one architecture of a space, and the weight-shared network that contains them all."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.quantization.apq_space import DIGITS, PAPER, Architecture, Space, macs, random_architecture, uniform


class Block(nn.Module):
    """An inverted bottleneck of at most so many hidden channels and a kernel of 7; a part of it can run."""

    def __init__(self, inputs: int, outputs: int, stride: int, hidden: int, kernel: int):
        super().__init__()
        self.stride, self.residual = stride, stride == 1 and inputs == outputs
        self.expand = nn.Conv2d(inputs, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.norms = nn.ModuleList([nn.GroupNorm(1, hidden), nn.GroupNorm(1, hidden), nn.GroupNorm(1, outputs)])

    def forward(self, x: Tensor, hidden: int | None = None, kernel: int | None = None) -> Tensor:
        """Maps of the first `hidden` channels inside, and the middle of the kernel."""
        if hidden is None or kernel is None:
            y = F.relu(self.norms[0](self.expand(x)))
            y = self.norms[2](self.project(F.relu(self.norms[1](self.depthwise(y)))))
            return x + y if self.residual else y
        h, k = hidden, kernel
        y = F.relu(self._normed(0, F.conv2d(x, self.expand.weight[:h], self._bias(self.expand, h)), h))
        cut = (self.depthwise.kernel_size[0] - k) // 2
        taps = self.depthwise.weight[:h, :, cut : cut + k, cut : cut + k]
        y = F.conv2d(y, taps, self._bias(self.depthwise, h), self.stride, k // 2, 1, h)
        y = F.relu(self._normed(1, y, h))
        y = self._normed(2, F.conv2d(y, self.project.weight[:, :h], self.project.bias), self.project.out_channels)
        return x + y if self.residual else y

    def part(self, hidden: int, kernel: int) -> Block:
        """A block of its own with these channels and this kernel: nothing else is left in it."""
        made = Block(self.expand.in_channels, self.project.out_channels, self.stride, hidden, kernel)
        cut = (self.depthwise.kernel_size[0] - kernel) // 2
        pairs = [
            (made.expand.weight, self.expand.weight[:hidden]),
            (made.expand.bias, self.expand.bias[:hidden]),  # type: ignore[index]
            (made.depthwise.weight, self.depthwise.weight[:hidden, :, cut : cut + kernel, cut : cut + kernel]),
            (made.depthwise.bias, self.depthwise.bias[:hidden]),  # type: ignore[index]
            (made.project.weight, self.project.weight[:, :hidden]),
            (made.project.bias, self.project.bias),
        ]
        for place, count in ((0, hidden), (1, hidden), (2, None)):
            new, old = made.norms[place], self.norms[place]
            pairs += [(new.weight, old.weight[:count]), (new.bias, old.bias[:count])]  # type: ignore[index, list-item]
        with torch.no_grad():
            for target, source in pairs:
                target.copy_(source)  # type: ignore[union-attr, arg-type]
        return made

    def _bias(self, layer: nn.Conv2d, count: int) -> Tensor | None:
        return None if layer.bias is None else layer.bias[:count]

    def _normed(self, place: int, x: Tensor, count: int) -> Tensor:
        norm = self.norms[place]
        return F.group_norm(x, 1, norm.weight[:count], norm.bias[:count])  # type: ignore[index]


class ApqNet(nn.Module):
    """Blocks of one architecture, or of the largest: then `forward` takes the architecture that runs.

    While it learns, every batch runs the largest network or a random one in turn, so that all share the weights.
    """

    def __init__(self, space: Space, one: Architecture, shared: bool):
        super().__init__()
        self.space, self.architecture, self.shared = space, one, shared
        self.resolution, self.channels, self.classes = space.resolution, space.channels, space.classes
        self.stem = nn.Conv2d(space.channels, space.stem, 3, space.stem_stride, 1)
        self.first_depthwise = nn.Conv2d(space.stem, space.stem, 3, 1, 1, groups=space.stem)
        self.first_pointwise = nn.Conv2d(space.stem, space.first, 1)
        places = space.places()
        self.active = list(range(space.blocks)) if shared else one.active(space)
        blocks, inputs = [], space.first
        for place in self.active:
            stage, inside, _, outputs = places[place]
            stride = space.strides[stage] if inside == 0 else 1
            kernel = 7 if shared else one.kernels[place]
            hidden = space.hiddens(places[place][2])[-1] if shared else one.hiddens[place]
            blocks.append(Block(inputs, outputs, stride, hidden, kernel))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Conv2d(inputs, space.last, 1)
        # without these the biases of the first layers drown the picture, and a shared network learns nothing
        self.norms = nn.ModuleList(
            nn.GroupNorm(1, width) for width in (space.stem, space.stem, space.first, space.last)
        )
        self.head = nn.Linear(space.last, space.classes)
        self.turn = Random(0)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [batch, classes]."""
        if self.shared and self.training and self.turn.random() < 0.75:
            return self.run(images, random_architecture(self.space, self.turn, quantised=False))
        return self.run(images, None)

    def run(self, images: Tensor, one: Architecture | None) -> Tensor:
        """Logits of an architecture inside the shared network; None runs all that there is."""
        x = F.relu(self.norms[0](self.stem(images)))
        x = F.relu(self.norms[1](self.first_depthwise(x)))
        x = F.relu(self.norms[2](self.first_pointwise(x)))
        wanted = set(self.active if one is None else one.active(self.space))
        for place, block in zip(self.active, self.blocks, strict=True):
            if place in wanted:
                x = block(x) if one is None else block(x, one.hiddens[place], one.kernels[place])
        return self.head(F.relu(self.norms[3](self.last(x))).mean(dim=(2, 3)))

    def taken_out(self, one: Architecture) -> ApqNet:
        """A network of that architecture alone, with the weights that it has here."""
        like = self.head.weight
        made = ApqNet(self.space, one, shared=False).to(like)
        for name in ("stem", "first_depthwise", "first_pointwise", "last", "norms", "head"):
            getattr(made, name).load_state_dict(getattr(self, name).state_dict())
        made.blocks = nn.ModuleList(
            self.blocks[place].part(one.hiddens[place], one.kernels[place])  # type: ignore[operator]
            for place in made.active
        )
        made.task = getattr(self, "task", None)  # type: ignore[assignment]
        return made.eval()

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the network's resolution."""
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(self.head.weight),)


def apq_net(
    *, depth: PositiveInt = 2, kernel: PositiveInt = 3, expansion: PositiveInt = 4, size: str = "paper"
) -> ApqNet:
    """A uniform network of the space.

    Args:
        depth: blocks of every stage but the last.
        kernel: of every block: 3, 5 or 7.
        expansion: hidden width over inputs, 4 to 6 (2 to 4 for digits).
        size: the paper's space, or digits.

    Raises:
        ValueError: a choice that the space does not have.
    """
    space = {"paper": PAPER, "digits": DIGITS}.get(size)
    if space is None or kernel not in (3, 5, 7) or not space.expansions[0] <= expansion <= space.expansions[1]:
        raise ValueError(f"size={size}, kernel={kernel}, expansion={expansion}: not in APQ's space")
    if depth not in space.depths[0]:
        raise ValueError(f"depth={depth}: stages have {', '.join(map(str, space.depths[0]))} blocks")
    return ApqNet(space, uniform(space, depth, kernel, float(expansion)), shared=False).eval()


def apq_supernet() -> ApqNet:
    """The weight-shared network of digits, with random weights."""
    return ApqNet(DIGITS, uniform(DIGITS, kernel=7), shared=True).eval()


def layer_bits(net: ApqNet, one: Architecture) -> dict[str, tuple[int, int]]:
    """Weight and activation bits of every layer of a network that was taken out, by path."""
    found = dict.fromkeys(("stem", "first_depthwise", "first_pointwise", "last", "head"), (8, 8))
    for index, place in enumerate(net.active):
        pw, pa, dw, da = one.bits[place]
        found[f"blocks.{index}.expand"] = found[f"blocks.{index}.project"] = (pw, pa)
        found[f"blocks.{index}.depthwise"] = (dw, da)
    return found


def uniform_macs(model: dict[str, Any], method: dict[str, Any]) -> int:
    """MACs of one sample of `apq_net` with these settings, layer by layer in closed form."""
    del method
    space = {"paper": PAPER, "digits": DIGITS}[model.get("size", "paper")]
    one = uniform(space, model.get("depth", 2), model.get("kernel", 3), float(model.get("expansion", 4)))
    return macs(one, space)
