"""Metrics of what a subject is or declares: its artefact, its own counts, its cost, its spread over inputs."""

from __future__ import annotations

from bench.metrics.metric import Metric

SUBJECTS: tuple[Metric, ...] = (
    Metric(
        "artefact_bytes",
        unit="B",
        better="lower",
        section="size",
        title="Artefact size",
        definition=(
            "Bytes on disk of what a backend makes of the network and would be shipped: file or files, weights "
            "included."
        ),
    ),
    Metric(
        "conversion_ms",
        unit="ms",
        better="lower",
        section="latency",
        title="Conversion time",
        definition=(
            "From the eager module to the artefact on disk, the first conversion in a fresh process; loading it "
            "in the runtime is no part of it."
        ),
        comparison="shown",
        of_subject=True,
    ),
    Metric(
        "macs_dense",
        unit="MAC",
        better="lower",
        section="compute",
        title="MACs of the dense network",
        definition=(
            "Products of the same network with nothing removed by a mask or a sparse layout, per sample; only "
            "where a subject names its kernel."
        ),
    ),
    Metric(
        "macs_nonzero",
        unit="MAC",
        better="lower",
        section="compute",
        title="MACs with non-zero weights",
        definition=(
            "Products whose weight is not zero, per sample: MACs x share of non-zero weights, operator by "
            "operator; products without a weight in full. Only where a subject names its kernel."
        ),
    ),
    Metric(
        "macs_products",
        unit="MAC",
        better="lower",
        section="compute",
        title="MACs without scans",
        definition="Products and convolutions of a network with selective scans, its scans left out, per sample.",
    ),
    Metric(
        "macs_scan",
        unit="MAC",
        better="lower",
        section="compute",
        title="MACs of scans",
        definition=(
            "States that selective scans read, one multiply-accumulate each, all directions, per sample; decay and "
            "drive are vector operations."
        ),
    ),
    Metric(
        "scan_outputs",
        unit="element",
        better="none",
        section="compute",
        title="Outputs of scans",
        definition="Elements that selective scans put out, K D L of each layer, per sample; macs_scan holds N for one.",
    ),
    Metric(
        "moved_bytes",
        unit="B",
        better="lower",
        section="compute",
        title="Bytes moved by orders",
        definition=(
            "What gathers into the orders of scans and the ways back read and write, in float32, per sample, as "
            "declared."
        ),
    ),
    Metric(
        "engine_peak_bytes",
        unit="B",
        better="lower",
        section="memory",
        title="Peak of an engine (modelled)",
        definition=(
            "Maps that an int8 engine of a microcontroller would hold at once, by the formula that the subject states; "
            "another convention than the peak of live tensors, and never compared with it."
        ),
        comparison="exact",
        of_subject=True,
    ),
    Metric(
        "multiplications",
        unit="op",
        better="lower",
        section="compute",
        title="Multiplications",
        definition="Of one sample, as the subject states them by the counter of its paper.",
        of_subject=True,
    ),
    Metric(
        "additions",
        unit="op",
        better="lower",
        section="compute",
        title="Additions",
        definition="Of one sample, by the same counter.",
        of_subject=True,
    ),
    Metric(
        "modelled_energy_j",
        unit="J",
        better="lower",
        section="energy",
        title="Energy by a table (modelled)",
        definition=(
            "3.7 pJ for each stated multiplication and 0.9 pJ for each addition (32-bit floats, 45 nm), per sample; no "
            "measurement, and never compared with one."
        ),
        comparison="exact",
        of_subject=True,
    ),
    Metric(
        "promised_saved_bytes",
        unit="B",
        better="lower",
        section="memory",
        title="Saved by formula (modelled)",
        definition=(
            "What the subject's closed form says that autograd keeps of one sample in a training step; "
            "saved_activation_bytes are those that it keeps."
        ),
        comparison="exact",
        of_subject=True,
    ),
    Metric(
        "im2row_bytes",
        unit="B",
        better="lower",
        section="memory",
        title="Largest im2row buffer",
        definition=(
            "Rows that a convolution is lowered to: inputs x kernel places x outputs' places, the largest layer's."
        ),
        comparison="exact",
        of_subject=True,
    ),
    Metric(
        "weight_sqnr_db",
        unit="dB",
        better="higher",
        section="fidelity",
        title="SQNR of weights",
        definition=(
            "10 log10 of the energy of the float weights over that of what their number format changed, over all "
            "layers that it rounds."
        ),
    ),
    Metric(
        "activation_sqnr_db",
        unit="dB",
        better="higher",
        section="fidelity",
        title="SQNR of activations",
        definition="The same of the inputs of these layers, on what the format was calibrated with.",
    ),
    Metric(
        "product_sqnr_db",
        unit="dB",
        better="higher",
        section="fidelity",
        title="SQNR of the product",
        definition="Of a bare product: the same of its outputs, against the float product of the same numbers.",
    ),
    Metric(
        "gradient_sqnr_db",
        unit="dB",
        better="higher",
        section="fidelity",
        title="SQNR of gradients",
        definition="The same of the gradients of all weights of one batch, against those in fp32.",
    ),
    Metric(
        "rebuilding_error",
        unit="1",
        better="lower",
        section="fidelity",
        title="Error of rebuilding",
        definition=(
            "Largest distance of a number that a reversible chain rebuilds from the one that it was given, over the "
            "largest one given."
        ),
    ),
    Metric(
        "zero_share",
        unit="%",
        better="lower",
        section="fidelity",
        title="Rounded to zero",
        definition="Share of the inputs of rounded layers that become zero, on what the format was calibrated with.",
    ),
    Metric(
        "forgetting",
        unit="%",
        better="lower",
        section="quality",
        title="Forgetting",
        definition=(
            "Mean over all tasks but the last of the best accuracy that a task ever had less the one that it has after "
            "the last, in points."
        ),
        comparison="shown",
    ),
    Metric(
        "kept_bytes",
        unit="B",
        better="lower",
        section="size",
        title="Kept between tasks",
        definition=(
            "Everything that a continual learner keeps from one task to the next, as the subject states it: networks, "
            "stored samples, bases."
        ),
    ),
    Metric(
        "nominal_bits",
        unit="bit/parameter",
        better="lower",
        section="size",
        title="Nominal bits",
        definition=(
            "Bits per weight that the format would store, as declared; effective_bits are those that are stored."
        ),
    ),
    Metric(
        "nominal_bit_operations",
        unit="bitop",
        better="lower",
        section="compute",
        title="Nominal bit operations",
        definition=(
            "MACs x declared weight bits x declared activation bits, operator by operator; bit_operations are "
            "those that are executed."
        ),
    ),
    Metric(
        "method_seconds",
        unit="s",
        better="lower",
        section="method",
        title="Time of the method",
        definition="Seconds that pruning, quantising, searching or training with the method took, once per case.",
    ),
    Metric(
        "method_forwards",
        unit="forward",
        better="lower",
        section="method",
        title="Forwards of the method",
        definition="Forward passes of the network that the method made, once per case.",
    ),
    Metric(
        "method_backwards",
        unit="backward",
        better="lower",
        section="method",
        title="Backward passes of the method",
        definition="Backward passes through the network that the method made, once per case.",
    ),
    Metric(
        "method_peak_bytes",
        unit="B",
        better="lower",
        section="method",
        title="Peak memory of the method",
        definition=(
            "CPU: growth of the process's resident size at its peak while the method worked; CUDA: peak of the "
            "allocator."
        ),
    ),
    Metric(
        "method_samples",
        unit="sample",
        better="lower",
        section="method",
        title="Samples of the method",
        definition="Calibration or training samples that the method was given, each time that it was given one.",
    ),
    Metric(
        "method_macs_run",
        unit="MAC",
        better="lower",
        section="method",
        title="Products of the method",
        definition=(
            "MACs that the method executed beforehand, forwards and backwards of its training and what it chose by "
            "included, where it counts them."
        ),
    ),
    Metric(
        "mfu",
        unit="%",
        better="higher",
        section="roofline",
        title="Utilisation by model MACs (MFU)",
        definition=(
            "2 x MACs of the model (macs, nothing computed again) over latency x measured peak; modelled from "
            "measured parts."
        ),
    ),
    Metric(
        "hfu",
        unit="%",
        better="higher",
        section="roofline",
        title="Utilisation by executed MACs (HFU)",
        definition="The same with every product that is executed: the method's own and those computed again included.",
    ),
    Metric(
        "roofline_share",
        unit="%",
        better="higher",
        section="roofline",
        title="Share of the roofline",
        definition=(
            "Of a bare function: max(2 x MACs / measured peak, bytes of inputs, weights and outputs / measured "
            "bandwidth) over latency; modelled from measured parts. What fits into a cache may move faster than the "
            "bandwidth of DRAM."
        ),
    ),
    Metric(
        "macs_mean",
        unit="MAC",
        better="lower",
        section="inputs",
        title="MACs (mean over inputs)",
        definition="Mean over the sample of inputs of the MACs of one input, for a network whose cost depends on it.",
    ),
    Metric(
        "macs_p50",
        unit="MAC",
        better="lower",
        section="inputs",
        title="MACs (p50 over inputs)",
        definition="Median over the same inputs.",
    ),
    Metric(
        "macs_p90",
        unit="MAC",
        better="lower",
        section="inputs",
        title="MACs (p90 over inputs)",
        definition="90th percentile over the same inputs: the smallest value that 90 % of them do not exceed.",
    ),
    Metric(
        "macs_p95",
        unit="MAC",
        better="lower",
        section="inputs",
        title="MACs (p95 over inputs)",
        definition="95th percentile over the same inputs.",
    ),
    Metric(
        "macs_min",
        unit="MAC",
        better="lower",
        section="inputs",
        title="MACs (least)",
        definition="Of the same inputs.",
    ),
    Metric(
        "macs_max",
        unit="MAC",
        better="lower",
        section="inputs",
        title="MACs (largest)",
        definition="Of the same inputs; it may lie above the plain network, whose gates and heads it has not.",
    ),
    Metric(
        "input_ms",
        unit="ms",
        better="lower",
        section="inputs",
        title="Time per input (mean)",
        definition=(
            "Mean over the inputs of each input's median time, at batch 1 in one process; a curve holds every input's."
        ),
    ),
    Metric(
        "input_p50_ms",
        unit="ms",
        better="lower",
        section="inputs",
        title="Time per input (p50)",
        definition="Median over the same inputs.",
    ),
    Metric(
        "input_p90_ms",
        unit="ms",
        better="lower",
        section="inputs",
        title="Time per input (p90)",
        definition="90th percentile over the same inputs.",
    ),
    Metric(
        "input_p95_ms",
        unit="ms",
        better="lower",
        section="inputs",
        title="Time per input (p95)",
        definition="95th percentile over the same inputs.",
    ),
)
