"""One pruned linear layer as a bare function, W X with X [inputs, columns]: every structure by every kernel."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.config.settings import PositiveInt, Rate
from suites.common.operators import Operator
from suites.pruning.kernels import PRODUCTS
from suites.pruning.kernels.product import Product
from suites.pruning.kernels.runtime import INT8_TOLERANCE, RuntimeProduct
from suites.pruning.structures import Pattern, blocks, n_of_m, per_row, unstructured


class DenseProduct(Product):
    """W X with all of W, zeros included."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.outputs, self.inputs = weight.shape
        self.weight = nn.Parameter(weight.detach().clone())
        self.executed_weights = weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        """[outputs, N] of x [inputs, N]."""
        return self.weight @ x


class SparseLinearOperator(Operator):
    """The product, beside the same with a dense float64 matrix."""

    execution = "real"
    nominal_bits: float

    def __init__(self, product: Product, pattern: Pattern, columns: int, kernel: str):
        super().__init__(form=kernel)
        self.product, self.columns = product, columns
        self.kernel = "mask" if kernel == "dense" else kernel
        product.weight_counts = {  # type: ignore[assignment]
            "dense": pattern.mask.numel(), "nonzero": pattern.count, "executed": product.executed_weights,
        }  # fmt: skip

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Random columns, [inputs, batch x columns]."""
        return (torch.randn(self.product.inputs, batch * self.columns).to(next(self.product.parameters())),)

    def function(self, x: Tensor) -> Tensor:
        """[outputs, N]."""
        return self.product(x)

    def definition(self, x: Tensor) -> Tensor:
        """The same with every weight in its place."""
        with torch.no_grad():
            return self.product.dense() @ x

    def stored_bytes(self) -> int:
        """Bytes of values and indices."""
        return self.product.stored_bytes()


def sparse_linear(
    *,
    outputs: PositiveInt = 3072,
    inputs: PositiveInt = 768,
    columns: PositiveInt = 128,
    structure: Literal["weight", "row", "block", "n:m"] = "weight",
    sparsity: Rate = 0.9,
    block: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None,
    balanced: bool = True,
    n: PositiveInt = 2,
    m: PositiveInt = 4,
    kernel: Literal["dense", "mask", "csr", "bsr", "gather", "semi24", "lscd", "runtime"] = "mask",
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime",
) -> SparseLinearOperator:
    """A pruned linear layer with random weights.

    Args:
        outputs: rows of W.
        inputs: columns of W.
        columns: N, tokens or places.
        structure: single weights, equally many of every row, blocks, or n of m.
        sparsity: share that goes; n:m has its own.
        block: rows and columns of a block; None for 32 and 32, [4, 1] and [16, 1] are those of the CPU kernels.
        balanced: every row of blocks keeps equally many.
        n: kept of m.
        m: consecutive inputs.
        kernel: `dense` has all weights; see `bench.labels` for the others.
        runtime: of kernel='runtime': ONNX Runtime with a sparse initialiser, or OpenVINO's packed int8 weights. With
            sparsity=0 it is that runtime's dense product, which its sparse row is compared with.

    Raises:
        ValueError: blocks that do not divide the matrix, or a kernel that does not run the structure.
    """
    weight = torch.randn(outputs, inputs) * inputs**-0.5
    scores = weight.abs()
    if kernel == "dense":
        full = Pattern(torch.ones_like(weight, dtype=torch.bool), weight.numel())
        return SparseLinearOperator(DenseProduct(weight), full, columns, kernel).eval()
    size = (32, 32) if block is None else (block[0], block[1])
    if structure == "block":
        pattern = blocks(scores, size, sparsity, balanced)
    elif structure == "n:m":
        pattern = n_of_m(scores, n, m)
    else:
        pattern = (unstructured if structure == "weight" else per_row)(scores, sparsity)
    weight = weight * pattern.mask
    if kernel == "runtime":
        return _by_runtime(RuntimeProduct(weight, pattern, runtime), pattern, columns)
    product = DenseProduct(weight) if kernel == "mask" else PRODUCTS[kernel](weight, pattern)
    return SparseLinearOperator(product, pattern, columns, kernel).eval()


def _by_runtime(product: RuntimeProduct, pattern: Pattern, columns: int) -> SparseLinearOperator:
    made = SparseLinearOperator(product, pattern, columns, "runtime")
    made.form = product.runtime
    if product.runtime == "openvino":
        made.tolerance_fp32, made.execution, made.nominal_bits = INT8_TOLERANCE, "real-int", 8.0
    return made.eval()
