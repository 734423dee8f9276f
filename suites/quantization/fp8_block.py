"""Fine-grained FP8 of DeepSeek-V3: E4M3 with scales of tiles and blocks (arXiv 2412.19437, section 3.3; 2505.09343).

Activations: a tile is 1 token x 128 channels, s = max(max |x|, 1e-4) / 448, q = e4m3(x / s). Weights: a block of 128 x
128, s as well; it is stored in fp32 beside the codes and multiplied. `ue8m0` rounds a scale up to a power of two. The
product sums over blocks of 128 inputs (A_q B_q) s_a s_b in fp32: one fp32 multiply-add per 128 products of an output.

Here codes are stored in 8 bits (`float8_e4m3fn`) and multiplied in fp32: `dequant` where weights are codes, `simulated`
where a product of 8-bit floats is imitated. A GPU's own products are `suites.quantization.products` (`form="fp8_gpu"`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import Count, PositiveInt
from suites.common.from_scratch import learned
from suites.quantization.cost import costed, told_elsewhere
from suites.quantization.layers import CodedLayer, LayerLike, as_rows
from suites.quantization.network import Layer, folded, layers_of, put_codes, replaced
from suites.quantization.ranges import grouped, ungrouped

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0
#: Least magnitude that a scale of activations is made of; weights and gradients have none but that of normal numbers.
FLOOR = 1e-4
NO_FLOOR = torch.finfo(torch.float32).tiny * LARGEST
SIZE = 128
#: Granularities in the words of `suites.quantization.ranges`.
_WORDS = {"tensor": "tensor", "row": "channel", "tile": "group", "block": "block"}


def block_scales(groups: Tensor, scale: str = "fp32", floor: float = FLOOR) -> Tensor:
    """S of numbers that share it in the last axis, [.., 1]."""
    found = groups.abs().amax(dim=-1, keepdim=True).clamp(min=floor) / LARGEST
    return power_of_two_above(found) if scale == "ue8m0" else found


def power_of_two_above(x: Tensor) -> Tensor:
    """The least power of two that is no smaller, by the exponent itself: a logarithm rounds 2^k (1 + 2^-23) to k."""
    fraction, exponent = torch.frexp(x)  # x = fraction 2^exponent, 0.5 <= fraction < 1
    return torch.ldexp(torch.ones_like(x), torch.where(fraction == 0.5, exponent - 1, exponent))


def encoded(
    x: Tensor, granularity: str, scale: str = "fp32", size: int = SIZE, floor: float = FLOOR
) -> tuple[Tensor, Tensor]:
    """E4M3 codes in the shape of the matrix x, and its scales: [1, 1], [rows, 1], or one for each tile or block.

    Edges are filled up with zeros: 576 rows have 5 rows of blocks.

    Args:
        x: activations or a weight.
        granularity: tensor, row, tile or block.
        scale: fp32 or ue8m0.
        size: of a tile or block.
        floor: least magnitude that a scale is made of; activations have one, weights and gradients `NO_FLOOR`.
    """
    word = _WORDS[granularity]
    groups = grouped(x, word, size)
    scales = block_scales(groups, scale, floor)
    codes = ungrouped((groups / scales).clamp(-LARGEST, LARGEST), x, word, size).to(E4M3)
    return codes, scales.squeeze(-1) if word in ("group", "block") else scales


def decoded(codes: Tensor, scales: Tensor, granularity: str, size: int = SIZE) -> Tensor:
    """The matrix that codes and scales stand for, fp32."""
    return codes.to(torch.float32) * spread(scales, codes.shape, granularity, size)


def spread(scales: Tensor, shape: Any, granularity: str, size: int = SIZE) -> Tensor:
    """Scales, one for each number of a matrix of this shape (broadcastable for tensor and row)."""
    if granularity in ("tensor", "row"):
        return scales
    wide = scales.repeat_interleave(size, dim=1)[:, : shape[1]]
    return wide if granularity == "tile" else wide.repeat_interleave(size, dim=0)[: shape[0]]


def rounded(x: Tensor, granularity: str, scale: str = "fp32", size: int = SIZE, floor: float = FLOOR) -> Tensor:
    """A matrix after its codes, in its own dtype."""
    return decoded(*encoded(x, granularity, scale, size, floor), granularity, size).to(x.dtype)


def promoted_product(
    left: Tensor, right: Tensor, left_scales: Tensor, right_scales: Tensor, inner: str = "fp32", size: int = SIZE
) -> Tensor:
    """Sum over blocks of `size` inputs of (A_q B_q^T) s_a s_b in fp32.

    Args:
        left: codes [m, k] of tiles.
        right: codes [n, k] of blocks.
        left_scales: [m, blocks].
        right_scales: [n / size, blocks].
        inner: what a block's sum is kept in: fp32, or fp16-like (its result has 11 bits; the last bits of a tensor
            core's accumulator, imitated).
        size: of a block.
    """
    pad = -left.shape[1] % size
    a = F.pad(left.to(torch.float32), (0, pad)).unflatten(1, (-1, size)).transpose(0, 1)  # [blocks, m, size]
    b = F.pad(right.to(torch.float32), (0, pad)).unflatten(1, (-1, size)).permute(1, 2, 0)  # [blocks, size, n]
    sums = a @ b
    if inner == "fp16-like":
        sums = short_sum(sums)
    rows = right_scales.repeat_interleave(size, dim=0)[: len(right)]  # [n, blocks]
    return (sums * left_scales.t()[:, :, None] * rows.t()[:, None, :]).sum(dim=0)


def short_sum(x: Tensor) -> Tensor:
    """Numbers with 10 bits of fraction, whatever their exponent."""
    fraction, exponent = torch.frexp(x)
    return torch.ldexp(torch.round(fraction * 2048) / 2048, exponent)


class Fp8Layer(CodedLayer):
    """E4M3 weights with block scales; activations, where wanted, rounded by tiles. Products are fp32."""

    codes: Tensor
    scales: Tensor

    def __init__(self, layer: Layer, granularity: str, activations: str, scale: str, size: int):
        super().__init__(layer, 8, 32 if activations == "off" else 8)
        self.granularity, self.activations, self.scale_format, self.size = granularity, activations, scale, size
        matrix = layer.weight.detach().flatten(1).float()
        codes, scales = encoded(matrix, granularity, scale, size, NO_FLOOR)
        # as bytes: a module's dtype changes floats, and codes keep their 8 bits
        self.register_buffer("codes", codes.view(torch.uint8))
        self.register_buffer("scales", scales)
        self.packed_weights = {"codes": layer.weight.numel(), "scales": 0}
        self.execution = "dequant" if activations == "off" else "simulated"

    def dense(self) -> Tensor:
        """The weight, made of its codes."""
        return decoded(self.codes.view(E4M3), self.scales, self.granularity, self.size).reshape(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        if self.activations != "off" and not self.is_conv:
            x = rounded(as_rows(x), self.activations, self.scale_format, self.size).reshape(x.shape)
        return self.call(x, self.dense().to(x.dtype), self.bias)


@costed
def fp8_block(
    model: nn.Module,
    *,
    granularity: Literal["tensor", "row", "block", "off"] = "block",
    activations: Literal["tensor", "row", "tile", "off"] = "tile",
    scale: Literal["fp32", "ue8m0"] = "fp32",
    size: PositiveInt = SIZE,
    learning: bool = False,
    training_steps: Count = 0,
) -> nn.Module:
    """The network with E4M3 linear layers; embeddings, head and norms stay; granularity "off" leaves the network.

    Args:
        model: of linear layers.
        granularity: what shares a scale of the weights.
        activations: what shares one of the activations; "off" leaves them, which is `dequant`.
        scale: fp32, or rounded up to a power of two.
        size: side of a block and length of a tile.
        learning: layers keep float weights and take all three products of a training step in rounded operands.
        training_steps: batches of 16 to learn on so, to be set beside `full`; 0 gives a step and its cost.

    Raises:
        ValueError: no linear layer beside the head, learning without rounded activations, or steps without learning.
    """
    if granularity == "off":
        return model
    if learning and activations == "off":
        raise ValueError("learning=True rounds activations and gradients too: set activations")
    if training_steps and not learning:
        raise ValueError("training_steps learns in rounded operands: set learning=True")
    folded(model)
    layers = {p: layer for p, layer in layers_of(model, skip=("head",)).items() if isinstance(layer, nn.Linear)}
    if not layers:
        raise ValueError(f"fp8_block changes linear layers, and {type(model).__name__} has none beside its head")
    if learning:
        for path, layer in layers.items():
            replaced(model, path, LearningFp8(layer, granularity, activations, scale, size))
    else:
        put_codes(model, layers, lambda _, layer: Fp8Layer(layer, granularity, activations, scale, size))
    model.execution = "dequant" if activations == "off" else "simulated"  # type: ignore[assignment]
    settings = {"granularity": granularity, "activations": activations, "scale": scale, "size": size}
    with told_elsewhere():
        return learned(model, model, fp8_block, settings, training_steps, from_start=False)


class _Fp8Product(torch.autograd.Function):
    """Forward, input gradient and weight gradient with rounded operands; the last re-tiles along tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, how: tuple[str, str, str, int]) -> Tensor:
        """X W^T of rounded operands; x [tokens, inputs]."""
        granularity, activations, scale, size = how
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return rounded(x, activations, scale, size) @ rounded(weight, granularity, scale, size, NO_FLOOR).t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of the weight."""
        x, weight = ctx.saved_tensors
        granularity, activations, scale, size = ctx.how
        grad = grads[0]
        seen = rounded(grad, activations, scale, size, NO_FLOOR)  # gradients are small everywhere
        to_inputs = seen @ rounded(weight, granularity, scale, size, NO_FLOOR)
        along = rounded(grad.t(), activations, scale, size, NO_FLOOR)
        return to_inputs, along @ rounded(x.t(), activations, scale, size).t(), None


class LearningFp8(LayerLike):
    """A linear layer with a float master weight whose three products take rounded operands: `simulated`."""

    execution = "simulated"

    def __init__(self, layer: nn.Linear, granularity: str, activations: str, scale: str, size: int):
        super().__init__()
        self.take_shape(layer)
        self.layer, self.how = layer, (granularity, activations, scale, size)
        self.nominal_bits = self.nominal_activation_bits = 8.0

    @property
    def weight(self) -> Tensor:
        """The float weight."""
        return self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        made = _Fp8Product.apply(as_rows(x), self.layer.weight, self.how).reshape(*x.shape[:-1], len(self.layer.weight))
        return made if self.layer.bias is None else made + self.layer.bias


# ---------------------------------------------------------------------------------------------- bytes


def weight_bytes(rows: int, columns: int, size: int = SIZE) -> int:
    """Codes and fp32 scales of a weight in blocks: 14 683 648 for 2048 x 7168."""
    return rows * columns + 4 * -(-rows // size) * -(-columns // size)


def activation_bytes(tokens: int, channels: int, size: int = SIZE) -> int:
    """Codes and fp32 scales of activations in tiles: 30 277 632 for 4096 x 7168."""
    return tokens * channels + 4 * tokens * -(-channels // size)


def promotions(tokens: int, inputs: int, outputs: int, size: int = SIZE) -> int:
    """fp32 multiply-adds beside the products: one for each output and block of inputs."""
    return tokens * outputs * -(-inputs // size)


#: Matrices of DeepSeek-V3 that are quantised, as rows, columns and how often, from its released configuration: 61
#: layers of latent attention, 3 dense networks, 58 x 257 experts. Embedding, head, gates and norms stay.
DEEPSEEK_V3 = (
    (1536, 7168, 61),
    (24_576, 1536, 61),
    (576, 7168, 61),
    (32_768, 512, 61),
    (7168, 16_384, 61),
    (18_432, 7168, 6),
    (7168, 18_432, 3),
    (2048, 7168, 2 * 58 * 257),
    (7168, 2048, 58 * 257),
)


def quantised_counts(matrices: Iterable[tuple[int, int, int]], size: int = SIZE) -> tuple[int, int]:
    """Weights and scales of matrices [rows, columns] that occur so often, in blocks: edges have scales of their own."""
    weights = scales = 0
    for rows, columns, often in matrices:
        weights += often * rows * columns
        scales += often * -(-rows // size) * -(-columns // size)
    return weights, scales
