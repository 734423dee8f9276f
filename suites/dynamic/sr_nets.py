"""Networks that enlarge pictures four times: FSRCNN, CARN-M and MSRResNet, whole or up to their last features.

FSRCNN: arXiv 1608.00367 with a transposed convolution at the end; CARN-M: arXiv 1803.08664, groups of 4 and recursive
blocks, norms behind its 1x1 layers as in PCSR's release; MSRResNet: 16 residual blocks without norms.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from suites.common.checkpoint import load_checkpoint
from suites.common.conv_blocks import conv_norm

__all__ = ["Backbone", "SrNet", "load_checkpoint", "sr_net"]

Kind = Literal["fsrcnn", "carn", "msrresnet"]
WIDTHS = {"fsrcnn": 56, "carn": 64, "msrresnet": 64}
SCALE = 4


class Recursive(nn.Module):
    """CARN-M's residual block: two grouped 3x3 layers and a 1x1 layer."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=groups), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=groups), nn.ReLU(), nn.Conv2d(width, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return F.relu(self.body(x) + x)


class Cascade(nn.Module):
    """Three parts, each fed with all that came before it through a 1x1 layer; one shared part makes it recursive."""

    def __init__(self, parts: list[nn.Module], width: int):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.mix = nn.ModuleList(conv_norm(width * n, width, act=nn.ReLU) for n in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        seen, here = x, x
        for place, mix in enumerate(self.mix):
            seen = torch.cat([seen, self.parts[place % len(self.parts)](here)], dim=1)
            here = mix(seen)
        return here


class Plain(nn.Module):
    """MSRResNet's block."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + self.conv2(F.relu(self.conv1(x)))


class Backbone(nn.Module):
    """Features [batch, width, height, width of the picture] of a small picture, without an upsampler."""

    def __init__(self, kind: Kind, width: int):
        super().__init__()
        self.kind, self.width = kind, width
        self.body: nn.Module
        if kind == "fsrcnn":
            layers: list[nn.Module] = [nn.Conv2d(3, width, 5, padding=2), nn.PReLU(width)]
            layers += [nn.Conv2d(width, 12, 1), nn.PReLU(12)]
            for _ in range(4):
                layers += [nn.Conv2d(12, 12, 3, padding=1), nn.PReLU(12)]
            self.body = nn.Sequential(*layers, nn.Conv2d(12, width, 1), nn.PReLU(width))
        elif kind == "carn":
            blocks: list[nn.Module] = [Cascade([Recursive(width, 4)], width) for _ in range(3)]
            self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), Cascade(blocks, width))
        else:
            head = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.1)]
            self.body = nn.Sequential(*head, *(Plain(width) for _ in range(16)))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.body(images)


class SrNet(nn.Module):
    """A backbone and its own upsampler: pictures [batch, 3, 4 h, 4 w] of [batch, 3, h, w]."""

    def __init__(self, kind: Kind, width: int, side: int):
        super().__init__()
        self.scale, self.side, self.kind = SCALE, side, kind
        self.backbone = Backbone(kind, width)
        self.upsampler: nn.Module
        if kind == "fsrcnn":
            self.upsampler = nn.ConvTranspose2d(width, 3, 9, stride=SCALE, padding=4, output_padding=SCALE - 1)
        else:
            groups, last = (
                (4, []) if kind == "carn" else (1, [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.1)])
            )
            layers: list[nn.Module] = []
            for _ in range(2):
                layers += [nn.Conv2d(width, 4 * width, 3, padding=1, groups=groups)]
                layers += [nn.ReLU(), nn.PixelShuffle(2)] if kind == "carn" else [nn.PixelShuffle(2), nn.LeakyReLU(0.1)]
            self.upsampler = nn.Sequential(*layers, *last, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.upsampler(self.backbone(images))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random small pictures in 0..1."""
        like = next(self.parameters())
        return (torch.rand(batch, 3, self.side, self.side).to(like),)


def sr_net(
    *, kind: Literal["fsrcnn", "carn", "msrresnet"] = "fsrcnn", width: PositiveInt | None = None, side: PositiveInt = 12
) -> SrNet:
    """A network that enlarges four times, in evaluation mode with random weights.

    Args:
        kind: `fsrcnn`, `carn` (CARN-M) or `msrresnet`.
        width: features, for CARN-M a multiple of 4; None for 56, 64 and 64.
        side: of the small example picture.

    Raises:
        ValueError: no such kind, or a width that groups of 4 do not divide.
    """
    if kind not in WIDTHS:
        raise ValueError(f"kind={kind!r} is unknown: use {', '.join(WIDTHS)}")
    wide = width or WIDTHS[kind]
    if kind == "carn" and wide % 4:
        raise ValueError(f"width={wide}: CARN-M has groups of 4, take a multiple")
    return SrNet(kind, wide, side).eval()
