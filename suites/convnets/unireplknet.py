"""UniRepLKNet: few 13x13 depthwise layers, with dilated branches in training that are merged before deployment.

Sources: Ding et al. 2024, UniRepLKNet, arXiv:2311.15599, sections 3.1 and 3.2; the same network in the journal paper,
arXiv:2410.08049.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.settings import Counts, PositiveInt
from bench.errors import UsageError
from suites.common.conv_blocks import LayerNorm2d, PooledHead, ResponseNorm, SqueezeExcite, at, depthwise
from suites.common.feature_operator import FeatureOperator
from suites.common.folding import folded_weights

#: (kernel, dilation) of the branches beside a 13x13 layer.
BRANCHES = ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5))
PLANNED_KERNEL = 13


class DilatedBranches(nn.Module):
    """A large depthwise layer with normalised dilated ones beside it, all summed: what training sees."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.large = nn.Sequential(depthwise(channels, kernel, bias=False), nn.BatchNorm2d(channels))
        self.branches = nn.ModuleList(
            nn.Sequential(depthwise(channels, size, dilation=apart, bias=False), nn.BatchNorm2d(channels))
            for size, apart in BRANCHES
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        total = self.large(x)
        for branch in self.branches:
            total = total + branch(x)
        return total

    def merged(self) -> nn.Conv2d:
        """One depthwise layer with bias that computes the same: dilation is zeros between taps."""
        weight, bias = folded_weights(self.large[0], self.large[1])
        for branch in self.branches:
            layer: Any
            layer, norm = branch.children()
            small, shift = folded_weights(layer, norm)
            weight = weight + _spread(small, layer.dilation[0], weight.shape[-1])
            bias = bias + shift
        return _layer_of(weight, bias)


def _spread(kernel: Tensor, dilation: int, size: int) -> Tensor:
    """A kernel with zeros between its taps in the middle of a window of `size`."""
    taps = kernel.shape[-1]
    wide = dilation * (taps - 1) + 1
    spread = kernel.new_zeros(*kernel.shape[:2], wide, wide)
    spread[:, :, ::dilation, ::dilation] = kernel
    return F.pad(spread, [(size - wide) // 2] * 4)


def _layer_of(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    layer = depthwise(weight.shape[0], weight.shape[-1])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


class Block(nn.Module):
    """Depthwise, BN, gate; linear, GELU, response norm, linear, BN, layer scale; residual."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        large = kernel == PLANNED_KERNEL
        self.spatial: nn.Module = (
            DilatedBranches(channels, kernel) if large else depthwise(channels, kernel, bias=False)
        )
        self.norm: nn.Module = nn.BatchNorm2d(channels)
        self.gate = SqueezeExcite(channels, channels // 4)
        self.widen = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.response = ResponseNorm(4 * channels)
        self.narrow = nn.Linear(4 * channels, channels, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(channels)
        self.scale: nn.Parameter | None = nn.Parameter(torch.full((channels, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        y = self.gate(self.norm(self.spatial(x)))
        y = self.response(self.act(self.widen(y.permute(0, 2, 3, 1))))
        y = self.norm2(self.narrow(y).permute(0, 3, 1, 2))
        return x + (y if self.scale is None else self.scale * y)

    def merge(self) -> None:
        """Put branches, norms, the layer scale and the response norm's bias into the layers beside them."""
        conv = self.spatial.merged() if isinstance(self.spatial, DilatedBranches) else self.spatial
        self.spatial = _layer_of(*folded_weights(conv, self.norm))
        self.norm = nn.Identity()
        norm, scale = self.norm2, self.scale
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        assert scale is not None and self.response.beta is not None
        factor = scale.flatten() * norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = self.narrow.weight @ self.response.beta - norm.running_mean
        linear = nn.Linear(self.narrow.in_features, self.narrow.out_features)
        linear.weight = nn.Parameter((self.narrow.weight * factor[:, None]).detach())
        linear.bias = nn.Parameter((shift * factor + norm.bias * scale.flatten()).detach())
        self.narrow, self.norm2, self.scale, self.response.beta = linear, nn.Identity(), None, None


def kernels_of(pattern: str, kernel: int, depths: list[int]) -> list[list[int]]:
    """The kernel of every block: 3 in stage 1, large in stages 2 and 4, in stage 3 by the pattern.

    Args:
        pattern: `all`, `alternating` (large, 3) or `sparse` (large, 3, 3).
        kernel: the large one.
        depths: blocks of the four stages.
    """
    every = {"all": 1, "alternating": 2, "sparse": 3}[pattern]
    third = [kernel if place % every == 0 else 3 for place in range(depths[2])]
    return [[3] * depths[0], [kernel] * depths[1], third, [kernel] * depths[3]]


def unireplknet(
    *, width: PositiveInt = 40, depths: Counts = [2, 2, 6, 2],  # noqa: B006
    pattern: Literal["all", "alternating", "sparse"] = "all", kernel: PositiveInt = PLANNED_KERNEL,
    form: Literal["deploy", "train"] = "deploy", classes: PositiveInt = 1000, resolution: PositiveInt = 224,
) -> nn.Sequential:  # fmt: skip
    """A UniRepLKNet classifier of images [batch, 3, height, width].

    Args:
        width: of the first stage, which doubles three times.
        depths: blocks of the four stages.
        pattern: which blocks of stage 3 have large kernels, see `kernels_of`.
        kernel: of the large layers, odd; only 13 has branches in training.
        form: `train` with its branches and norms, or `deploy`, the same function with all of them merged.
        classes: logits.
        resolution: side of the input.

    Raises:
        UsageError: depths are not of four stages, the kernel is even, or its training form is not the paper's.
    """
    if len(depths) != 4:
        raise UsageError(f"unireplknet: depths={depths} must name four stages")
    if kernel % 2 == 0:
        raise UsageError(f"unireplknet: kernel={kernel} must be odd")
    if form == "train" and kernel != PLANNED_KERNEL:
        raise UsageError(
            f"unireplknet: the branches of training belong to 13x13: kernel={kernel} has form='deploy' only"
        )
    half = width // 2
    stem: list[nn.Module] = [
        nn.Conv2d(3, half, 3, 2, 1), LayerNorm2d(half, eps=1e-6), nn.GELU(),
        nn.Conv2d(half, width, 3, 2, 1), LayerNorm2d(width, eps=1e-6),
    ]  # fmt: skip
    layers: list[nn.Module] = [nn.Sequential(*stem)]
    for place, kernels in enumerate(kernels_of(pattern, kernel, list(depths))):
        channels = width << place
        if place:
            down = nn.Conv2d(channels // 2, channels, 3, 2, 1)
            layers.append(nn.Sequential(down, LayerNorm2d(channels, eps=1e-6)))
        layers += [Block(channels, size) for size in kernels]
    layers.append(PooledHead(width << 3, classes, nn.LayerNorm(width << 3, eps=1e-6)))
    network = at(nn.Sequential(*layers), resolution)
    if form == "deploy":
        merge(network)
    return network


def merge(network: nn.Module) -> None:
    """Bring every block into its form for deployment, in place."""
    for module in network.modules():
        if isinstance(module, Block):
            module.merge()


def large_depthwise(
    *, width: PositiveInt = 64, kernel: PositiveInt = PLANNED_KERNEL, form: Literal["deploy", "train"] = "deploy",
    resolution: PositiveInt = 28,
) -> FeatureOperator:  # fmt: skip
    """One large depthwise layer, with its branches or merged, as an operator on [batch, width, resolution, resolution].

    Raises:
        UsageError: an even kernel, or branches of another one than 13.
    """
    if kernel % 2 == 0:
        raise UsageError(f"large_depthwise: kernel={kernel} must be odd")
    size = (width, resolution, resolution)
    if kernel != PLANNED_KERNEL:
        if form == "train":
            raise UsageError(f"large_depthwise: the branches of training belong to 13x13, not to {kernel}x{kernel}")
        return FeatureOperator(depthwise(width, kernel), size, form=form)
    branched = DilatedBranches(width, kernel).eval()
    if form == "train":
        return FeatureOperator(branched, size, form=form)
    return FeatureOperator(branched.merged(), size, form=form)
