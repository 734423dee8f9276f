"""Every metric by name: its unit, which direction is better, its chart section and its definition.

A number that is not in this table cannot enter a record, so no figure is ever shown without a unit and a definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Metric:
    """What one quantity is; `section` groups it in MLflow and in the leaderboard's column chooser."""

    name: str
    unit: str
    better: Direction
    section: str
    title: str
    definition: str

    @property
    def per_part(self) -> bool:
        """Whether each part of a workload has this quantity; else it belongs to the subject as a whole."""
        return self.section in _OF_PARTS and self.name not in _OF_SUBJECT


#: Sections whose metrics are those of a part of the workload (prefill, decode, ...), and those of them that are not.
_OF_PARTS = frozenset({"compute", "roofline", "latency", "throughput", "memory", "energy"})
_OF_SUBJECT = frozenset({"first_inference_ms", "load_ms", "compile_ms"})


#: Metric of a workload's throughput by the unit that it counts.
RATES = {"sample": "throughput_per_s"}


def rate_of(unit: str) -> str:
    """The metric of the rate at which units of this kind are done."""
    return RATES.get(unit, f"{unit}s_per_s")


def _table(*rows: tuple[str, str, Direction, str, str, str]) -> dict[str, Metric]:
    return {row[0]: Metric(*row) for row in rows}


METRICS: dict[str, Metric] = _table(
    (
        "params",
        "parameter",
        "lower",
        "size",
        "Parameters",
        "Elements of all distinct parameters; shared weights once; packed weights as the values they stand for.",
    ),
    (
        "params_trainable",
        "parameter",
        "none",
        "size",
        "Trainable parameters",
        "Elements of distinct parameters that require a gradient.",
    ),
    (
        "params_nonzero",
        "parameter",
        "lower",
        "size",
        "Non-zero parameters",
        "Elements that are not exactly zero. Masked but dense weights save nothing in a dense kernel: theoretical only.",
    ),
    (
        "effective_bits",
        "bit/parameter",
        "lower",
        "size",
        "Effective bits",
        "Stored bits of all weights divided by the number of parameters.",
    ),
    (
        "size_bytes",
        "B",
        "lower",
        "size",
        "Size in memory",
        "Bytes of distinct parameters and buffers as stored, packed weights included.",
    ),
    ("checkpoint_bytes", "B", "lower", "size", "Checkpoint size", "Bytes of the saved state on disk."),
    (
        "macs",
        "MAC",
        "lower",
        "compute",
        "MACs",
        "Multiply-accumulates of matrix products and convolutions in one forward of the whole batch divided by the "
        "batch (matmul convention: no bias, normalisation, softmax or elementwise work, nor a method's own matching).",
    ),
    (
        "macs_method",
        "MAC",
        "lower",
        "compute",
        "MACs of the method itself",
        "Multiply-accumulates that a reduction method makes to decide (similarity scores, matching, its predictor), per "
        "sample: executed, part of macs_fvcore, not part of macs.",
    ),
    (
        "macs_fvcore",
        "MAC",
        "lower",
        "compute",
        "MACs, fvcore convention",
        "As macs, plus the method's own products, 5 per element of every affine LayerNorm and the other terms that fvcore counts.",
    ),
    (
        "vector_ops",
        "op",
        "lower",
        "compute",
        "Vector operations",
        "Elementwise, reduction, softmax and normalisation operations per sample; never added to MACs.",
    ),
    (
        "bit_operations",
        "bitop",
        "lower",
        "compute",
        "Bit operations",
        "MACs x weight bits x activation bits, each operator at its own precision.",
    ),
    (
        "traffic_bytes",
        "B",
        "lower",
        "compute",
        "Compulsory traffic",
        "Bytes that the operators read and write once each, per forward of the whole batch.",
    ),
    (
        "ideal_ms",
        "ms",
        "lower",
        "roofline",
        "Ideal latency",
        "Operations divided by the measured peak arithmetic throughput of the dtype; modelled.",
    ),
    (
        "attainable_ms",
        "ms",
        "lower",
        "roofline",
        "Attainable latency",
        "Sum over layers of max(operations / peak, bytes / bandwidth); modelled.",
    ),
    (
        "latency_ms",
        "ms",
        "lower",
        "latency",
        "Latency (p50)",
        "Per fresh process the median time of one forward, synchronised; across processes the geometric mean with a "
        "95 % t-interval on logs.",
    ),
    (
        "latency_p90_ms",
        "ms",
        "lower",
        "latency",
        "Latency (p90)",
        "90th percentile; only with 64 samples or more.",
    ),
    (
        "latency_p99_ms",
        "ms",
        "lower",
        "latency",
        "Latency (p99)",
        "99th percentile; only with 662 samples or more.",
    ),
    (
        "speedup",
        "x",
        "higher",
        "latency",
        "Speed-up",
        "Baseline median over case median, paired within processes; geometric mean with a 95 % t-interval on logs.",
    ),
    (
        "aa_ratio",
        "x",
        "none",
        "latency",
        "A/A ratio",
        "Baseline over its identical twin, timed in the same processes: the noise floor of the group.",
    ),
    (
        "first_inference_ms",
        "ms",
        "lower",
        "latency",
        "First inference",
        "The first forward in a fresh process.",
    ),
    (
        "load_ms",
        "ms",
        "lower",
        "latency",
        "Load time",
        "Building the subject in a fresh process with torch imported.",
    ),
    (
        "compile_ms",
        "ms",
        "lower",
        "latency",
        "Compile time",
        "The forward that compiles the module, in one fresh process, with nothing in the compiler's cache; only of compiled cases.",
    ),
    (
        "throughput_per_s",
        "sample/s",
        "higher",
        "throughput",
        "Throughput",
        "Samples per second, forwards back to back at the case's batch size.",
    ),
    (
        "peak_memory_bytes",
        "B",
        "lower",
        "memory",
        "Peak memory",
        "Largest sum of live tensor bytes (weights, inputs, activations, temporaries) during one forward.",
    ),
    (
        "peak_activation_bytes",
        "B",
        "lower",
        "memory",
        "Peak activations",
        "Largest sum of live tensor bytes during one forward, less weights and buffers.",
    ),
    (
        "peak_allocator_bytes",
        "B",
        "lower",
        "memory",
        "Peak allocator memory",
        "Largest allocation that the allocator reports, library buffers included.",
    ),
    (
        "peak_reserved_bytes",
        "B",
        "lower",
        "memory",
        "Peak reserved memory",
        "CUDA: largest reserved memory of the caching allocator.",
    ),
    (
        "peak_resident_bytes",
        "B",
        "lower",
        "memory",
        "Peak resident memory",
        "CPU: largest resident size of the process; CUDA: the driver's view of the process.",
    ),
    (
        "energy_j",
        "J",
        "lower",
        "energy",
        "Energy",
        "Joules per sample, gross, over windows of at least 10 s.",
    ),
    (
        "energy_net_j",
        "J",
        "lower",
        "energy",
        "Energy above idle",
        "Joules per sample less the measured idle power times the time.",
    ),
    (
        "accuracy",
        "%",
        "higher",
        "quality",
        "Accuracy",
        "Top-1 on the task's held-out samples with a 95 % Wilson interval.",
    ),
)
