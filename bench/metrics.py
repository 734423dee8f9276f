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
        return SECTIONS[self.section].per_part and self.name not in _OF_SUBJECT

    @property
    def compared(self) -> Comparison:
        """How two values of it are compared, wherever that is done: ranks, comparisons, reproductions, claims."""
        return _COMPARED_ALONE.get(self.name, SECTIONS[self.section].compared)

    @property
    def travels(self) -> bool:
        """Whether a value of one machine holds on another."""
        return SECTIONS[self.section].travels


#: exact: counted, so equal or not. tolerance: deterministic but measured. time: per process, on logs. ratio: to the
#: other side. energy: within a share. score: by the rule of `bench.scores`. modelled: follows from others. shown: not
#: compared.
Comparison = Literal["exact", "tolerance", "time", "ratio", "energy", "score", "modelled", "shown"]


@dataclass(frozen=True)
class Section:
    """What the metrics of a section have in common."""

    compared: Comparison = "shown"
    per_part: bool = False
    travels: bool = False


#: Sections in the order of charts and columns; a metric of another section is refused when the table is made.
SECTIONS: dict[str, Section] = {
    "size": Section("exact", travels=True),
    "compute": Section("exact", per_part=True, travels=True),
    "roofline": Section("modelled", per_part=True),
    "latency": Section("time", per_part=True),
    "throughput": Section("time", per_part=True),
    "memory": Section("tolerance", per_part=True, travels=True),
    "energy": Section("energy", per_part=True),
    "quality": Section("score", travels=True),
    "fidelity": Section(),
    "generation": Section(),
    "sampling": Section(),
    "stream": Section(),
    "training": Section(),
    "pipeline": Section(),
    "split": Section(),
    "operator": Section(),
    "method": Section(),
    "inputs": Section(),
}
#: Metrics that are compared otherwise than the rest of their section.
_COMPARED_ALONE: dict[str, Comparison] = {
    "speedup": "ratio",
    **dict.fromkeys(
        (
            "latency_p90_ms",
            "latency_p99_ms",
            "aa_ratio",
            "first_inference_ms",
            "load_ms",
            "compile_ms",
            "conversion_ms",
        ),
        "shown",
    ),
}
#: Metrics of the subject in sections whose others are those of a part.
_OF_SUBJECT = frozenset({"first_inference_ms", "load_ms", "compile_ms", "conversion_ms"})


#: Metric of a workload's throughput by the unit that it counts.
RATES = {"sample": "throughput_per_s"}


def rate_of(unit: str) -> str:
    """The metric of the rate at which units of this kind are done."""
    return RATES.get(unit, f"{unit}s_per_s")


