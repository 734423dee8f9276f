"""BitNet b1.58 Reloaded: ternary weights, 8-bit activations (Nielsen and Schneider-Kamp 2024, arXiv 2407.09527).

y = [Q_a(LN(x)) Q_w(W)^T] / (s_w s_a) + b with s_w = 1 / max(measure(|W|), 1e-5), one number a tensor, Q_w =
clamp(round(W s_w), -1, 1), s_a = 128 / max(max |x| of the row, 1e-5), Q_a = clamp(round(x s_a), -128, 127), and a
layer norm without parameters in front. Straight-through gradients. The released code adds the bias before it divides
by the scales: the setting `bias_first` does. For inference five weights share a byte (3^5 = 243), or four with
`pack=4`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt, Rate
from suites.common.finetuning import REBUILT_RATE, finetuned, needs_training, teacher_for
from suites.quantization.cost import costed, told_elsewhere
from suites.quantization.layers import LayerLike, as_rows, int_product, kept, straight_through
from suites.quantization.network import layers_of, learning_loss, put_codes, replaced
from suites.quantization.packing import packed, packed_ternary, ternary_table, unpacked

EPSILON = 1e-5
#: Ends of paths that stay plain.
KEEP = ("head", "patch_embed.proj")


def weight_scale(weight: Tensor, measure: str = "median") -> Tensor:
    """s_w of a whole tensor; the median of an even count is the lower of the two in the middle."""
    magnitude = weight.abs()
    found = magnitude.flatten().median() if measure == "median" else magnitude.mean()
    return 1 / found.clamp(min=EPSILON)


def ternary(weight: Tensor, measure: str = "median") -> tuple[Tensor, Tensor]:
    """Codes -1, 0, 1 as floats, and s_w: the weight is about code / s_w."""
    scale = weight_scale(weight, measure)
    return torch.round(weight * scale).clamp(-1, 1), scale


def activation_codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes -128..127 as floats of each row, and s_a [.., 1]."""
    scale = 128 / x.abs().amax(dim=-1, keepdim=True).clamp(min=EPSILON)
    return torch.round(x * scale).clamp(-128, 127), scale


class LearningTernary(LayerLike):
    """A linear layer that learns under ternary rounding, blended from the float layer by `blend`."""

    def __init__(self, layer: nn.Linear, measure: str, bias_first: bool, blend: float):
        super().__init__()
        self.take_shape(layer)
        self.layer, self.measure, self.bias_first, self.blend = layer, measure, bias_first, blend
        self.nominal_bits, self.nominal_activation_bits = 1.6, 8.0

    @property
    def weight(self) -> Tensor:
        """The float weight."""
        return self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        x = F.layer_norm(x, x.shape[-1:])
        with torch.no_grad():
            codes, weight_scaled = ternary(self.layer.weight, self.measure)
            seen, scale = activation_codes(x)
        weight = self.layer.weight
        rounded_w = straight_through(weight, weight + self.blend * (codes / weight_scaled - weight).detach())
        rounded_x = straight_through(x, x + self.blend * (seen / scale - x).detach())
        made = F.linear(rounded_x, rounded_w)
        bias = self.layer.bias
        if bias is None:
            return made
        return made + (bias / (weight_scaled * scale) if self.bias_first else bias)


