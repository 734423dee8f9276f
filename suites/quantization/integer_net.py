"""A residual network whose every operator between input and logits is of whole numbers (HAWQV3's graph).

Images are rounded to int8 codes as they enter: the one float step is that rounding. Convolutions sum int8
products in int32 and rescale by a dyadic number into int8 codes (0..127 after a ReLU: 7 bits of the 8, so that torch's
signed product takes them); residual adds bring both branches to one scale first; the pool adds and shifts; the
classifier's int32 sums are the logits, scaled to floats only when they leave.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suites.common.digits_resnet import BasicBlock, DigitsResnet
from suites.quantization.dyadic import LARGEST, dyadic, rescaled
from suites.quantization.grids import SMALLEST
from suites.quantization.layers import IntLayer
from suites.quantization.network import Layer, shown

HIGH = 127


class IntConvolution(nn.Module):
    """int8 codes in, int32 sums with their bias out; scale of the sums: weight's times input's, per output."""

    bias: Tensor

    def __init__(self, layer: Layer, input_scale: Tensor):
        super().__init__()
        self.product = IntLayer(layer)
        step = input_scale.double()
        scale = self.product.scale.double() * step
        bias = torch.zeros_like(scale) if layer.bias is None else layer.bias.detach().double()
        empty = (self.product.codes == 0).all(dim=1)  # weights of zeros fit any scale: one in which the bias fits int32
        self.sum_scale = torch.where(empty, torch.maximum(bias.abs(), step) / 2**20, scale)
        self.register_buffer("bias", torch.round(bias / self.sum_scale).to(torch.int32))
        self.product.bias = None

    def forward(self, codes: Tensor) -> Tensor:
        """Sums, int32."""
        if not self.product.is_conv:
            return torch._int_mm(codes, self.product.codes.t()) + self.bias
        return self.product._convolved(codes) + self.bias[:, None, None]


class Rescale(nn.Module):
    """int32 sums to int8 codes of an output scale, by a dyadic number for each channel.

    An output that was always zero has a scale of next to nothing: whatever is not zero is then far beyond its codes.
    """

    multiplier: Tensor
    shift: Tensor

    def __init__(self, from_scale: Tensor, to_scale: Tensor):
        super().__init__()
        m, e = dyadic((from_scale.double() / to_scale.double()).clamp(max=LARGEST))
        self.register_buffer("multiplier", m)
        self.register_buffer("shift", e)

    def forward(self, sums: Tensor) -> Tensor:
        """Codes before they are clipped, int64."""
        shape = (-1, *[1] * (sums.ndim - 2)) if self.multiplier.ndim else ()
        return rescaled(sums, self.multiplier.reshape(shape), self.shift.reshape(shape))


class IntegerBlock(nn.Module):
    """Two convolutions and a shortcut; both branches are brought to the output's scale and added."""

    def __init__(self, block: BasicBlock, scales: dict[str, Tensor], path: str, input_scale: Tensor):
        super().__init__()
        self.conv1 = IntConvolution(block.conv1, input_scale)
        middle, self.out_scale = scales[f"{path}.middle"], scales[f"{path}.out"]
        self.to_middle = Rescale(self.conv1.sum_scale, middle)
        self.conv2 = IntConvolution(block.conv2, middle)
        self.to_out = Rescale(self.conv2.sum_scale, self.out_scale)
        self.shortcut: Any = None
        if isinstance(block.shortcut, nn.Identity):
            self.beside = Rescale(input_scale, self.out_scale)
        else:
            self.shortcut = IntConvolution(block.shortcut[0], input_scale)  # type: ignore[index]
            self.beside = Rescale(self.shortcut.sum_scale, self.out_scale)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes of the output's scale, int8 in 0..127."""
        inside = self.to_middle(self.conv1(codes)).clamp(0, HIGH).to(torch.int8)
        inside = self.to_out(self.conv2(inside))
        beside = self.beside(codes if self.shortcut is None else self.shortcut(codes))
        return (inside + beside).clamp(0, HIGH).to(torch.int8)


