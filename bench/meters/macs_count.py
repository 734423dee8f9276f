"""What a count is: totals, conventions, coverage and rows of one forward."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bench.meters.inputs import Batch
from bench.meters.operator_record import ModuleVisit, OperatorRecord
from bench.meters.parameters_read import ParameterReads, ParametersRead

Flag = dict[str, Any]
Convention = Literal["matmul", "fvcore", "all"]

CONVENTIONS: dict[str, str] = {
    "matmul": (
        "matrix products and convolutions only; attention in full even where causal; complex products 4 MACs; Fourier "
        "transforms 2.5 N log2 N; no bias, normalisation, softmax or elementwise work, and not the products that a "
        "reduction method makes for itself (matching, scores)"
    ),
    "fvcore": (
        "matmul plus the method's own products and what fvcore charges for normalisation (5 per element of an affine "
        "layer norm, 2 of a batch norm in inference), adaptive average pooling, upsampling and grid sampling"
    ),
    "all": (
        "matmul MACs plus the method's own and every vector operation (elementwise, reduction, softmax, normalisation) "
        "as one each"
    ),
}


@dataclass
class MacsCount:
    """What one forward (or one training step) of a whole batch computes, reads and writes.

    `macs` follows the matmul convention; `activations` are elements that layers put out
    (`bench.meters.activations`); `method_macs` are the products below modules that say `charged_to = "method"`
    (a token merger's matching, say) and what modules with a `needed_share` multiply beyond it; executed as well and in
    every other convention. When `at_least` is true some
    operator is unknown and every total is a lower bound. `batch` is the number of samples that a layer told which takes
    the input as it is, where that is not the first dimension. `input_tokens` are the tokens of a sample where the
    inputs are token ids, else 0. `flags` are dicts {code, severity, text}; `operators` and `uncounted` are lists of
    plain rows.
    """

    macs: int
    method_macs: int
    fvcore_macs: float | None
    vector_ops: int
    bit_operations: int
    traffic_bytes: int
    read_bytes: int
    written_bytes: int
    weight_bytes: int
    activation_bytes: int
    dense_equivalent_macs: int
    nonzero_macs: int
    causal_unused_macs: int
    elementwise_products: int
    macs_by_dtype: dict[str, int]
    macs_by_phase: dict[str, int]
    conventions: dict[str, float]
    at_least: bool
    uncounted: list[dict[str, Any]]
    coverage: dict[str, Any]
    second: dict[str, Any]
    operators: list[dict[str, Any]]
    tokens: dict[str, list[int]]
    dynamic: bool
    device: str
    seconds: dict[str, float]
    versions: dict[str, str]
    flags: list[Flag] = field(default_factory=list)
    records: list[OperatorRecord] = field(default_factory=list, repr=False)
    visits: dict[str, ModuleVisit] = field(default_factory=dict, repr=False)
    batch: Batch | None = None
    activations: int = 0
    parameters_read: ParametersRead | None = None
    reads: ParameterReads | None = field(default=None, repr=False)
    input_tokens: int = 0

    @property
    def executed_macs(self) -> int:
        """All products of the forward, the method's own included."""
        return self.macs + self.method_macs

    def value(self, convention: Convention = "matmul") -> float:
        """The whole batch's count in a named convention (`CONVENTIONS`)."""
        if convention not in self.conventions:
            raise ValueError(f"convention {convention!r} does not exist; use one of {', '.join(CONVENTIONS)}")
        return self.conventions[convention]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the per-call records, as plain JSON types."""
        hidden = ("records", "visits", "batch", "parameters_read", "reads")
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        reads = None if self.parameters_read is None else asdict(self.parameters_read)
        return {**plain, "parameters_read": reads, "convention_texts": dict(CONVENTIONS)}
