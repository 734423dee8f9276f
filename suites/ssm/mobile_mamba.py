"""MobileMamba: three stages from stride 16 whose channels are scanned, filtered locally, or left alone.

Source: He et al. 2024, MobileMamba, arXiv:2411.15941, section 3. The Haar transforms are grouped convolutions here, so
a trace counts them; their filters are frozen buffers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Blocks, PositiveInt, Rate
from bench.errors import UsageError
from suites.common.checkpoint import load_checkpoint
from suites.common.conv_blocks import Residual, SqueezeExcite, at, conv_norm
from suites.common.folding import fold_sequences
from suites.common.scan_forms import parse_form
from suites.ssm.haar import WaveletFilter
from suites.ssm.orders import BOTH_WAYS, Orders
from suites.ssm.scan_network import ScanNetwork
from suites.ssm.ss2d import GatedScan

__all__ = ["MobileMamba", "load_checkpoint", "mobile_mamba"]

#: Widths, depths and pixels of the published sizes (table 1); B1, B2 and B4 are one network.
SIZES = {
    "T2": ([144, 272, 368], [1, 2, 2], 192),
    "T4": ([176, 368, 448], [1, 2, 2], 192),
    "S6": ([192, 384, 448], [1, 2, 2], 224),
    "B1": ([200, 376, 448], [2, 3, 2], 256),
    "B2": ([200, 376, 448], [2, 3, 2], 384),
    "B4": ([200, 376, 448], [2, 3, 2], 512),
}
GLOBAL, LOCAL, KERNELS = (0.8, 0.7, 0.6), (0.2, 0.2, 0.3), (7, 5, 3)
#: States of a channel: one.
STATE = 1


def split_channels(channels: int, to_global: float, to_local: float) -> tuple[int, int, int]:
    """Channels (g, l, rest): g the multiple of 16 nearest to int(ratio C), ties upward; l cut to what g leaves."""
    wide = channels if to_global == 1 else min(channels, (int(to_global * channels) + 8) // 16 * 16)
    near = min(int(to_local * channels), channels - wide)
    return wide, near, channels - wide - near


class ScanBranch(nn.Module):
    """1x1 conv-BN to 2 D, scans both ways with one state a channel, 1x1 conv-BN back, times a vector."""

    def __init__(self, channels: int, form: str, raster4: bool):
        super().__init__()
        self.enter = conv_norm(channels, 4 * channels)
        self.gated = GatedScan(channels, STATE, Orders(BOTH_WAYS, 1, raster4), form)
        self.leave = conv_norm(2 * channels, channels)
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, g, height, width]."""
        y = self.gated(self.enter(x).permute(0, 2, 3, 1))
        return self.leave(y.permute(0, 3, 1, 2)) * self.scale


