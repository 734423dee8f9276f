"""Metrics of single workloads, in the field's own words."""

from __future__ import annotations

from bench.metrics.metric import Metric

WORKLOADS: tuple[Metric, ...] = (
    Metric(
        "time_to_first_token_ms",
        unit="ms",
        better="lower",
        section="generation",
        title="Time to first token",
        definition=(
            "From the call until the first new token's id is on the host: cache set-up, prefill, head on the last "
            "position, choice."
        ),
    ),
    Metric(
        "encoder_ms",
        unit="ms",
        better="lower",
        section="generation",
        title="Encoder",
        definition=(
            "What a model that reads pictures does with them before its decoder: tower, projector, and what a method "
            "chooses there. A part of the time to first token, timed by itself."
        ),
    ),
    Metric(
        "prefill_alone_ms",
        unit="ms",
        better="lower",
        section="generation",
        title="First token without its pictures",
        definition="Time to first token less that of the encoder: what fewer visual tokens can shorten.",
    ),
    Metric(
        "time_per_output_token_ms",
        unit="ms",
        better="lower",
        section="generation",
        title="Time per output token",
        definition=(
            "Time of a request after its first token / (n - 1), without a synchronisation per token; of a module that "
            "writes by itself (time of the request - time to first token) / (n - 1)."
        ),
    ),
    Metric(
        "later_tokens_ms",
        unit="ms",
        better="lower",
        section="generation",
        title="Time after the first token",
        definition="From the first token of a request on the host to its whole answer on the host, in timed requests.",
    ),
    Metric(
        "inter_token_p50_ms",
        unit="ms",
        better="lower",
        section="generation",
        title="Time between tokens (p50)",
        definition="Median time from one token to the next, each step synchronised, in a pass of its own.",
    ),
    Metric(
        "inter_token_p95_ms",
        unit="ms",
        better="lower",
        section="generation",
        title="Time between tokens (p95)",
        definition=(
            "95th percentile of the same; periodic work of a cache shows here. Only with enough tokens for that "
            "percentile."
        ),
    ),
    Metric(
        "cache_bytes",
        unit="B",
        better="lower",
        section="generation",
        title="Cache",
        definition=(
            "Bytes of everything kept between steps after the request (N + n - 1 tokens: the last one is never "
            "fed), or between steps of a sampler."
        ),
    ),
    Metric(
        "cache_allocated_bytes",
        unit="B",
        better="lower",
        section="generation",
        title="Allocated cache",
        definition="Bytes of the storages that the cache holds, used or not.",
    ),
    Metric(
        "cache_bytes_per_token",
        unit="B/token",
        better="lower",
        section="generation",
        title="Cache per token",
        definition="cache_bytes over batch x (N + n - 1) tokens.",
    ),
    Metric(
        "kv_bits_nominal",
        unit="bit",
        better="lower",
        section="generation",
        title="Nominal cache bits",
        definition="Bits per cached element as the method's paper calls it.",
    ),
    Metric(
        "kv_bits_stored",
        unit="bit",
        better="lower",
        section="generation",
        title="Stored cache bits",
        definition=(
            "Bits that an element of the dense cache takes in a long one: 8 x bytes of codes, scales and indices over "
            "the elements that they stand for. Plain newest tokens, of which a short request has many, are in "
            "cache_bytes alone."
        ),
    ),
    Metric(
        "method_bytes",
        unit="B",
        better="lower",
        section="generation",
        title="Bytes of the method",
        definition="What a method keeps besides weights and cache: codebooks, predictors.",
    ),
    Metric(
        "visual_tokens_mean",
        unit="token",
        better="lower",
        section="generation",
        title="Visual tokens",
        definition="Mean over the decoder's layers of the visual tokens of one prompt that enter them.",
    ),
    Metric(
        "tokens_per_step",
        unit="token",
        better="higher",
        section="generation",
        title="Tokens per step",
        definition="New tokens per step of the main model after the prompt, where drafts are verified several at once.",
    ),
    Metric(
        "draft_acceptance",
        unit="%",
        better="higher",
        section="generation",
        title="Draft acceptance",
        definition="Drafted tokens that the main model would have written itself, of all that were drafted.",
    ),
    Metric(
        "tokens_written",
        unit="token",
        better="lower",
        section="generation",
        title="Written tokens",
        definition="Tokens written for one batch of answers, those of rejected beams and drafts included.",
    ),
    Metric(
        "tokens_scored",
        unit="token",
        better="lower",
        section="generation",
        title="Scored tokens",
        definition="Tokens that a reward model read for one batch of answers.",
    ),
    Metric(
        "experts_hit",
        unit="1",
        better="lower",
        section="generation",
        title="Experts hit",
        definition="Different experts that the tokens of one run go through, mean over the layers of a mixture.",
    ),
    Metric(
        "expert_imbalance",
        unit="1",
        better="lower",
        section="generation",
        title="Load of the fullest expert",
        definition="Tokens of the most loaded expert over those of the mean one in one run, mean over the layers.",
    ),
    Metric(
        "reward_correlation",
        unit="1",
        better="higher",
        section="generation",
        title="Correlation of partial and whole rewards",
        definition=(
            "Pearson's, of a beam's reward after the tokens at which a search rejects with that at the end of its "
            "step, over all beams and unfinished steps of plain searches on held-out problems."
        ),
    ),
    Metric(
        "choice_agreement",
        unit="%",
        better="higher",
        section="generation",
        title="Same answer as the whole search",
        definition="Held-out problems on which a search that rejects early ends at the answer of one that does not.",
    ),
    Metric(
        "divergence_bits",
        unit="bit/token",
        better="lower",
        section="generation",
        title="Divergence from the other side",
        definition=(
            "Kullback-Leibler divergence of what is said from what the other side says, each through its own cache, "
            "mean over given tokens of held-out text."
        ),
    ),
    Metric(
        "same_tokens",
        unit="token",
        better="higher",
        section="generation",
        title="Tokens before the texts part",
        definition=(
            "Tokens of 32 written greedily after held-out text before the first that differs from the other side's; "
            "mean over texts, an answer that never differs counts whole."
        ),
    ),
    Metric(
        "needed_share",
        unit="%",
        better="higher",
        section="generation",
        title="Needed share of the products",
        definition=(
            "Products that an answer rests on, of all that are executed: rows of beams that were thrown away are not, "
            "nor empty slots of a padded product. It is what `mfu` counts of them."
        ),
    ),
    Metric(
        "time_per_image_ms",
        unit="ms",
        better="lower",
        section="sampling",
        title="Time per image",
        definition="Time of the whole sampler, all steps and guidance, over the batch.",
    ),
    Metric(
        "sampler_steps",
        unit="step",
        better="lower",
        section="sampling",
        title="Sampler steps",
        definition="Steps of the plan.",
    ),
    Metric(
        "network_evaluations",
        unit="evaluation",
        better="lower",
        section="sampling",
        title="Network evaluations",
        definition="Evaluations of a network per image over the plan: a guidance pair is 2, a second-order step is 2.",
    ),
    Metric(
        "macs_conditioner",
        unit="MAC",
        better="lower",
        section="sampling",
        title="MACs of the conditioner",
        definition="Of everything before the first step (text encoder, embedding), per image; never part of macs.",
    ),
    Metric(
        "macs_decoder",
        unit="MAC",
        better="lower",
        section="sampling",
        title="MACs of the decoder",
        definition="Of everything after the last step (decoder of latents), per image; never part of macs.",
    ),
    Metric(
        "state_bytes",
        unit="B",
        better="lower",
        section="stream",
        title="State",
        definition="Bytes that an online network keeps from one step to the next, weights apart.",
    ),
    Metric(
        "state_traffic_bytes",
        unit="B",
        better="lower",
        section="stream",
        title="State traffic",
        definition=(
            "Bytes of the state that the operators of a step read and write, mean over one period: all streams of "
            "the batch."
        ),
    ),
    Metric(
        "first_output_ms",
        unit="ms",
        better="lower",
        section="stream",
        title="First output",
        definition="Time of all steps from the initial state to the first output.",
    ),
    Metric(
        "step_p99_ms",
        unit="ms",
        better="lower",
        section="stream",
        title="Time of a step (p99)",
        definition="99th percentile of single steps in steady state, each synchronised; only with 662 steps or more.",
    ),
    Metric(
        "rate_max",
        unit="step/s",
        better="higher",
        section="stream",
        title="Highest rate",
        definition="Steps per second at which 99 of 100 steps keep up: 1 / step_p99_ms.",
    ),
    Metric(
        "delay_steps",
        unit="step",
        better="lower",
        section="stream",
        title="Steps until the first output",
        definition="Steps from the initial state until the first output, that one included.",
    ),
    Metric(
        "offline_error",
        unit="1",
        better="lower",
        section="stream",
        title="Error against offline",
        definition=(
            "Largest difference between the outputs of steps and of the offline network at the same step, over "
            "the largest absolute offline output."
        ),
    ),
    Metric(
        "period_steps",
        unit="step",
        better="none",
        section="stream",
        title="Period",
        definition="Steps from one output to the next.",
    ),
    Metric(
        "time_per_step_ms",
        unit="ms",
        better="lower",
        section="stream",
        title="Time per step",
        definition="Time of whole periods over their steps.",
    ),
    Metric(
        "time_per_output_ms",
        unit="ms",
        better="lower",
        section="stream",
        title="Time per output",
        definition="Time of whole periods over their outputs.",
    ),
    Metric(
        "clip_speedup",
        unit="x",
        better="higher",
        section="stream",
        title="Speed-up over the clip",
        definition=(
            "Time of the offline network on one window over the time per output: the clip is run once for every output."
        ),
    ),
    Metric(
        "break_even_hop",
        unit="step",
        better="lower",
        section="stream",
        title="Break-even hop",
        definition=(
            "Time of the clip over the time per step: who needs an answer only every so many steps loses nothing "
            "by recomputing."
        ),
    ),
    Metric(
        "macs_per_step",
        unit="MAC",
        better="lower",
        section="stream",
        title="MACs per step",
        definition="Mean over one period of the products of a step, per stream.",
    ),
    Metric(
        "offline_nrmse",
        unit="1",
        better="lower",
        section="stream",
        title="Mean error against offline",
        definition=(
            "Root mean square of the differences between steps and the offline network from the transient on, "
            "over the range of the offline answers."
        ),
    ),
    Metric(
        "offline_agreement",
        unit="%",
        better="higher",
        section="stream",
        title="Same choice as offline",
        definition="Answers from the transient on whose largest number is that of the offline network.",
    ),
    Metric(
        "clip_error",
        unit="1",
        better="lower",
        section="stream",
        title="Error against the clip",
        definition=(
            "Largest difference between the last answer and the clip network on the last window, over the largest "
            "absolute answer; where steps are compared with another reference, such as the network without "
            "padding."
        ),
    ),
    Metric(
        "dependency_delay_steps",
        unit="step",
        better="lower",
        section="stream",
        title="Delay until an answer depends",
        definition="Mean steps from an input to the first answer that depends on it.",
    ),
    Metric(
        "alignment_delay_steps",
        unit="step",
        better="lower",
        section="stream",
        title="Lag of the answer",
        definition="Steps by which an answer lags the input that it describes.",
    ),
    Metric(
        "outputs_per_answer",
        unit="output",
        better="none",
        section="stream",
        title="Outputs of a step",
        definition="Outputs that one answering step gives at once.",
    ),
    Metric(
        "macs_per_output",
        unit="MAC",
        better="lower",
        section="stream",
        title="MACs per output",
        definition="Products of all steps of a period over the outputs of the period, per stream.",
    ),
    Metric(
        "clip_mac_ratio",
        unit="x",
        better="higher",
        section="stream",
        title="MACs of the clip over an output's",
        definition="Products of the offline network on one window over those per output.",
    ),
    Metric(
        "break_even_hop_macs",
        unit="step",
        better="lower",
        section="stream",
        title="Break-even hop in MACs",
        definition=(
            "Products of the clip over those of a step: who needs an answer only every so many steps computes no "
            "more by recomputing."
        ),
    ),
    Metric(
        "step_p50_ms",
        unit="ms",
        better="lower",
        section="stream",
        title="Time of a step (p50)",
        definition="Median of single steps in steady state, each synchronised.",
    ),
    Metric(
        "step_p90_ms",
        unit="ms",
        better="lower",
        section="stream",
        title="Time of a step (p90)",
        definition="What nine of ten single steps in steady state keep within, each synchronised.",
    ),
    Metric(
        "step_time_trend",
        unit="x",
        better="none",
        section="stream",
        title="Time of later steps",
        definition=(
            "Median time of the last quarter of many steps on end over that of the first quarter: 1 for a stream that "
            "does not slow down."
        ),
    ),
    Metric(
        "drift_error",
        unit="1",
        better="lower",
        section="stream",
        title="Drift",
        definition=(
            "Largest difference from the reference after many steps on end, over the largest absolute reference, of "
            "streams whose kept sums may pile up rounding; the note says after how many steps."
        ),
    ),
    Metric(
        "streams_max",
        unit="stream",
        better="higher",
        section="stream",
        title="Streams at once",
        definition=(
            "Largest batch of streams, doubled from one, of which 99 of 100 steps come within the time between two "
            "inputs; searched where the shape names a largest one."
        ),
    ),
    Metric(
        "clip_realised_share",
        unit="1",
        better="higher",
        section="stream",
        title="Realised share against the clip",
        definition=(
            "Logarithm of the speed-up over the clip divided by that of the ratio of products: the share of the "
            "promised factor that becomes time."
        ),
    ),
    Metric(
        "step_max_ms",
        unit="ms",
        better="lower",
        section="stream",
        title="Time of a step (longest)",
        definition=(
            "Longest of single steps in steady state, each synchronised; only where there are enough for the 99th "
            "percentile."
        ),
    ),
    Metric(
        "miss_share",
        unit="%",
        better="lower",
        section="stream",
        title="Missed steps",
        definition="Steps that take longer than inputs are apart.",
    ),
    Metric(
        "macs_dense_per_step",
        unit="MAC",
        better="lower",
        section="stream",
        title="Dense MACs per step",
        definition="Products of a step with every input, mean over successive inputs, per stream.",
    ),
    Metric(
        "macs_spatial_per_step",
        unit="MAC",
        better="lower",
        section="stream",
        title="MACs of what is not zero, per step",
        definition=(
            "Products of a step with inputs that are not zero: what hardware that skips zeros of a frame would make."
        ),
    ),
    Metric(
        "macs_delta_per_step",
        unit="MAC",
        better="lower",
        section="stream",
        title="MACs of what changed, per step",
        definition=(
            "Products of a step with inputs that changed: what hardware that skips zeros of a difference would make."
        ),
    ),
    Metric(
        "answer_delay_ms",
        unit="ms",
        better="lower",
        section="stream",
        title="Delay of an answer",
        definition=(
            "Mean time from an input to the first answer that depends on it: the steps that it waits at the rate of "
            "the inputs, and the median of a step."
        ),
    ),
    Metric(
        "gradient_bytes",
        unit="B",
        better="lower",
        section="training",
        title="Gradients",
        definition="Bytes of the gradients of all parameters after a backward.",
    ),
    Metric(
        "optimizer_bytes",
        unit="B",
        better="lower",
        section="training",
        title="Optimizer state",
        definition="Bytes of what the optimizer keeps from step to step, weights apart.",
    ),
    Metric(
        "saved_activation_bytes",
        unit="B",
        better="lower",
        section="training",
        title="Saved activations",
        definition=(
            "Bytes that autograd keeps after the forward: distinct storages that the pack hook sees, without "
            "parameters, buffers and the batch."
        ),
    ),
    Metric(
        "offloaded_bytes",
        unit="B",
        better="none",
        section="training",
        title="Offloaded activations",
        definition="Bytes of saved activations that a step writes away, or copies to the host, until its backward.",
    ),
    Metric(
        "exposed_wait_ms",
        unit="ms",
        better="lower",
        section="training",
        title="Exposed wait",
        definition="Time that the backward of one step waits for activations that were written away.",
    ),
    Metric(
        "macs_backward",
        unit="MAC",
        better="lower",
        section="training",
        title="MACs of the backward",
        definition="Products of the real backward per sample, what is computed again included.",
    ),
    Metric(
        "macs_recomputed",
        unit="MAC",
        better="lower",
        section="training",
        title="Recomputed MACs",
        definition="Products per sample of modules that run again during the backward: part of macs_backward.",
    ),
    Metric(
        "stage_share",
        unit="%",
        better="lower",
        section="pipeline",
        title="Share of the request",
        definition="Sum of the part's times over the sum of whole requests, over the same requests.",
    ),
    Metric(
        "untimed_share",
        unit="%",
        better="lower",
        section="pipeline",
        title="Untimed share",
        definition="Share of the request that no stage explains.",
    ),
    Metric(
        "nonnetwork_share",
        unit="%",
        better="lower",
        section="pipeline",
        title="Share outside the network",
        definition="Share of the request outside the stage that runs the network.",
    ),
    Metric(
        "offered_rate",
        unit="request/s",
        better="none",
        section="pipeline",
        title="Offered rate",
        definition="Scheduled arrivals per second of an open loop.",
    ),
    Metric(
        "achieved_rate",
        unit="request/s",
        better="higher",
        section="pipeline",
        title="Achieved rate",
        definition="Requests completed per second of an open loop.",
    ),
    Metric(
        "sojourn_mean_ms",
        unit="ms",
        better="lower",
        section="pipeline",
        title="Time in system (mean)",
        definition="From the scheduled arrival to the answer, open loop.",
    ),
    Metric(
        "sojourn_p50_ms",
        unit="ms",
        better="lower",
        section="pipeline",
        title="Time in system (p50)",
        definition="Median from the scheduled arrival to the answer, open loop.",
    ),
    Metric(
        "sojourn_p90_ms",
        unit="ms",
        better="lower",
        section="pipeline",
        title="Time in system (p90)",
        definition=(
            "90th percentile from the scheduled arrival to the answer, open loop; only with 64 requests or more."
        ),
    ),
    Metric(
        "sojourn_p99_ms",
        unit="ms",
        better="lower",
        section="pipeline",
        title="Time in system (p99)",
        definition=(
            "99th percentile from the scheduled arrival to the answer, open loop; only with 662 requests or more."
        ),
    ),
    Metric(
        "waiting_mean_ms",
        unit="ms",
        better="lower",
        section="pipeline",
        title="Waiting (mean)",
        definition="From the scheduled arrival until a server takes the request, open loop.",
    ),
    Metric(
        "outside_service_ms",
        unit="ms",
        better="lower",
        section="pipeline",
        title="Outside of service (mean)",
        definition=(
            "Mean time in system less that of the queue replayed from the schedule and the recorded service times "
            "(Lindley's recursion, earliest free server)."
        ),
    ),
    Metric(
        "utilisation",
        unit="%",
        better="none",
        section="pipeline",
        title="Utilisation",
        definition="Achieved rate times mean service time over the number of servers, open loop.",
    ),
    Metric(
        "offered_load",
        unit="%",
        better="none",
        section="pipeline",
        title="Offered load",
        definition="Offered rate over the saturated rate of the same processes.",
    ),
    Metric(
        "saturated_rate",
        unit="request/s",
        better="higher",
        section="pipeline",
        title="Saturated rate",
        definition=(
            "Requests answered per second, all servers together, where the next is ready as soon as the last is "
            "answered."
        ),
    ),
    Metric(
        "serving_efficiency",
        unit="%",
        better="higher",
        section="pipeline",
        title="Serving efficiency",
        definition=(
            "Saturated rate of the whole chain over that of the stage that runs the network, on inputs that are ready."
        ),
    ),
    Metric(
        "mean_in_system",
        unit="request",
        better="lower",
        section="pipeline",
        title="Mean number in system",
        definition="Time average of the requests that have arrived and are not answered, open loop.",
    ),
    Metric(
        "payload_bytes",
        unit="B",
        better="lower",
        section="split",
        title="Payload",
        definition="Bytes on the wire of one run, really encoded: mean over the inputs.",
    ),
    Metric(
        "payload_min_bytes",
        unit="B",
        better="lower",
        section="split",
        title="Smallest payload",
        definition="Of the same inputs.",
    ),
    Metric(
        "payload_max_bytes",
        unit="B",
        better="lower",
        section="split",
        title="Largest payload",
        definition="Of the same inputs.",
    ),
    Metric(
        "payload_elements",
        unit="1",
        better="lower",
        section="split",
        title="Numbers sent",
        definition="Elements of what the heads give of one run, before they are encoded; follows from shapes.",
        comparison="exact",
    ),
    Metric(
        "head_params",
        unit="parameter",
        better="lower",
        section="split",
        title="Parameters on the device",
        definition="Parameters that head and encode need, of all devices.",
        comparison="exact",
    ),
    Metric(
        "decoder_macs",
        unit="MAC",
        better="lower",
        section="split",
        title="MACs of the decoder",
        definition="Products of what stands on the server for the plain network's first stages, within the tail's.",
        comparison="exact",
    ),
    Metric(
        "vs_u8_input",
        unit="x",
        better="higher",
        section="split",
        title="Compression against the raw picture",
        definition="Bytes of the input with one byte a pixel and channel over the mean payload.",
    ),
    Metric(
        "vs_fp32_cut",
        unit="x",
        better="higher",
        section="split",
        title="Compression against the plain cut",
        definition="Bytes of the plain network's tensor at that cut, four a number, over the mean payload.",
    ),
    Metric(
        "vs_jpeg_equal_accuracy",
        unit="x",
        better="higher",
        section="split",
        title="Compression against a JPEG of equal accuracy",
        definition=(
            "Mean bytes of the coarsest JPEG on which the plain network is as accurate as this one, over the mean "
            "payload; unavailable where no quality, or every quality, is."
        ),
    ),
    Metric(
        "answer_bytes", unit="B", better="lower", section="split", title="Answer", definition="Bytes that travel back."
    ),
    Metric(
        "link_ms",
        unit="ms",
        better="lower",
        section="split",
        title="Time on the link",
        definition="8 x (payload + answer) / bandwidth + round trip; modelled.",
    ),
    Metric(
        "link_paced_ms",
        unit="ms",
        better="lower",
        section="split",
        title="Time on a paced link",
        definition=(
            "Payload and answer sent over a loopback socket that is held to bandwidth and round trip; has to "
            "agree with link_ms."
        ),
    ),
    Metric(
        "total_modelled_ms",
        unit="ms",
        better="lower",
        section="split",
        title="Total with link",
        definition=(
            "Device factor x (head + encode) + link + decode + tail, the slowest device; modelled, parts measured."
        ),
    ),
    Metric(
        "reference_error",
        unit="1",
        better="lower",
        section="operator",
        title="Error against the reference",
        definition="Relative L2 distance of the outputs from the reference's.",
    ),
    Metric(
        "reference_max_error",
        unit="1",
        better="lower",
        section="operator",
        title="Largest error against the reference",
        definition="Largest absolute difference over the largest absolute value of the reference.",
    ),
    Metric(
        "io_bytes",
        unit="B",
        better="lower",
        section="operator",
        title="Input and output bytes",
        definition="Bytes of inputs, weights and outputs, each once: the least that has to move.",
    ),
    Metric(
        "workspace_bytes",
        unit="B",
        better="lower",
        section="operator",
        title="Workspace",
        definition="Peak of live bytes of the call less its inputs and outputs.",
    ),
    Metric(
        "op_per_byte",
        unit="op/B",
        better="higher",
        section="operator",
        title="Operations per byte",
        definition=("2 x MACs of the call over the bytes of its inputs, weights and outputs, each once."),
    ),
    Metric(
        "op_per_byte_copied",
        unit="op/B",
        better="higher",
        section="operator",
        title="Operations per byte, copies included",
        definition=(
            "2 x MACs of the call over its input, weight and output bytes + 2 x bytes of its buffers, which are "
            "written and read again; only where the operator states its buffers."
        ),
    ),
    Metric(
        "workspace_elements",
        unit="element",
        better="lower",
        section="operator",
        title="Workspace, exact",
        definition=("Elements of the buffers that the algorithm writes beside inputs and outputs, by its closed form."),
    ),
    Metric(
        "buffer_bytes",
        unit="B",
        better="lower",
        section="operator",
        title="Bytes of the buffers",
        definition=("workspace_elements in the dtype of the operator's inputs."),
    ),
    Metric(
        "kept_mean",
        unit="element",
        better="none",
        section="operator",
        title="Kept (mean)",
        definition="Numbers of a row that a selection keeps where it keeps only about as many as asked; random rows.",
    ),
    Metric(
        "kept_min",
        unit="element",
        better="none",
        section="operator",
        title="Kept (least)",
        definition="Of the same rows.",
    ),
    Metric(
        "kept_max",
        unit="element",
        better="none",
        section="operator",
        title="Kept (most)",
        definition="Of the same rows.",
    ),
    Metric(
        "fourier_operations",
        unit="op",
        better="lower",
        section="operator",
        title="Operations of Fourier transforms",
        definition=(
            "2.5 n log2 n for each real transform of n points (5 n log2 n for a complex one), of the whole call; never "
            "added to matrix products."
        ),
    ),
    Metric(
        "pointwise_macs",
        unit="MAC",
        better="lower",
        section="operator",
        title="MACs between spectra",
        definition=(
            "Products of two transformed operands, 4 for each complex pair and 1 for each real one, of the whole call; "
            "no matrix products."
        ),
    ),
    Metric(
        "iterations",
        unit="step",
        better="lower",
        section="operator",
        title="Iterations",
        definition=("Steps that an iterative operator takes on the inputs of this row."),
    ),
)
