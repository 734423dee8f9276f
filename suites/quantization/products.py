"""One product of activations and weights in every form: which bits become time?

The forms that multiply whole numbers or codes say so in the label of the row; weights are prepared before the clock,
activations inside it. `int8` is `torch._int_mm`, a plain loop where a processor has no units for int8; `int8dynamic`
is torch's packed layer, which has kernels for such processors too. `fp8_gpu` needs a GPU with 8-bit float units;
`int4pack` torch's AVX-512 kernel.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.config.settings import PositiveInt
from bench.labels import DEQUANT, REAL, REAL_FP8, REAL_INT, SIMULATED
from suites.common.operators import Operator
from suites.quantization import fp8_block
from suites.quantization.bitmod import BitmodLayer
from suites.quantization.bitnet158 import TernaryLayer
from suites.quantization.fp8_vs_int8 import rounding_of
from suites.quantization.layers import IntLayer
from suites.quantization.noise import Noise
from suites.quantization.torch_int8 import DynamicInt8

#: Label of each form, bits of its weights and of its activations.
FORMS: dict[str, tuple[str, float, float]] = {
    "fp32": (REAL, 32, 32),
    "bf16": (REAL, 16, 16),
    "int8": (REAL_INT, 8, 8),
    "int8dynamic": (REAL_INT, 8, 7),
    "int8pack": (DEQUANT, 8, 16),
    "int4pack": (DEQUANT, 4, 16),
    "ternary": (DEQUANT, 1.6, 8),
    "bitmod": (DEQUANT, 4, 32),
    "fp8": (SIMULATED, 8, 8),
    "fp8_gpu": (REAL_FP8, 8, 8),
    "simulated": (SIMULATED, 8, 8),
}
#: Group of int4 weights.
GROUP = 32
#: Rows of activations that a product's noise is taken on.
MOST_ROWS = 64


class Product(Operator):
    """Activations [rows, inputs] times weights [outputs, inputs] transposed."""

    def __init__(
        self,
        form: str,
        rows: int,
        inputs: int,
        outputs: int,
        grid: str,
        scaling: dict[str, str],
        values: str = "normal",
    ):
        super().__init__(form=form)
        self.rows, self.inputs, self.outputs, self.grid, self.values = rows, inputs, outputs, grid, values
        self.granularity, self.scale, self.accumulate = (
            scaling[name] for name in ("granularity", "scale", "accumulate")
        )
        self.execution, self.nominal_bits, self.nominal_activation_bits = FORMS[form]
        layer = nn.Linear(inputs, outputs, bias=False)
        nn.init.normal_(layer.weight, std=inputs**-0.5)
        exact = layer.weight.detach().clone()
        self.part: Any = self._prepared(layer)
        # a form's rounding is what it is for: agreement is with the same function of the same codes
        self.tolerance_fp32 = 1e-2 if form in ("bf16", "int8pack", "int4pack", "fp8_gpu") else 1e-5
        if form == "fp8" and self.accumulate == "fp16-like":
            self.tolerance_fp32 = 1e-2
        if form == "int8dynamic":
            self.tolerance_fp32 = 1e-3  # inputs half-way between two codes go to the other one in a few cases
        if not exact.is_meta:
            self._say_noise(exact)

    @torch.no_grad()
    def _say_noise(self, weight: Tensor) -> None:
        """What weights, activations (64 rows at most) and their product lose against floats of the same numbers."""
        x = drawn(self.values, min(self.rows, MOST_ROWS), self.inputs, 0)
        exact = F.layer_norm(x, x.shape[-1:]) if self.form == "ternary" else x
        pairs = {"weight": (weight, self.stands_for()), "activation": (exact, self._seen(x))}
        if self.form != "fp8_gpu":
            pairs["product"] = (F.linear(exact.double(), weight.double()), self.function(x))
        for name, (wanted, found) in pairs.items():
            noise = Noise()
            noise.add(wanted, found)
            setattr(self, f"{name}_sqnr_db", noise.db)

    def _prepared(self, layer: nn.Linear) -> Any:
        weight = layer.weight.detach()
        if self.form in ("int8", "ternary", "bitmod"):
            makers: dict[str, Any] = {"int8": lambda: IntLayer(layer), "bitmod": lambda: BitmodLayer(layer, 4, 128)}
            makers["ternary"] = lambda: TernaryLayer(layer, "median", 5, "int8", False)
            return makers[self.form]()
        if self.form == "int8dynamic":
            # without values no weights can be packed: the same products of whole numbers are counted in their place
            return IntLayer(layer) if weight.is_meta else DynamicInt8(weight)
        holder: Any = nn.Module()
        if self.form in ("fp8", "fp8_gpu"):
            word = {"tensor": "tensor", "row": "row", "tile": "block"}[self.granularity]
            codes, scales = fp8_block.encoded(weight, word, self.scale, floor=fp8_block.NO_FLOOR)
            holder.register_buffer("codes", codes.view(torch.uint8))
            holder.register_buffer("scales", scales)
        elif self.form == "int8pack":
            scale = weight.abs().amax(dim=1) / 127
            holder.register_buffer("codes", torch.round(weight / scale[:, None]).to(torch.int8))
            holder.register_buffer("scales", scale.to(torch.bfloat16))
        elif self.form == "int4pack":
            codes, table = int4_codes(weight)
            holder.register_buffer("codes", torch._convert_weight_to_int4pack_for_cpu(codes, 2))
            holder.register_buffer("scales", table)
            holder.register_buffer("plain", (codes - 8).to(torch.int8), persistent=False)
        elif self.form == "simulated":
            made = rounding_of(self.grid)(weight, weight.abs().amax(dim=1, keepdim=True))
            holder.weight = nn.Parameter(made)
        else:
            holder.weight = nn.Parameter(weight.to(torch.bfloat16) if self.form == "bf16" else weight)
        if hasattr(holder, "codes"):
            holder.packed_weights = {"codes": weight.numel(), "scales": 0}
        return holder

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Activations of the distribution; the batch multiplies the rows."""
        return (drawn(self.values, batch * self.rows, self.inputs, 0).to(self.like.device),)

    def check_args(self, seed: int) -> tuple[Tensor]:
        """Other activations of the same shape."""
        return (drawn(self.values, self.rows, self.inputs, seed + 1).to(self.like.device),)

    def function(self, x: Tensor) -> Tensor:
        """The product, fp32."""
        return getattr(self, f"_{self.form}")(x)

    def definition(self, x: Tensor) -> Tensor:
        """The same product of what the codes stand for, in float64."""
        x, weight = x.float(), self.stands_for().double()
        return self._seen(x).double() @ weight.t()

    def stands_for(self) -> Tensor:
        """The weight that is multiplied, in floats."""
        part = self.part
        if self.form in ("int8", "int8dynamic", "ternary", "bitmod"):
            return part.dense()
        if self.form in ("fp8", "fp8_gpu"):
            word = {"tensor": "tensor", "row": "row", "tile": "block"}[self.granularity]
            return fp8_block.decoded(part.codes.view(fp8_block.E4M3), part.scales, word)
        if self.form == "int8pack":
            return part.codes.float() * part.scales.float()[:, None]
        if self.form == "int4pack":
            scale = part.scales[:, :, 0].t().float().repeat_interleave(GROUP, dim=1)
            return part.plain.float() * scale
        return part.weight.float()

    def _seen(self, x: Tensor) -> Tensor:
        """The activations that are multiplied, in floats."""
        if self.form == "int8":
            codes, scale = self.part.rounded_inputs(x)
            return codes * scale
        if self.form == "int8dynamic":
            return self.part.rounded_inputs(x)
        if self.form == "ternary":
            x = F.layer_norm(x, x.shape[-1:])
            scale = 128 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
            return torch.round(x * scale).clamp(-128, 127) / scale
        if self.form in ("fp8", "fp8_gpu"):
            return fp8_block.rounded(x, self.granularity, self.scale)
        if self.form == "simulated":
            return rounding_of(self.grid)(x, x.abs().amax())
        return x.to(torch.bfloat16).float() if self.form in ("bf16", "int8pack", "int4pack") else x

    def _fp32(self, x: Tensor) -> Tensor:
        return F.linear(x, self.part.weight)

    def _bf16(self, x: Tensor) -> Tensor:
        return F.linear(x.to(torch.bfloat16), self.part.weight.to(torch.bfloat16)).float()

    def _int8(self, x: Tensor) -> Tensor:
        return self.part(x)

    _int8dynamic = _ternary = _bitmod = _int8

    def _int8pack(self, x: Tensor) -> Tensor:
        return torch.ops.aten._weight_int8pack_mm(x.to(torch.bfloat16), self.part.codes, self.part.scales).float()

    def _int4pack(self, x: Tensor) -> Tensor:
        args = (x.to(torch.bfloat16), self.part.codes, GROUP, self.part.scales)
        return torch.ops.aten._weight_int4pack_mm_for_cpu(*args).float()

    def _simulated(self, x: Tensor) -> Tensor:
        return F.linear(self._seen(x), self.part.weight)

    def _fp8(self, x: Tensor) -> Tensor:
        if self.granularity == "tile" and self.accumulate != "fp32":
            codes, scales = fp8_block.encoded(x, "tile", self.scale)
            inner = "fp32" if self.accumulate == "promote" else "fp16-like"
            return fp8_block.promoted_product(
                codes, self.part.codes.view(fp8_block.E4M3), scales, self.part.scales, inner
            )
        made = F.linear(self._seen(x), self.stands_for())
        return fp8_block.short_sum(made) if self.accumulate == "fp16-like" else made

    def _fp8_gpu(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            raise NotImplementedError("products of 8-bit floats need a GPU with units for them: take device=cuda")
        codes, scales = fp8_block.encoded(x, self.granularity, self.scale)
        right = self.part.scales.t().contiguous().float()
        made = torch._scaled_mm(
            codes, self.part.codes.view(fp8_block.E4M3).t(), scales.float(), right, out_dtype=torch.bfloat16
        )
        return made.float()


def drawn(values: str, rows: int, inputs: int, seed: int) -> Tensor:
    """Activations: normal, uniform between -1 and 1, or of Student's t with five degrees of freedom (a heavy tail)."""
    generator = torch.Generator().manual_seed(seed)
    if values == "uniform":
        return 2 * torch.rand(rows, inputs, generator=generator) - 1
    made = torch.randn(rows, inputs, generator=generator)
    if values == "normal":
        return made
    return made / torch.randn(5, rows, inputs, generator=generator).square().mean(dim=0).sqrt()


def int4_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes 0..15 [outputs, inputs], int32, and bf16 scales and zeros [inputs / 32, outputs, 2]; 8 stands for zero."""
    groups = weight.unflatten(1, (-1, GROUP))
    scale = (groups.abs().amax(dim=-1) / 7).to(torch.bfloat16)
    codes = torch.round(groups / scale.float()[:, :, None].clamp(min=1e-20)).clamp(-8, 7).to(torch.int32) + 8
    table = torch.stack([scale.t(), torch.zeros_like(scale.t())], dim=-1).contiguous()
    return codes.flatten(1), table


def product(
    *,
    form: Literal[
        "fp32",
        "bf16",
        "int8",
        "int8dynamic",
        "int8pack",
        "int4pack",
        "ternary",
        "bitmod",
        "fp8",
        "fp8_gpu",
        "simulated",
    ] = "fp32",
    length: PositiveInt = 32,
    width: PositiveInt = 256,
    outputs: PositiveInt | None = None,
    grid: Literal["int8", "e2m5", "e3m4", "e4m3", "e5m2", "int4", "e2m1"] = "e4m3",
    granularity: Literal["tensor", "row", "tile"] = "tile",
    scale: Literal["fp32", "ue8m0"] = "fp32",
    accumulate: Literal["fp32", "promote", "fp16-like"] = "fp32",
    values: Literal["normal", "uniform", "heavy"] = "normal",
) -> Product:
    """Activations [length, width] times weights [outputs, width].

    Args:
        form: what multiplies; `int8` by `torch._int_mm`, `int8dynamic` by torch's packed layer.
        length: rows of activations.
        width: inputs, a multiple of 32 for `int4pack`.
        outputs: rows of the weight; None for as many as inputs.
        grid: of `simulated`.
        granularity: of FP8's scales; `tile`: 1 x 128 activations with 128 x 128 blocks of weights.
        scale: of FP8: fp32, or rounded up to powers of two.
        accumulate: of FP8: one long fp32 sum, sums of 128 promoted to fp32, or such sums of 11 bits.
        values: distribution of the activations; a heavy tail is Student's t with five degrees of freedom.

    Raises:
        ValueError: sizes that a kernel has none for.
    """
    if form == "int4pack" and (width % GROUP or (outputs or width) % 16):
        raise ValueError(f"form='int4pack' takes groups of {GROUP} inputs and 16 outputs: width={width} does not fit")
    if form == "fp8_gpu" and granularity == "tile":
        raise ValueError("form='fp8_gpu' multiplies with one scale a tensor or a row: set granularity='row'")
    scaling: dict[str, str] = {"granularity": granularity, "scale": scale, "accumulate": accumulate}
    return Product(form, length, width, outputs or width, grid, scaling, values).eval()