class TernaryLayer(LayerLike):
    """Packed ternary weights; they are unpacked to int8 in every call and multiplied by `_int_mm`, or as floats.

    Args:
        layer: the float layer.
        measure: of the scale.
        pack: weights a byte: 5 in base three, 4 of 2 bits.
        kernel: `int8` unpacks to int8 and multiplies whole numbers; `float` makes floats of both sides.
        bias_first: whether the bias is divided by the scales too.
    """

    execution = "dequant"
    codes: Tensor
    scale: Tensor
    bias: Tensor | None
    table: Tensor

    def __init__(self, layer: nn.Linear, measure: str, pack: int, kernel: str, bias_first: bool):
        super().__init__()
        self.take_shape(layer)
        self.pack, self.kernel, self.bias_first = pack, kernel, bias_first
        codes, scale = ternary(layer.weight.detach(), measure)
        stored = packed_ternary(codes) if pack == 5 else packed(codes.to(torch.int32) + 1, 2)
        self.register_buffer("codes", stored)
        self.register_buffer("scale", scale)
        self.register_parameter("bias", kept(layer.bias))
        self.register_buffer("table", ternary_table().to(layer.weight.device), persistent=False)
        self.packed_weights = {"codes": layer.weight.numel(), "scale": 0}
        self.nominal_bits, self.nominal_activation_bits = 8 / pack, 8.0

    @property
    def weight(self) -> Tensor:
        """The scale: it has the dtype and the device of what goes in and comes out."""
        return self.scale

    def trits(self) -> Tensor:
        """Codes -1, 0, 1, int8 [outputs, inputs]."""
        if self.pack == 5:
            return self.table[self.codes.int()].flatten(-2)[:, : self.in_features]
        return unpacked(self.codes, 2, self.in_features).to(torch.int8) - 1

    def dense(self) -> Tensor:
        """The weight that the codes stand for."""
        return self.trits() / self.scale

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        codes, scale = activation_codes(F.layer_norm(x, x.shape[-1:]))
        if self.kernel == "int8":
            sums = int_product(as_rows(codes.to(torch.int8)), self.trits().t()).reshape(*x.shape[:-1], len(self.codes))
        else:
            sums = F.linear(codes, self.trits().to(codes.dtype))
        if self.bias is not None and self.bias_first:
            return (sums + self.bias) / (self.scale * scale)
        made = sums / (self.scale * scale)
        return made if self.bias is None else made + self.bias


@costed
def bitnet158(
    model: nn.Module,
    *,
    measure: Literal["median", "mean"] = "median",
    pack: Literal[4, 5] = 5,
    kernel: Literal["int8", "float"] = "int8",
    blend: Rate = 1.0,
    bias_first: bool = False,
    training_steps: Count = 0,
) -> nn.Module:
    """The network with ternary linear layers; a blend of 0 leaves it as it is.

    Args:
        model: of linear layers; convolutions stay.
        measure: of the scale: median or mean of the magnitudes.
        pack: weights a byte.
        kernel: what multiplies at inference.
        blend: share of the rounding; below 1 the layers stay floats (a training aid), and 0 is the plain network.
        bias_first: the released code's order.
        training_steps: batches to learn from under rounding; 0 leaves a network that was not made for it.

    Raises:
        ValueError: no linear layer is left to change.
    """
    if blend == 0:
        return model
    teacher = teacher_for(model, training_steps)
    layers = {path: layer for path, layer in layers_of(model, skip=KEEP).items() if isinstance(layer, nn.Linear)}
    if not layers:
        raise ValueError(f"bitnet158 changes linear layers, and {type(model).__name__} has none beside {KEEP}")
    for path, layer in layers.items():
        replaced(model, path, LearningTernary(layer, measure, bias_first, blend))
    settings = {"measure": measure, "blend": blend, "bias_first": bias_first}
    with told_elsewhere():
        finetuned(model, teacher, bitnet158, settings, training_steps, loss=learning_loss(model), rate=REBUILT_RATE)
    if blend < 1:
        model.execution = "simulated"  # type: ignore[assignment]
        return needs_training(model, "a network under blended rounding", training_steps)
    learned: dict[str, Any] = {path: model.get_submodule(path).layer for path in layers}
    put_codes(model, learned, lambda _, layer: TernaryLayer(layer, measure, pack, kernel, bias_first))
    model.execution = "dequant"  # type: ignore[assignment]
    return needs_training(model, "a ternary network", training_steps)


def layer_bytes(outputs: int, inputs: int, pack: PositiveInt = 5, bias: bool = True) -> int:
    """Bytes of a packed layer: whole bytes a row, one fp32 scale, an fp32 bias."""
    return outputs * -(-inputs // pack) + 4 + (4 * outputs if bias else 0)
