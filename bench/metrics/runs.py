"""Metrics of every run: size, products, bounds, time, memory, energy."""

from __future__ import annotations

from bench.metrics.metric import Metric

RUNS: tuple[Metric, ...] = (
    Metric(
        "params",
        unit="parameter",
        better="lower",
        section="size",
        title="Parameters",
        definition=(
            "Elements of all distinct parameters; shared weights once; packed weights as the values they stand for."
        ),
    ),
    Metric(
        "params_trainable",
        unit="parameter",
        better="none",
        section="size",
        title="Trainable parameters",
        definition="Elements of distinct parameters that require a gradient.",
    ),
    Metric(
        "params_nonzero",
        unit="parameter",
        better="lower",
        section="size",
        title="Non-zero parameters",
        definition=(
            "Elements that are not exactly zero. Masked but dense weights save nothing in a dense kernel: "
            "theoretical only."
        ),
    ),
    Metric(
        "effective_bits",
        unit="bit/parameter",
        better="lower",
        section="size",
        title="Effective bits",
        definition="Stored bits of all weights divided by the number of parameters.",
    ),
    Metric(
        "size_bytes",
        unit="B",
        better="lower",
        section="size",
        title="Size in memory",
        definition="Bytes of distinct parameters and buffers as stored, packed weights included.",
    ),
    Metric(
        "checkpoint_bytes",
        unit="B",
        better="lower",
        section="size",
        title="Checkpoint size",
        definition="Bytes of the saved state on disk.",
    ),
    Metric(
        "macs",
        unit="MAC",
        better="lower",
        section="compute",
        title="MACs",
        definition=(
            "Multiply-accumulates of matrix products and convolutions in one forward of the whole batch divided "
            "by the batch (matmul convention: no bias, normalisation, softmax or elementwise work, nor a method's"
            " own matching)."
        ),
    ),
    Metric(
        "macs_method",
        unit="MAC",
        better="lower",
        section="compute",
        title="MACs of the method itself",
        definition=(
            "Multiply-accumulates that a reduction method makes to decide (similarity scores, matching, its "
            "predictor), per sample: executed, part of macs_fvcore, not part of macs."
        ),
    ),
    Metric(
        "macs_per_token",
        unit="MAC/token",
        better="lower",
        section="compute",
        title="MACs per token",
        definition="MACs of a sample over its tokens, where the inputs are token ids.",
    ),
    Metric(
        "params_read",
        unit="parameter",
        better="lower",
        section="compute",
        title="Parameters read",
        definition=(
            "Distinct parameters that the operators of one run read, beside those that are stored: experts that were "
            "chosen, layers that ran, slices that were taken, rows of an embedding that were looked up."
        ),
    ),
    Metric(
        "macs_fvcore",
        unit="MAC",
        better="lower",
        section="compute",
        title="MACs, fvcore convention",
        definition=(
            "As macs, plus the method's own products, 5 per element of every affine LayerNorm and the other terms"
            " that fvcore counts."
        ),
    ),
    Metric(
        "vector_ops",
        unit="op",
        better="lower",
        section="compute",
        title="Vector operations",
        definition="Elementwise, reduction, softmax and normalisation operations per sample; never added to MACs.",
    ),
    Metric(
        "activations",
        unit="element",
        better="lower",
        section="compute",
        title="Activations",
        definition=(
            "Output elements of all convolutions and of all matrix products with a weight in one forward, per "
            "sample; outputs of norms, activation functions and pools are none, and tools that include them print two "
            "to three times as many."
        ),
    ),
    Metric(
        "bit_operations",
        unit="bitop",
        better="lower",
        section="compute",
        title="Bit operations",
        definition="MACs x weight bits x activation bits, each operator at its own precision.",
    ),
    Metric(
        "traffic_bytes",
        unit="B",
        better="lower",
        section="compute",
        title="Compulsory traffic",
        definition="Bytes that the operators read and write once each, per forward of the whole batch.",
    ),
    Metric(
        "ideal_ms",
        unit="ms",
        better="lower",
        section="roofline",
        title="Ideal latency",
        definition="Operations divided by the measured peak arithmetic throughput of the dtype; modelled.",
    ),
    Metric(
        "attainable_ms",
        unit="ms",
        better="lower",
        section="roofline",
        title="Attainable latency",
        definition="Sum over layers of max(operations / peak, bytes / bandwidth); modelled.",
    ),
    Metric(
        "latency_ms",
        unit="ms",
        better="lower",
        section="latency",
        title="Latency (p50)",
        definition=(
            "Per fresh process the median time of one forward, synchronised; across processes the geometric mean "
            "with a 95 % t-interval on logs."
        ),
    ),
    Metric(
        "latency_p90_ms",
        unit="ms",
        better="lower",
        section="latency",
        title="Latency (p90)",
        definition="90th percentile; only with 64 samples or more.",
        comparison="shown",
    ),
    Metric(
        "latency_p99_ms",
        unit="ms",
        better="lower",
        section="latency",
        title="Latency (p99)",
        definition="99th percentile; only with 662 samples or more.",
        comparison="shown",
    ),
    Metric(
        "speedup",
        unit="x",
        better="higher",
        section="latency",
        title="Speed-up",
        definition=(
            "Baseline median over case median, paired within processes; geometric mean with a 95 % t-interval on logs."
        ),
        comparison="ratio",
    ),
    Metric(
        "aa_ratio",
        unit="x",
        better="none",
        section="latency",
        title="A/A ratio",
        definition="Baseline over its identical twin, timed in the same processes: the noise floor of the group.",
        comparison="shown",
    ),
    Metric(
        "first_inference_ms",
        unit="ms",
        better="lower",
        section="latency",
        title="First inference",
        definition="The first forward in a fresh process.",
        comparison="shown",
        of_subject=True,
    ),
    Metric(
        "load_ms",
        unit="ms",
        better="lower",
        section="latency",
        title="Load time",
        definition="Building the subject in a fresh process with torch imported.",
        comparison="shown",
        of_subject=True,
    ),
    Metric(
        "compile_ms",
        unit="ms",
        better="lower",
        section="latency",
        title="Compile time",
        definition=(
            "The forward that compiles the module, in one fresh process, with nothing in the compiler's cache; "
            "only of compiled cases."
        ),
        comparison="shown",
        of_subject=True,
    ),
    Metric(
        "throughput_per_s",
        unit="sample/s",
        better="higher",
        section="throughput",
        title="Throughput",
        definition="Samples per second, forwards back to back at the case's batch size.",
    ),
    Metric(
        "peak_memory_bytes",
        unit="B",
        better="lower",
        section="memory",
        title="Peak memory",
        definition=(
            "Largest sum of live tensor bytes (weights, inputs, activations, temporaries; in a training step gradients "
            "and optimizer state as well) during one forward."
        ),
    ),
    Metric(
        "peak_activation_bytes",
        unit="B",
        better="lower",
        section="memory",
        title="Peak activations",
        definition=(
            "Largest sum of live tensor bytes during one forward that are neither weights and buffers nor gradients "
            "and optimizer state; of a training step at its own moment, which need not be that of the peak memory."
        ),
    ),
    Metric(
        "peak_allocator_bytes",
        unit="B",
        better="lower",
        section="memory",
        title="Peak allocator memory",
        definition="Largest allocation that the allocator reports, library buffers included.",
    ),
    Metric(
        "peak_reserved_bytes",
        unit="B",
        better="lower",
        section="memory",
        title="Peak reserved memory",
        definition="CUDA: largest reserved memory of the caching allocator.",
    ),
    Metric(
        "peak_resident_bytes",
        unit="B",
        better="lower",
        section="memory",
        title="Peak resident memory",
        definition="CPU: largest resident size of the process; CUDA: the driver's view of the process.",
    ),
    Metric(
        "instructions",
        unit="instruction",
        better="lower",
        section="hardware",
        title="Instructions",
        definition="Instructions of user code that the processor retired in a run, all threads, per sample.",
    ),
    Metric(
        "cycles",
        unit="cycle",
        better="lower",
        section="hardware",
        title="Cycles",
        definition="Cycles of the cores while user code of the run was on them, all threads, per sample.",
    ),
    Metric(
        "instructions_per_cycle",
        unit="1",
        better="none",
        section="hardware",
        title="Instructions per cycle",
        definition="Instructions over cycles of a run: low where cores wait, mostly for memory.",
    ),
    Metric(
        "llc_miss_bytes",
        unit="B",
        better="lower",
        section="hardware",
        title="Bytes fetched past the caches",
        definition=(
            "Misses of the last level of cache x 64 B, per sample: what a run fetched from memory, to be set beside "
            "traffic_bytes. Lines that the hardware fetched ahead of need may be missing."
        ),
    ),
    Metric(
        "energy_j",
        unit="J",
        better="lower",
        section="energy",
        title="Energy",
        definition="Joules per sample, gross, over windows of at least 10 s.",
    ),
    Metric(
        "energy_net_j",
        unit="J",
        better="lower",
        section="energy",
        title="Energy above idle",
        definition="Joules per sample less the measured idle power times the time.",
    ),
)