class IntegerResnet(nn.Module):
    """A folded `DigitsResnet` in whole numbers."""

    execution = "real-int"
    input_scale: Tensor
    pool_shift: Tensor

    def __init__(self, model: DigitsResnet, batches: list[tuple[Tensor, ...]]):
        """Ranges come from the batches; on the meta device, where there are none, all scales are 1."""
        super().__init__()
        self.resolution, self.channels, self.classes = model.resolution, model.channels, model.classes
        self.task = getattr(model, "task", None)
        self.nominal_bits = self.nominal_activation_bits = 8.0
        scales = _scales(model, batches)
        self.register_buffer("input_scale", scales["input"])
        self.stem = IntConvolution(model.stem, scales["input"])
        self.to_stem = Rescale(self.stem.sum_scale, scales["stem"])
        blocks, scale = [], scales["stem"]
        for path, block in _blocks(model):
            made = IntegerBlock(block, scales, path, scale)
            blocks.append(made)
            scale = made.out_scale
        self.blocks = nn.ModuleList(blocks)
        places = (model.resolution // 4) ** 2 if model.resolution % 4 == 0 else (-(-model.resolution // 4)) ** 2
        m, e = dyadic(torch.tensor(1 / places, dtype=torch.float64))
        self.register_buffer("pool_multiplier", m)
        self.register_buffer("pool_shift", e)
        self.head = IntConvolution(model.head, scale)
        self.register_buffer("logit_scale", self.head.sum_scale.to(torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """Logits in floats, [batch, classes]."""
        codes = torch.round(images / self.input_scale).clamp(-HIGH, HIGH).to(torch.int8)
        return self.integers(codes) * self.logit_scale  # type: ignore[operator]

    def integers(self, codes: Tensor) -> Tensor:
        """int32 logits of int8 codes: no float operator inside."""
        x = self.to_stem(self.stem(codes)).clamp(0, HIGH).to(torch.int8)
        for block in self.blocks:
            x = block(x)
        sums = x.sum(dim=(2, 3), dtype=torch.int32)
        pooled = rescaled(sums, self.pool_multiplier, self.pool_shift)  # type: ignore[arg-type]
        return self.head(pooled.clamp(0, HIGH).to(torch.int8))

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random images of the network's resolution."""
        return (torch.randn(batch, self.channels, self.resolution, self.resolution).to(self.input_scale),)


def _blocks(model: DigitsResnet) -> list[tuple[str, BasicBlock]]:
    return [(path, module) for path, module in model.named_modules() if isinstance(module, BasicBlock)]


def _scales(model: DigitsResnet, batches: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """The largest magnitude over 127 of the input, of the stem, and of each block's middle and output."""
    names = ["input", "stem", *(f"{path}.{end}" for path, _ in _blocks(model) for end in ("middle", "out"))]
    largest = {name: torch.zeros((), device=model.head.weight.device) for name in names}
    if not batches:
        return {name: torch.ones((), device=model.head.weight.device) for name in names}

    def see(name: str, x: Tensor) -> None:
        largest[name] = torch.maximum(largest[name], x.detach().abs().amax())

    handles = [
        model.stem.register_forward_hook(lambda _, args, out: _told(see, ("input", args[0]), ("stem", F.relu(out))))
    ]
    for path, block in _blocks(model):
        handles.append(block.conv1.register_forward_hook(_hook(see, f"{path}.middle")))
        handles.append(block.register_forward_hook(_hook(see, f"{path}.out")))
    shown(model, batches)
    for handle in handles:
        handle.remove()
    return {name: (value / HIGH).clamp(min=SMALLEST) for name, value in largest.items()}


def _told(see: Any, *pairs: tuple[str, Tensor]) -> None:
    for name, value in pairs:
        see(name, value)


def _hook(see: Any, name: str) -> Any:
    return lambda _, __, out: _told(see, (name, F.relu(out)))
