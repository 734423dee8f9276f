"""What a trace notes: one record per dispatched call, one visit per module."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class OperatorRecord:
    """One dispatched call: its class, work, bytes and place. Bytes are compulsory: each tensor once per call."""

    operator: str
    kind: str
    path: str
    phase: str
    dtype: str
    macs: int = 0
    dense_macs: int = 0
    nonzero_macs: float | None = None
    weightless_macs: int = 0
    causal_unused_macs: int = 0
    vector_ops: int = 0
    activations: int = 0
    bit_operations: int = 0
    left_bits: int = 0
    right_bits: int = 0
    weight_read: int = 0
    activation_read: int = 0
    weight_written: int = 0
    activation_written: int = 0
    norm: str | None = None
    norm_macs: int = 0
    elapsed_s: float = 0.0
    data_dependent: bool = False
    elementwise_products: int = 0


@dataclass
class ModuleVisit:
    """What one module saw: its class, how often it ran, the shapes of its tensors, in order of first entry."""

    path: str
    op: str
    order: int
    calls: int = 0
    input_shapes: list[list[int]] = field(default_factory=list)
    output_shapes: list[list[int]] = field(default_factory=list)
    dtype: str = ""
    tokens: list[int] = field(default_factory=list)
