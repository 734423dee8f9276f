"""Quality against total bits, not against parameters: families of growing size at several widths.

Model-level scaling of language-style and diffusion-style generation (arXiv 2501.06218), after the law of 4 bits for
zero-shot accuracy (Dettmers and Zettlemoyer 2022, arXiv 2212.09720). `bit_scaling` rounds weights (and activations) of
any network in groups; `fitted` puts loss = a + b bits^-c through the sizes of one width; `best_precision` says which
width is best at a budget. `topkld` distils with forward KL on the teacher's top k answers and reverse KL on the rest: a
reconstruction.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.bits_law import Law, best_precision, best_precision_interval, fitted
from bench.config.settings import Count, PositiveInt
from suites.common.finetuning import finetuned, teacher_for
from suites.common.training import Loss
from suites.quantization.cost import costed, told_elsewhere
from suites.quantization.grids import FloatFormat, float_rounded
from suites.quantization.layers import CodedLayer, Dynamic, LayerLike, straight_through
from suites.quantization.network import Layer, folded, layers_of, learning_loss, put_codes, replaced
from suites.quantization.packing import packed, unpacked
from suites.quantization.ranges import grouped, in_whole_groups, ungrouped
from suites.quantization.whitepaper import weight_grid

__all__ = ["Law", "best_precision", "best_precision_interval", "bit_scaling", "fitted", "total_bits"]

#: Float formats by width: exponent and mantissa.
FORMATS = {8: (4, 3), 6: (3, 2), 4: (2, 1), 3: (2, 0)}


@costed
def bit_scaling(
    model: nn.Module,
    *,
    bits: Literal[2, 3, 4, 6, 8, 16] = 4,
    kind: Literal["int", "fp"] = "int",
    activation_bits: Literal[4, 8, 16] = 16,
    group: PositiveInt = 64,
    training_steps: Count = 0,
    topk: PositiveInt = 16,
) -> nn.Module:
    """The network with weights of every linear layer and convolution at a width; 16 and 16 leave it as it is.

    Args:
        model: of a family.
        bits: of a weight; whole numbers are packed and unpacked (`dequant`), floats are simulated.
        kind: whole numbers or floats.
        activation_bits: of the inputs of layers, rounded per token; below 16 the row is simulated.
        group: inputs that share an fp16 scale.
        training_steps: batches of distillation from the plain network under rounding; 0 for none.
        topk: answers of the teacher that forward KL is taken on.

    Raises:
        ValueError: a width that floats do not have.
    """
    if bits == activation_bits == 16:
        return model
    if kind == "fp" and bits not in (*FORMATS, 16):
        raise ValueError(f"bits={bits}: floats come with {', '.join(map(str, FORMATS))} bits")
    teacher = teacher_for(folded(model), training_steps)
    layers = layers_of(model)
    if training_steps:
        for path, layer in layers.items():
            replaced(model, path, LearningGroups(layer, bits, kind, group))
        settings = {"bits": bits, "kind": kind, "group": group, "topk": topk}
        loss = learning_loss(model) if hasattr(model, "velocity") else topkld(model, teacher, topk)
        with told_elsewhere():
            finetuned(model, teacher, bit_scaling, settings, training_steps, loss=loss)
    plain: dict[str, Any] = {path: model.get_submodule(path) for path in layers}
    plain = {path: part.layer if isinstance(part, LearningGroups) else part for path, part in plain.items()}
    put_codes(model, plain, lambda _, layer: GroupLayer(layer, bits, kind, group, activation_bits))
    packed_codes = kind == "int" and activation_bits == 16
    model.execution = "dequant" if packed_codes else "simulated"  # type: ignore[assignment]
    return model


def rounded_groups(groups: Tensor, bits: int, kind: str) -> Tensor:
    """Numbers that share a scale in the last axis, rounded; 16 bits leave them."""
    if bits == 16:
        return groups
    largest = groups.abs().amax(dim=-1, keepdim=True)
    if kind == "fp":
        return float_rounded(groups, FloatFormat(*FORMATS[bits]), largest)
    return weight_grid(groups, bits, True)(groups)


class LearningGroups(LayerLike):
    """A layer whose float weight is rounded in every call, straight-through."""

    def __init__(self, layer: Layer, bits: int, kind: str, group: int):
        super().__init__()
        self.take_shape(layer)
        self.layer, self.bits, self.kind, self.group = layer, bits, kind, group

    @property
    def weight(self) -> Tensor:
        """The float weight."""
        return self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        weight = self.layer.weight
        groups = grouped(weight.detach(), "group", self.group)
        made = ungrouped(rounded_groups(groups, self.bits, self.kind), weight, "group", self.group)
        return self.call(x, straight_through(weight, made), self.layer.bias)


class GroupLayer(CodedLayer):
    """Weights in groups: packed whole numbers with fp16 scales, or rounded floats in floats."""

    codes: Tensor
    scales: Tensor

    def __init__(self, layer: Layer, bits: int, kind: str, group: int, activation_bits: int):
        matrix = layer.weight.detach().flatten(1)
        size = min(group, matrix.shape[1])
        of_scales = 16 * -(-matrix.shape[1] // size) / matrix.shape[1]
        super().__init__(layer, 16 if bits == 16 else bits + of_scales, activation_bits)
        self.bits, self.group, self.kind, self.nominal_code_bits = bits, size, kind, float(bits)
        self.rounding = None if activation_bits == 16 else Dynamic(activation_bits, whole=self.is_conv)
        self.execution = "dequant" if kind == "int" and activation_bits == 16 else "simulated"
        self.plain: nn.Parameter | None = None
        if bits == 16:
            self.plain = nn.Parameter(layer.weight.detach().clone())
            return
        groups = grouped(matrix, "group", size)
        if kind == "fp":
            made = ungrouped(rounded_groups(groups, bits, kind), layer.weight, "group", size)
            self.plain = nn.Parameter(made.clone(memory_format=torch.contiguous_format))
            return
        high = 2 ** (bits - 1) - 1
        scales = (groups.abs().amax(dim=-1, keepdim=True) / high).clamp(min=6e-8).to(torch.float16)
        codes = torch.round(groups / scales.to(groups.dtype)).clamp(-high, high)
        self.columns = matrix.shape[1]  # what fills up the last group is not stored
        self.register_buffer("codes", packed((codes + high).to(torch.int32).flatten(1)[:, : self.columns], bits))
        self.register_buffer("scales", scales.squeeze(-1))
        self.packed_weights = {"codes": layer.weight.numel(), "scales": 0}

    def dense(self) -> Tensor:
        """The weight, made of its codes."""
        if self.plain is not None:
            return self.plain
        codes = in_whole_groups(unpacked(self.codes, self.bits, self.columns), self.group)
        values = (codes.to(torch.float32) - (2 ** (self.bits - 1) - 1)) * self.scales.to(torch.float32)[:, :, None]
        return ungrouped(values, torch.empty(self.shape, device="meta"), "group", self.group)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        return self.call(x if self.rounding is None else self.rounding(x), self.dense(), self.bias)


# ---------------------------------------------------------------------------------------------- distillation


def topk_divergence(logits: Tensor, wanted: Tensor, count: int) -> Tensor:
    """Mean of sum over top k of p log(p / q) + sum over the rest of q log(q / p); p the teacher, last axis."""
    p, q = wanted.log_softmax(-1), logits.log_softmax(-1)
    top = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, p.topk(min(count, p.shape[-1]), dim=-1).indices, True)
    forward = torch.where(top, p.exp() * (p - q), torch.zeros_like(p)).sum(-1)
    reverse = torch.where(top, torch.zeros_like(p), q.exp() * (q - p)).sum(-1)
    return (forward + reverse).mean()


def topkld(model: nn.Module, teacher: nn.Module | None, count: int) -> Loss:
    """The loss of distillation from a teacher."""

    def loss(inputs: Tensor, _: Tensor) -> Tensor:
        assert teacher is not None
        with torch.no_grad():
            wanted = teacher(inputs)
        return topk_divergence(model(inputs), wanted, count)

    return loss


# ---------------------------------------------------------------------------------------------- the analysis


def total_bits(parameters: int, bits: float) -> float:
    """N x effective bits."""
    return parameters * bits