class Mixer(nn.Module):
    """Channels split into global (scan plus wavelets), local (depthwise) and untouched; joined, ReLU, 1x1 conv-BN."""

    def __init__(
        self, channels: int, kernel: int, ratios: tuple[float, float], *, ssm: bool, wavelet: bool, form: str,
        raster4: bool,
    ):  # fmt: skip
        super().__init__()
        self.parts = split_channels(channels, *ratios)
        wide, near, _ = self.parts
        self.scan = ScanBranch(wide, form, raster4) if ssm and wide else None
        self.wavelet = WaveletFilter(wide, kernel) if wavelet and wide else None
        local = (
            conv_norm(near, near, kernel, groups=near, act=nn.ReLU),
            conv_norm(near, near, groups=near),
        ) if near else ()  # fmt: skip
        self.local = nn.Sequential(*local)
        self.join = nn.Sequential(nn.ReLU(), *conv_norm(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [batch, C, height, width]."""
        wide, near, rest = x.split(self.parts, dim=1)
        made = [branch(wide) for branch in (self.scan, self.wavelet) if branch is not None]
        far = sum(made[1:], made[0]) if made else wide
        return self.join(torch.cat([far, self.local(near), rest], dim=1))


def network(channels: int) -> Residual:
    """X + 1x1 conv-BN C -> 2 C, ReLU, 1x1 conv-BN back."""
    return Residual(nn.Sequential(conv_norm(channels, 2 * channels, act=nn.ReLU), conv_norm(2 * channels, channels)))


def around(channels: int) -> nn.Sequential:
    """X + depthwise 3x3 conv-BN, and the network."""
    return nn.Sequential(Residual(conv_norm(channels, channels, 3, groups=channels)), network(channels))


def shrinking(inputs: int, outputs: int) -> nn.Sequential:
    """Between stages: half the side, the next width, by a gated inverted bottleneck of 4 C."""
    hidden = 4 * inputs
    body = nn.Sequential(
        conv_norm(inputs, hidden, act=nn.ReLU), conv_norm(hidden, hidden, 3, 2, groups=hidden, act=nn.ReLU),
        SqueezeExcite(hidden, inputs), conv_norm(hidden, outputs),
    )  # fmt: skip
    return nn.Sequential(around(inputs), body, around(outputs))


class MobileMamba(ScanNetwork):
    """Stem of stride 16, three stages, mean, BatchNorm, a linear layer.

    `params_with_wavelets` counts the frozen filters too, `params_fused` what is left once every norm is folded.
    """

    def __init__(self, stem: list[nn.Module], stages: list[nn.Module], width: int, classes: int):
        super().__init__()
        self.classes = classes
        self.stem = nn.Sequential(*stem)
        self.stages = nn.Sequential(*stages)
        self.norm: nn.Module = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of images [batch, 3, height, width]."""
        return self.head(self.norm(self.stages(self.stem(images)).mean((2, 3))))

    @property
    def params_with_wavelets(self) -> int:
        """Trainable parameters and the fixed filters of the Haar transforms."""
        frozen = sum(part.filters for part in self.modules() if isinstance(part, WaveletFilter))
        return sum(parameter.numel() for parameter in self.parameters()) + frozen

    @property
    def params_fused(self) -> int:
        """Trainable parameters once every convolution has its norm inside, and the head the last one."""
        norms = [part for part in self.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
        inside = sum(2 * norm.num_features for norm in norms)
        biases = sum(norm.num_features for norm in norms if isinstance(norm, nn.BatchNorm2d))
        return sum(parameter.numel() for parameter in self.parameters()) - inside + biases

    def fold(self) -> MobileMamba:
        """The same function in evaluation mode without norms of batches, in place."""
        fold_sequences(self)
        norm = self.norm
        if isinstance(norm, nn.BatchNorm1d) and norm.running_var is not None and norm.running_mean is not None:
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            shift = norm.bias - norm.running_mean * scale
            self.head.bias = nn.Parameter((self.head.bias + self.head.weight @ shift).detach())
            self.head.weight = nn.Parameter((self.head.weight * scale).detach())
            self.norm = nn.Identity()
        return self


def mobile_mamba(
    *,
    size: Literal["T2", "T4", "S6", "B1", "B2", "B4"] = "T2",
    split: Literal["paper", "all_global", "no_identity"] = "paper",
    wavelet: bool = True,
    ssm: bool = True,
    fused: bool = False,
    scan: str = "parallel",
    order: Literal["paper", "raster4"] = "paper",
    dims: Blocks | None = None,
    depth: Blocks | None = None,
    kernels: Blocks | None = None,
    global_ratio: list[Rate] | None = None,
    local_ratio: list[Rate] | None = None,
    stem_strides: Blocks = [2, 2, 2, 2],  # noqa: B006  read from the source by the planner, never changed
    classes: PositiveInt = 1000,
    resolution: PositiveInt | None = None,
) -> MobileMamba:
    """A classifier in evaluation mode with random weights.

    Args:
        size: widths, depths and pixels as published.
        split: channels as published; all of them global; or those that are left alone made local too.
        wavelet: whether global channels have the wavelet filter beside the scan.
        ssm: whether they have the scan.
        fused: norms folded into the layers before them; in evaluation the same function.
        scan: form of the scan: sequential, parallel, chunk=c, mamba_ssm, or the control identity.
        order: the paper's two ways, or the control that reads both in raster order.
        dims: widths of the three stages in place of the size's; the first a multiple of 8.
        depth: their blocks.
        kernels: their sides of local and wavelet filters.
        global_ratio: shares of the channels that are global, by stage.
        local_ratio: shares that are local.
        stem_strides: of the four layers of the stem.
        classes: number of logits.
        resolution: side of the input in pixels; None is the size's own.

    Raises:
        UsageError: lists of other than three, no such form of scan, ratios beside a split that has its own, or global
            channels that nothing works on.
    """
    parse_form(scan)  # also where nothing scans: a form that does not exist is never taken
    if (split == "all_global" and (global_ratio or local_ratio)) or (split == "no_identity" and local_ratio):
        raise UsageError(f"mobile_mamba: split={split} has ratios of its own: leave them out, or take split=paper")
    widths, blocks, pixels = dims or SIZES[size][0], depth or SIZES[size][1], SIZES[size][2]
    sides = kernels or list(KERNELS)
    ratios = list(zip(*ratios_of(split, global_ratio, local_ratio), strict=True))
    if not len(widths) == len(blocks) == len(sides) == len(ratios) == 3 or len(stem_strides) != 4:
        raise UsageError(f"mobile_mamba: three stages and four stem layers are wanted: dims={widths}, depth={blocks}")
    if widths[0] % 8 or any(side % 2 == 0 for side in sides):
        raise UsageError(f"mobile_mamba: the stem needs dims[0]={widths[0]} a multiple of 8, kernels={sides} are odd")
    if not (ssm or wavelet):
        raise UsageError("mobile_mamba: with ssm=False and wavelet=False nothing works on the global channels")
    stages: list[nn.Module] = []
    for place, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        if place:
            stages.append(shrinking(widths[place - 1], width))
        kinds = {"ssm": ssm, "wavelet": wavelet, "form": scan, "raster4": order == "raster4"}
        for _ in range(count):
            mixer = Mixer(width, sides[place], ratios[place], **kinds)  # type: ignore[arg-type]
            stages.append(nn.Sequential(around(width), Residual(mixer), around(width)))
    model = at(MobileMamba(_stem(widths[0], stem_strides), stages, widths[-1], classes), resolution or pixels)
    return model.fold() if fused else model


def ratios_of(split: str, wide: list[float] | None, near: list[float] | None) -> tuple[list[float], list[float]]:
    """Shares of global and of local channels by stage."""
    if split == "all_global":
        return [1.0] * 3, [0.0] * 3
    return wide or list(GLOBAL), [1.0] * 3 if split == "no_identity" else near or list(LOCAL)


def _stem(width: int, strides: list[int]) -> list[nn.Module]:
    """Four 3x3 conv-BN layers to an eighth, a quarter, half and all of the width, ReLU between."""
    widths = [3, width // 8, width // 4, width // 2, width]
    return [
        conv_norm(widths[place], widths[place + 1], 3, stride, act=nn.ReLU if place < 3 else None)
        for place, stride in enumerate(strides)
    ]