def _table(*rows: tuple[str, str, Direction, str, str, str]) -> dict[str, Metric]:
    made = [Metric(*row) for row in rows]
    for metric in made:
        if metric.section not in SECTIONS:
            raise ValueError(f"metric {metric.name}: there is no section {metric.section!r} in bench.metrics.SECTIONS")
    names = [metric.name for metric in made]
    if len(set(names)) < len(names):
        raise ValueError(f"a metric stands twice in bench.metrics: {sorted({n for n in names if names.count(n) > 1})}")
    return {metric.name: metric for metric in made}


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
        (
            "Elements that are not exactly zero. Masked but dense weights save nothing in a dense kernel: theoretical "
            "only."
        ),
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
        (
            "Multiply-accumulates of matrix products and convolutions in one forward of the whole batch divided by the "
            "batch (matmul convention: no bias, normalisation, softmax or elementwise work, nor a method's own "
            "matching)."
        ),
    ),
    (
        "macs_method",
        "MAC",
        "lower",
        "compute",
        "MACs of the method itself",
        (
            "Multiply-accumulates that a reduction method makes to decide (similarity scores, matching, its "
            "predictor), per sample: executed, part of macs_fvcore, not part of macs."
        ),
    ),
    (
        "macs_fvcore",
        "MAC",
        "lower",
        "compute",
        "MACs, fvcore convention",
        (
            "As macs, plus the method's own products, 5 per element of every affine LayerNorm and the other terms that "
            "fvcore counts."
        ),
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
        (
            "Per fresh process the median time of one forward, synchronised; across processes the geometric mean with "
            "a 95 % t-interval on logs."
        ),
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
        (
            "The forward that compiles the module, in one fresh process, with nothing in the compiler's cache; only of "
            "compiled cases."
        ),
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
    (
        "step_accuracy",
        "%",
        "higher",
        "quality",
        "Accuracy per step",
        (
            "Mean over held-out sequences of the share of answered time steps whose answer is right; with a 95 % "
            "t-interval over sequences."
        ),
    ),
    (
        "bits_per_byte",
        "bit/B",
        "lower",
        "quality",
        "Bits per byte",
        (
            "Mean over equally long pieces of held-out text of the bits that the model needs for each byte of the "
            "second half of a piece, given all before it (through its own cache where it has one); with a 95 % "
            "t-interval over pieces. Only texts of one hash are compared."
        ),
    ),
    (
        "psnr_db",
        "dB",
        "higher",
        "quality",
        "PSNR",
        (
            "Mean over held-out pictures of 10 log10(1 / mean squared error) of pixels in 0..1; with a 95 % t-interval "
            "over pictures."
        ),
    ),
    (
        "frechet_distance",
        "1",
        "lower",
        "quality",
        "Frechet distance",
        (
            "Distance of the normal distributions that fit the features of made and of held-out pictures, in the "
            "task's own frozen classifier: no FID of a paper. No interval: the spread of the plain model's seeds and "
            "the floor of real pictures."
        ),
    ),
    (
        "output_error",
        "1",
        "lower",
        "fidelity",
        "Error against the other side",
        (
            "L2 norm of the difference of all outputs from those of the other side, over the L2 norm of those, on the "
            "same inputs and weights."
        ),
    ),
    (
        "top1_agreement",
        "%",
        "higher",
        "fidelity",
        "Top-1 agreement",
        (
            "Share of output vectors (last axis) whose largest element is where the other side's is, on the same "
            "inputs and weights; of outputs with an axis of two elements or more to choose among."
        ),
    ),
    (
        "time_to_first_token_ms",
        "ms",
        "lower",
        "generation",
        "Time to first token",
        (
            "From the call until the first new token's id is on the host: cache set-up, prefill, head on the last "
            "position, choice."
        ),
    ),
    (
        "time_per_output_token_ms",
        "ms",
        "lower",
        "generation",
        "Time per output token",
        "(Time of the request - time to first token) / (n - 1), from requests without a synchronisation per token.",
    ),
    (
        "inter_token_p50_ms",
        "ms",
        "lower",
        "generation",
        "Time between tokens (p50)",
        "Median time from one token to the next, each step synchronised, in a pass of its own.",
    ),
    (
        "inter_token_p95_ms",
        "ms",
        "lower",
        "generation",
        "Time between tokens (p95)",
        (
            "95th percentile of the same; periodic work of a cache shows here. Only with enough tokens for that "
            "percentile."
        ),
    ),
    (
        "cache_bytes",
        "B",
        "lower",
        "generation",
        "Cache",
        (
            "Bytes of everything kept between steps after the request (N + n - 1 tokens: the last one is never fed), "
            "or between steps of a sampler."
        ),
    ),
    (
        "cache_allocated_bytes",
        "B",
        "lower",
        "generation",
        "Allocated cache",
        "Bytes of the storages that the cache holds, used or not.",
    ),
    (
        "cache_bytes_per_token",
        "B/token",
        "lower",
        "generation",
        "Cache per token",
        "cache_bytes over batch x (N + n - 1) tokens.",
    ),
    (
        "kv_bits_nominal",
        "bit",
        "lower",
        "generation",
        "Nominal cache bits",
        "Bits per cached element as the method's paper calls it.",
    ),
    (
        "kv_bits_stored",
        "bit",
        "lower",
        "generation",
        "Stored cache bits",
        "8 x bytes of the cache over the elements of the dense cache: codes, scales, indices and windows included.",
    ),
    (
        "method_bytes",
        "B",
        "lower",
        "generation",
        "Bytes of the method",
        "What a method keeps besides weights and cache: codebooks, predictors.",
    ),
    (
        "time_per_image_ms",
        "ms",
        "lower",
        "sampling",
        "Time per image",
        "Time of the whole sampler, all steps and guidance, over the batch.",
    ),
    ("sampler_steps", "step", "lower", "sampling", "Sampler steps", "Steps of the plan."),
    (
        "network_evaluations",
        "evaluation",
        "lower",
        "sampling",
        "Network evaluations",
        "Evaluations of a network per image over the plan: a guidance pair is 2, a second-order step is 2.",
    ),
    (
        "macs_conditioner",
        "MAC",
        "lower",
        "sampling",
        "MACs of the conditioner",
        "Of everything before the first step (text encoder, embedding), per image; never part of macs.",
    ),
    (
        "macs_decoder",
        "MAC",
        "lower",
        "sampling",
        "MACs of the decoder",
        "Of everything after the last step (decoder of latents), per image; never part of macs.",
    ),
    (
        "state_bytes",
        "B",
        "lower",
        "stream",
        "State",
        "Bytes that an online network keeps from one step to the next, weights apart.",
    ),
    (
        "delay_steps",
        "step",
        "lower",
        "stream",
        "Steps until the first output",
        "Steps from the initial state until the first output, that one included.",
    ),
    (
        "offline_error",
        "1",
        "lower",
        "stream",
        "Error against offline",
        (
            "Largest difference between the outputs of steps and of the offline network at the same step, over the "
            "largest absolute offline output."
        ),
    ),
    ("period_steps", "step", "none", "stream", "Period", "Steps from one output to the next."),
    ("time_per_step_ms", "ms", "lower", "stream", "Time per step", "Time of whole periods over their steps."),
    ("time_per_output_ms", "ms", "lower", "stream", "Time per output", "Time of whole periods over their outputs."),
    (
        "clip_speedup",
        "x",
        "higher",
        "stream",
        "Speed-up over the clip",
        "Time of the offline network on one window over the time per output: the clip is run once for every output.",
    ),
    (
        "break_even_hop",
        "step",
        "lower",
        "stream",
        "Break-even hop",
        (
            "Time of the clip over the time per step: who needs an answer only every so many steps loses nothing by "
            "recomputing."
        ),
    ),
    (
        "macs_per_step",
        "MAC",
        "lower",
        "stream",
        "MACs per step",
        "Mean over one period of the products of a step, per stream.",
    ),
    (
        "gradient_bytes",
        "B",
        "lower",
        "training",
        "Gradients",
        "Bytes of the gradients of all parameters after a backward.",
    ),
    (
        "optimizer_bytes",
        "B",
        "lower",
        "training",
        "Optimizer state",
        "Bytes of what the optimizer keeps from step to step, weights apart.",
    ),
    (
        "saved_activation_bytes",
        "B",
        "lower",
        "training",
        "Saved activations",
        (
            "Bytes that autograd keeps after the forward: distinct storages that the pack hook sees, without "
            "parameters, buffers and the batch."
        ),
    ),
    (
        "macs_backward",
        "MAC",
        "lower",
        "training",
        "MACs of the backward",
        "Products of the real backward per sample, what is computed again included.",
    ),
    (
        "macs_recomputed",
        "MAC",
        "lower",
        "training",
        "Recomputed MACs",
        "Products per sample of modules that run again during the backward: part of macs_backward.",
    ),
    (
        "stage_share",
        "%",
        "lower",
        "pipeline",
        "Share of the request",
        "Sum of the part's times over the sum of whole requests, over the same requests.",
    ),
    ("untimed_share", "%", "lower", "pipeline", "Untimed share", "Share of the request that no stage explains."),
    (
        "nonnetwork_share",
        "%",
        "lower",
        "pipeline",
        "Share outside the network",
        "Share of the request outside the stage that runs the network.",
    ),
    (
        "offered_rate",
        "request/s",
        "none",
        "pipeline",
        "Offered rate",
        "Scheduled arrivals per second of an open loop.",
    ),
    (
        "achieved_rate",
        "request/s",
        "higher",
        "pipeline",
        "Achieved rate",
        "Requests completed per second of an open loop.",
    ),
    (
        "sojourn_mean_ms",
        "ms",
        "lower",
        "pipeline",
        "Time in system (mean)",
        "From the scheduled arrival to the answer, open loop.",
    ),
    (
        "sojourn_p50_ms",
        "ms",
        "lower",
        "pipeline",
        "Time in system (p50)",
        "Median from the scheduled arrival to the answer, open loop.",
    ),
    (
        "sojourn_p90_ms",
        "ms",
        "lower",
        "pipeline",
        "Time in system (p90)",
        "90th percentile from the scheduled arrival to the answer, open loop; only with 64 requests or more.",
    ),
    (
        "sojourn_p99_ms",
        "ms",
        "lower",
        "pipeline",
        "Time in system (p99)",
        "99th percentile from the scheduled arrival to the answer, open loop; only with 662 requests or more.",
    ),
    (
        "mean_in_system",
        "request",
        "lower",
        "pipeline",
        "Mean number in system",
        "Time average of the requests that have arrived and are not answered, open loop.",
    ),
    (
        "payload_bytes",
        "B",
        "lower",
        "split",
        "Payload",
        "Bytes on the wire of one run, really encoded: mean over the inputs.",
    ),
    ("payload_min_bytes", "B", "lower", "split", "Smallest payload", "Of the same inputs."),
    ("payload_max_bytes", "B", "lower", "split", "Largest payload", "Of the same inputs."),
    ("answer_bytes", "B", "lower", "split", "Answer", "Bytes that travel back."),
    (
        "link_ms",
        "ms",
        "lower",
        "split",
        "Time on the link",
        "8 x (payload + answer) / bandwidth + round trip; modelled.",
    ),
    (
        "total_modelled_ms",
        "ms",
        "lower",
        "split",
        "Total with link",
        "Device factor x (head + encode) + link + decode + tail; modelled, its parts measured.",
    ),
    (
        "reference_error",
        "1",
        "lower",
        "operator",
        "Error against the reference",
        "Relative L2 distance of the outputs from the reference's.",
    ),
    (
        "reference_max_error",
        "1",
        "lower",
        "operator",
        "Largest error against the reference",
        "Largest absolute difference over the largest absolute value of the reference.",
    ),
    (
        "io_bytes",
        "B",
        "lower",
        "operator",
        "Input and output bytes",
        "Bytes of inputs, weights and outputs, each once: the least that has to move.",
    ),
    (
        "workspace_bytes",
        "B",
        "lower",
        "operator",
        "Workspace",
        "Peak of live bytes of the call less its inputs and outputs.",
    ),
    (
        "tokens_per_s",
        "token/s",
        "higher",
        "throughput",
        "Tokens per second",
        (
            "Tokens of a run of the part over its time: those of the prompt of a prefill, new ones of a request, one "
            "per sequence of a decode step."
        ),
    ),
    (
        "images_per_s",
        "image/s",
        "higher",
        "throughput",
        "Images per second",
        "Images of a run of the part over its time.",
    ),
    (
        "steps_per_s",
        "step/s",
        "higher",
        "throughput",
        "Steps per second",
        "Time steps of all streams of the batch over the time of the part; a clip is run for one step, its newest.",
    ),
    (
        "requests_per_s",
        "request/s",
        "higher",
        "throughput",
        "Requests per second",
        "Requests of a run of the part over its time, one after another: what a server gives that is never idle.",
    ),
    ("calls_per_s", "call/s", "higher", "throughput", "Calls per second", "Calls of the function over their time."),
    (
        "output_tokens_per_s",
        "token/s",
        "higher",
        "generation",
        "Output tokens per second",
        "New tokens but the first over the time after the first: batch over the time per output token.",
    ),
    (
        "artefact_bytes",
        "B",
        "lower",
        "size",
        "Artefact size",
        "Bytes on disk of what a backend makes of the network and would be shipped: file or files, weights included.",
    ),
    (
        "conversion_ms",
        "ms",
        "lower",
        "latency",
        "Conversion time",
        (
            "From the eager module to the artefact on disk, the first conversion in a fresh process; loading it in the "
            "runtime is no part of it."
        ),
    ),
    (
        "macs_dense",
        "MAC",
        "lower",
        "compute",
        "MACs of the dense network",
        (
            "Products of the same network with nothing removed by a mask or a sparse layout, per sample; only "
            "where a subject names its kernel."
        ),
    ),
    (
        "macs_nonzero",
        "MAC",
        "lower",
        "compute",
        "MACs with non-zero weights",
        (
            "Products whose weight is not zero, per sample: MACs x share of non-zero weights, operator by "
            "operator; products without a weight in full. Only where a subject names its kernel."
        ),
    ),
    (
        "nominal_bits",
        "bit/parameter",
        "lower",
        "size",
        "Nominal bits",
        "Bits per weight that the format would store, as declared; effective_bits are those that are stored.",
    ),
    (
        "nominal_bit_operations",
        "bitop",
        "lower",
        "compute",
        "Nominal bit operations",
        (
            "MACs x declared weight bits x declared activation bits, operator by operator; bit_operations are "
            "those that are executed."
        ),
    ),
    (
        "method_seconds",
        "s",
        "lower",
        "method",
        "Time of the method",
        "Seconds that pruning, quantising, searching or training with the method took, once per case.",
    ),
    (
        "method_forwards",
        "forward",
        "lower",
        "method",
        "Forwards of the method",
        "Forward passes of the network that the method made, once per case.",
    ),
    (
        "method_backwards",
        "backward",
        "lower",
        "method",
        "Backward passes of the method",
        "Backward passes through the network that the method made, once per case.",
    ),
    (
        "method_peak_bytes",
        "B",
        "lower",
        "method",
        "Peak memory of the method",
        "CPU: growth of the process's resident size at its peak while the method worked; CUDA: peak of the allocator.",
    ),
    (
        "method_samples",
        "sample",
        "lower",
        "method",
        "Samples of the method",
        "Calibration or training samples that the method was given, each time that it was given one.",
    ),
    (
        "mfu",
        "%",
        "higher",
        "roofline",
        "Utilisation by model MACs (MFU)",
        (
            "2 x MACs of the model (macs, nothing computed again) over latency x measured peak; modelled from "
            "measured parts."
        ),
    ),
    (
        "hfu",
        "%",
        "higher",
        "roofline",
        "Utilisation by executed MACs (HFU)",
        "The same with every product that is executed: the method's own and those computed again included.",
    ),
    (
        "macs_mean",
        "MAC",
        "lower",
        "inputs",
        "MACs (mean over inputs)",
        "Mean over the sample of inputs of the MACs of one input, for a network whose cost depends on it.",
    ),
    (
        "macs_p50",
        "MAC",
        "lower",
        "inputs",
        "MACs (p50 over inputs)",
        "Median over the same inputs.",
    ),
    (
        "macs_p90",
        "MAC",
        "lower",
        "inputs",
        "MACs (p90 over inputs)",
        "90th percentile over the same inputs: the smallest value that 90 % of them do not exceed.",
    ),
    (
        "macs_p95",
        "MAC",
        "lower",
        "inputs",
        "MACs (p95 over inputs)",
        "95th percentile over the same inputs.",
    ),
    (
        "macs_min",
        "MAC",
        "lower",
        "inputs",
        "MACs (least)",
        "Of the same inputs.",
    ),
    (
        "macs_max",
        "MAC",
        "lower",
        "inputs",
        "MACs (largest)",
        "Of the same inputs; it may lie above the plain network, whose gates and heads it has not.",
    ),
    (
        "input_ms",
        "ms",
        "lower",
        "inputs",
        "Time per input (mean)",
        "Mean over the inputs of each input's median time, at batch 1 in one process; a curve holds every input's.",
    ),
    (
        "input_p50_ms",
        "ms",
        "lower",
        "inputs",
        "Time per input (p50)",
        "Median over the same inputs.",
    ),
    (
        "input_p90_ms",
        "ms",
        "lower",
        "inputs",
        "Time per input (p90)",
        "90th percentile over the same inputs.",
    ),
    (
        "input_p95_ms",
        "ms",
        "lower",
        "inputs",
        "Time per input (p95)",
        "95th percentile over the same inputs.",
    ),
)
